"""Looks up the route of a whole packet (RTM_GETROUTE): with source, mark, protocol and ports, which policy rules may
match and for which pyroute2 has no names. Numbers are from include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from sys import byteorder

from cni.kernel import rtnetlink
from cni.operate.walk.packet import NUMBERS, Packet
from cni.operate.walk.policy import ENDING
from nft.addresses import BITS, FAMILY, Address, from_packed
from nft.errors import KernelError
from nft.framing import attr, attr_u32, attributes
from nft.netlink import Netlink

RTM_F_LOOKUP_TABLE = 0x1000
RTA_SRC, RTA_IIF, RTA_MARK, RTA_VIA, RTA_IP_PROTO, RTA_SPORT, RTA_DPORT = 2, 3, 16, 18, 27, 28, 29
KINDS = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast", 9: "throw", **ENDING}


@dataclass(frozen=True)
class PacketRoute:
    """The route of one packet. `error` is the errno, 0 if there is a route. `links` are those of all next hops, between
    which the kernel chooses for each flow."""

    kind: str
    link: str
    via: Address | None = None
    table: int = rtnetlink.RT_TABLE_MAIN
    error: int = 0
    links: frozenset[str] = frozenset()


def look_up(
    rtnl: Netlink,
    names: Mapping[int, str],
    dst: Address,
    src: Address | None = None,
    iif: int = 0,
    mark: int = 0,
    packet: Packet | None = None,
) -> PacketRoute:
    """The route of a packet. `names` are the links' names by index; `packet` has the ports."""
    lengths = (BITS[dst.version], BITS[src.version] if src is not None else 0)
    query = attr(rtnetlink.RTA_DST, dst.packed)
    query += attr(RTA_SRC, src.packed) if src is not None else b""
    query += attr_u32(RTA_IIF, iif) if iif else b""
    query += attr_u32(RTA_MARK, mark) if mark else b""
    if packet is not None and packet.proto in ("tcp", "udp"):  # others are refused (rtm_getroute_parse_ip_proto)
        query += attr(RTA_IP_PROTO, bytes([NUMBERS[packet.proto]]))
        query += attr(RTA_SPORT, packet.sport.to_bytes(2, "big")) + attr(RTA_DPORT, packet.dport.to_bytes(2, "big"))
    try:
        answer = _ask(rtnl, (FAMILY[dst.version], *lengths), RTM_F_LOOKUP_TABLE, query)
    except KernelError as error:
        return PacketRoute("", "", error=error.errno or 0)
    fields = rtnetlink.RTMSG.unpack_from(answer)
    found = attributes(answer, rtnetlink.RTMSG.size)
    hops = [_number(found.get(rtnetlink.RTA_OIF, b"")), *_next_hops(rtnl, (FAMILY[dst.version], *lengths), query)]
    link = next((index for index in hops if index), 0)
    via = (
        found.get(rtnetlink.RTA_GATEWAY) or found.get(RTA_VIA, b"")[2:]
    )  # struct rtvia has a family before the address
    return PacketRoute(
        KINDS.get(fields[7], str(fields[7])),
        names.get(link, ""),
        from_packed(via) if via else None,
        _number(found.get(rtnetlink.RTA_TABLE, b"")) or fields[4],
        links=frozenset(names.get(index, "") for index in hops),
    )


def _ask(rtnl: Netlink, about: tuple[int, int, int], flags: int, query: bytes) -> bytes:
    return rtnl.ask(rtnetlink.RTM_GETROUTE, rtnetlink.RTMSG.pack(*about, 0, 0, 0, 0, 0, flags) + query)


def _next_hops(rtnl: Netlink, about: tuple[int, int, int], query: bytes) -> list[int]:
    """The links of a route with several next hops. Not every way has a route (a broadcast, for example)."""
    try:
        route = _ask(rtnl, about, rtnetlink.RTM_F_FIB_MATCH, query)
    except KernelError:
        return []
    hops = attributes(route, rtnetlink.RTMSG.size).get(rtnetlink.RTA_MULTIPATH, b"")
    return [index for index, _via in rtnetlink.next_hops(hops)]


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, byteorder)
