"""Links as the kernel lists them: looked up by name, by index, or all of a bridge.

Making them is `pair` and `cni.bridge`, taking them away `deletion`; the bytes are `rtnetlink`'s.
"""

from __future__ import annotations

from sys import byteorder

from cni.kernel import rtnetlink
from nft.framing import attr_u32, attributes, text
from nft.netlink import Netlink, is_missing
from nft.stdlib import if_nametoindex
from nft.value import Value


class Link(Value):
    """The part of RTM_GETLINK's answer that matters here. `peer` is the other end's index."""

    index: int
    name: str
    kind: str
    mac: bytes
    mtu: int
    up: bool
    master: int
    peer: int
    hairpin: bool
    isolated: bool
    forwarding: bool
    flags: int
    queue: int
    group: int


def get_link(rtnl: Netlink, name: str) -> Link | None:
    try:
        return read_link(rtnl.ask(rtnetlink.RTM_GETLINK, rtnetlink.get_link(name)))
    except OSError as error:
        if is_missing(error):
            return None
        raise


def link_index(name: str) -> int:
    """The link's index, 0 if the kernel does not find one by that name. SIOCGIFINDEX takes no lock, whereas RTM_GETLINK
    waits for the rtnl lock, which a removal holds to its end."""
    try:
        return if_nametoindex(name)
    except OSError:
        return 0


def read_link(payload: bytes) -> Link:
    _family, _type, index, flags, _change = rtnetlink.IFINFO.unpack_from(payload)
    found = attributes(payload, rtnetlink.IFINFO.size)
    info = attributes(found.get(rtnetlink.IFLA_LINKINFO, b""))
    port = attributes(info.get(rtnetlink.IFLA_INFO_SLAVE_DATA, b""))
    return Link(
        index=index,
        name=text(found.get(rtnetlink.IFLA_IFNAME, b"")),
        kind=text(info.get(rtnetlink.IFLA_INFO_KIND, b"")),
        mac=found.get(rtnetlink.IFLA_ADDRESS, b""),
        mtu=_number(found.get(rtnetlink.IFLA_MTU, b"")),
        up=bool(flags & rtnetlink.IFF_UP),
        master=_number(found.get(rtnetlink.IFLA_MASTER, b"")),
        peer=_number(found.get(rtnetlink.IFLA_LINK, b"")),
        hairpin=port.get(rtnetlink.IFLA_BRPORT_MODE) == b"\x01",
        isolated=port.get(rtnetlink.IFLA_BRPORT_ISOLATED) == b"\x01",
        forwarding=port.get(rtnetlink.IFLA_BRPORT_STATE) == bytes([rtnetlink.BR_STATE_FORWARDING]),
        flags=flags,
        queue=_number(found.get(rtnetlink.IFLA_TXQLEN, b"")),
        group=_number(found.get(rtnetlink.IFLA_GROUP, b"")),
    )


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, byteorder)


def port_names(rtnl: Netlink, bridge: str) -> list[str]:
    """The names of all links in a bridge. It lists links, so it is for a bridge's last attachment only."""
    link = get_link(rtnl, bridge)
    if link is None:
        return []
    query = rtnetlink.IFINFO.pack(0, 0, 0, 0, 0) + attr_u32(rtnetlink.IFLA_MASTER, link.index)
    found = [read_link(payload) for payload in rtnl.dump(rtnetlink.RTM_GETLINK, query)]
    return [port.name for port in found if port.master == link.index]


def all_links(rtnl: Netlink) -> list[Link]:
    """Lists all links, for when the host begins or stops to forward."""
    return [read_link(payload) for payload in rtnl.dump(rtnetlink.RTM_GETLINK, rtnetlink.IFINFO.pack(0, 0, 0, 0, 0))]


def link_name(rtnl: Netlink, index: int) -> str:
    """The name of the link with that index, "" if there is none."""
    try:
        return read_link(rtnl.ask(rtnetlink.RTM_GETLINK, rtnetlink.get_link_at(index))).name
    except OSError as error:
        if is_missing(error):
            return ""
        raise
