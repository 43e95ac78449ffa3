"""The drop-in name `loopback`: sets the container's `lo` up on ADD and down on DEL. It needs no table and no state."""

from __future__ import annotations

from cni.kernel import rtnetlink
from cni.kernel.links import get_link
from cni.kernel.netns import Inside, open_netns
from cni.protocol.errors import CHECK_FAILED, CniError, kernel_refused
from cni.protocol.fields import Fields
from cni.protocol.request import Request
from cni.protocol.results import parse_previous
from cni.protocol.spec import Dns, Interface, Result, ResultAddress, result_document
from nft.addresses import format_mac, parse_prefix
from nft.netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ADDRESSES = ("127.0.0.1/8", "::1/128")


def add(request: Request) -> dict[str, Any]:
    """Sets `lo` up. Returns prevResult unchanged, or a result of `lo` with the addresses that the kernel gave it."""
    with Inside(open_netns(request.netns)):
        rtnl = Netlink()
    try:
        link = get_link(rtnl, "lo")
        assert link is not None, "every network namespace has one"
        rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.set_up(link.index))
        from cni.kernel.dumps import read_addresses

        found = read_addresses(rtnl, link.index)
    except OSError as error:
        raise kernel_refused(f"setting lo up in {request.netns}", error) from None
    if Fields(request.document).has("prevResult"):
        return parse_previous(request).document
    ips = tuple(ResultAddress(prefix, None, 0) for prefix in map(parse_prefix, ADDRESSES) if prefix in found)
    interface = Interface("lo", format_mac(bytes(6)), link.mtu, request.netns)
    return result_document(Result((interface,), ips, (), Dns()), request.version)


def delete(request: Request) -> None:
    """Sets `lo` down. Without a namespace there is nothing to do."""
    try:
        netns = open_netns(request.netns)
    except CniError:
        return
    with Inside(netns):
        rtnl = Netlink()
    try:
        link = get_link(rtnl, "lo")
        if link is not None:
            rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.tune(link.index, {rtnetlink.IFF_UP: False}, b"", 0, None))
    except OSError as error:
        raise kernel_refused(f"setting lo down in {request.netns}", error) from None


def check(request: Request) -> None:
    """Raises CniError 104 if `lo` is down."""
    with Inside(open_netns(request.netns)):
        rtnl = Netlink()
    link = get_link(rtnl, "lo")
    if link is None or not link.up:
        raise CniError(CHECK_FAILED, f"lo is down in {request.netns}")
