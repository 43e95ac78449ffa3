"""DEL, and the teardown that everything else uses: table elements first, then links, then the record.

The order has a price tag: closing the table's socket after a deletion waits 5-15 ms for the kernel unless that time has
passed meanwhile, and the links' removal is what passes it. Works from the record alone: no namespace, no prevResult, no
valid configuration is needed.
"""

from __future__ import annotations

from .errors import CniError, kernel_refused
from .host import Host
from .links import get_link
from .names import host_link, identity
from .record import Attachment
from .removal import remove_links
from .request import Request


def delete(request: Request) -> None:
    """Succeeds when there is nothing. Raises CniError when something remains; calling it again goes on from there."""
    ident = identity(request.network, request.container, request.ifname)
    host = Host(request.data_dir)
    host.lock()
    try:
        item = host.record(ident)
        if item is not None:
            detach(host, item)
        else:
            if get_link(host.rtnl, host_link(ident)) is not None:
                remove_links(host.rtnl, [host_link(ident)])
            host.state.drop_empty(request.network)
    except OSError as error:
        raise kernel_refused(f"DEL of {ident}", error) from None
    host.state.unlock()
    kind = (item.delegate if item else "") or delegate_type(request)
    if kind:
        from .delegate import run_delegate

        run_delegate(request, kind, "DEL")


def detach(host: Host, item: Attachment) -> None:
    last = host.state.is_last(item)
    host.delete_elements(item, last)
    links = [item.link] if item.own_link else []
    if last:
        links += host.leave_bridge(item)
    remove_links(host.rtnl, links)
    if any(mapping.protocol == "udp" for mapping in item.mappings):
        from nft.conntrack import forget_container

        forget_container(item.mappings, item.addresses)
    if last:
        host.state.forget_bridge(item.bridge)
    heirs = host.state.forget(item)
    if heirs:
        from .heirs import hand_over

        hand_over(host, heirs)


def delegate_type(request: Request) -> str:
    """The foreign IPAM plugin of a configuration that need not be valid any more."""
    from .config import BUILT_IN_IPAM
    from .fields import Fields

    try:
        kind = Fields(request.document).section("ipam").text("type")
    except CniError:
        return ""
    return "" if kind in BUILT_IN_IPAM or "/" in kind else kind
