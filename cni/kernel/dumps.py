"""Listings of the kernel's addresses and routes, for CHECK and adopted bridges. The usual ADD and DEL never need
them."""

from __future__ import annotations

from sys import byteorder

from cni.kernel import rtnetlink
from cni.protocol.spec import Route
from nft.addresses import FAMILY, VERSION, Address, Prefix, from_packed
from nft.framing import attributes
from nft.netlink import Netlink
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class KernelRoute(Value):
    """A route of the kernel. `hops` holds (link index, gateway), `protocol` is RTPROT_*, `kind` RTN_*."""

    dst: Prefix
    table: int
    metric: int
    protocol: int
    kind: int
    hops: tuple[tuple[int, Address | None], ...]


def routes(rtnl: Netlink, version: int = 0, link: int = 0, origin: int = 0) -> Iterator[KernelRoute]:
    """The routes of one IP version, or of both (0), and only those by one link (its index) or of one origin (RTPROT_*)
    if asked for. Linux before 4.20 lists all the same, so callers compare.

    A router with BGP has many: reading 50 000 of them takes 270 ms more than having the kernel pass them over.
    """
    rtnl.filter_dumps()
    for payload in rtnl.dump(rtnetlink.RTM_GETROUTE, rtnetlink.list_routes(version, link, origin)):
        family, length, _src, _tos, table, protocol, _scope, kind, _flags = rtnetlink.RTMSG.unpack_from(payload)
        if family not in VERSION:
            continue
        parts = attributes(payload, rtnetlink.RTMSG.size)
        packed = parts.get(rtnetlink.RTA_DST)
        hops = [(_number(parts, rtnetlink.RTA_OIF), parts.get(rtnetlink.RTA_GATEWAY))]
        hops += rtnetlink.next_hops(parts.get(rtnetlink.RTA_MULTIPATH, b""))
        yield KernelRoute(
            Prefix(from_packed(packed) if packed else Address(VERSION[family], 0), length),
            _number(parts, rtnetlink.RTA_TABLE) or table,
            _number(parts, rtnetlink.RTA_PRIORITY),
            protocol,
            kind,
            tuple((link, from_packed(gateway) if gateway else None) for link, gateway in hops if link),
        )


def _number(parts: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(parts.get(kind, b""), byteorder)


def read_addresses(rtnl: Netlink, index: int) -> list[Prefix]:
    """The addresses of one link, with their prefix lengths."""
    rtnl.filter_dumps()
    found = []
    for payload in rtnl.dump(rtnetlink.RTM_GETADDR, rtnetlink.IFADDR.pack(0, 0, 0, 0, index)):
        family, length, _flags, _scope, owner = rtnetlink.IFADDR.unpack_from(payload)
        parts = attributes(payload, rtnetlink.IFADDR.size)
        packed = parts.get(rtnetlink.IFA_LOCAL) or parts.get(rtnetlink.IFA_ADDRESS)
        if owner == index and family in VERSION and packed:
            found.append(Prefix(from_packed(packed), length))
    return found


def read_routes(rtnl: Netlink, index: int) -> list[Route]:
    """Unicast routes that leave by the link, in any table, without those that the kernel makes for its addresses."""
    found = []
    for route in routes(rtnl, link=index):
        options = (("table", route.table),) if route.table != rtnetlink.RT_TABLE_MAIN else ()
        if route.kind == rtnetlink.RTN_UNICAST:
            found += [Route(route.dst, gateway, options) for link, gateway in route.hops if link == index]
    return found


def neighbours(rtnl: Netlink, index: int) -> set[Address]:
    """The addresses on the link of which the kernel knows the MAC address."""
    found = set()
    for payload in rtnl.dump(rtnetlink.RTM_GETNEIGH, rtnetlink.list_neighbours(index)):
        _family, link, state, _flags, _kind = rtnetlink.NDMSG.unpack_from(payload)
        packed = attributes(payload, rtnetlink.NDMSG.size).get(rtnetlink.NDA_DST, b"")
        if link == index and state & rtnetlink.NUD_VALID and len(packed) in (4, 16):
            found.add(from_packed(packed))
    return found


def ways_to(rtnl: Netlink, dst: Prefix, table: int) -> list[tuple[int, Address | None, int]]:
    """(link, gateway, metric) of the routes to exactly this destination."""
    return [
        (link, gateway, route.metric)
        for route in routes(rtnl, dst.version)
        if (route.dst, route.table) == (dst, table)
        for link, gateway in route.hops
    ]


def links_of_temporary_addresses(rtnl: Netlink) -> set[int]:
    """Indexes of the links with global IPv6 addresses that expire, because a router announced them."""
    found = set()
    for payload in rtnl.dump(rtnetlink.RTM_GETADDR, rtnetlink.IFADDR.pack(FAMILY[6], 0, 0, 0, 0)):
        _family, _length, flags, scope, index = rtnetlink.IFADDR.unpack_from(payload)
        if not flags & rtnetlink.IFA_F_PERMANENT and scope == rtnetlink.RT_SCOPE_UNIVERSE:
            found.add(index)
    return found


def links_of_routes(rtnl: Netlink, protocol: int) -> set[int]:
    """Indexes of the links by which IPv6 routes of this origin (RTPROT_*) leave."""
    found = routes(rtnl, 6, origin=protocol)
    return {link for route in found if route.protocol == protocol for link, _gateway in route.hops}
