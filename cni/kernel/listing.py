"""Reading addresses and routes back from the kernel, for CHECK and for adopted bridges. Listings, so never for ADD."""

from __future__ import annotations

from sys import byteorder

from cni.kernel import rtnetlink
from cni.protocol.spec import Route
from nft.addresses import FAMILY, Address, Prefix, from_packed
from nft.netlink import Netlink

VERSION = {number: version for version, number in FAMILY.items()}


def read_addresses(rtnl: Netlink, index: int) -> list[Prefix]:
    found = []
    for payload in rtnl.dump(rtnetlink.RTM_GETADDR, rtnetlink.IFADDR.pack(0, 0, 0, 0, 0)):
        family, length, _flags, _scope, owner = rtnetlink.IFADDR.unpack_from(payload)
        parts = rtnetlink.attributes(payload, rtnetlink.IFADDR.size)
        packed = parts.get(rtnetlink.IFA_LOCAL) or parts.get(rtnetlink.IFA_ADDRESS)
        if owner == index and family in VERSION and packed:
            found.append(Prefix(from_packed(packed), length))
    return found


def read_routes(rtnl: Netlink, index: int) -> list[Route]:
    """Unicast routes out of the link, in any table, without those the kernel makes for its addresses."""
    found = []
    for payload in rtnl.dump(rtnetlink.RTM_GETROUTE, rtnetlink.RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
        family, length, _src, _tos, table, _protocol, _scope, kind, _flags = rtnetlink.RTMSG.unpack_from(payload)
        parts = rtnetlink.attributes(payload, rtnetlink.RTMSG.size)
        if kind != rtnetlink.RTN_UNICAST or family not in VERSION:
            continue
        oif = int.from_bytes(parts.get(rtnetlink.RTA_OIF, b""), byteorder)
        hops = [(oif, parts.get(rtnetlink.RTA_GATEWAY)), *rtnetlink.next_hops(parts.get(rtnetlink.RTA_MULTIPATH, b""))]
        version = VERSION[family]
        packed = parts.get(rtnetlink.RTA_DST)
        dst = Prefix(from_packed(packed) if packed else Address(version, 0), length)
        number = int.from_bytes(parts.get(rtnetlink.RTA_TABLE, bytes([table])), byteorder)
        options = (("table", number),) if number != rtnetlink.RT_TABLE_MAIN else ()
        for way, gateway in hops:
            if way == index:
                found.append(Route(dst, from_packed(gateway) if gateway else None, options))
    return found


def ways_to(rtnl: Netlink, dst: Prefix, table: int) -> list[tuple[int, Address | None, int]]:
    """(link, gateway, metric) of the IPv6 routes to exactly this destination. Multipath routes are not looked into."""
    found = []
    for payload in rtnl.dump(rtnetlink.RTM_GETROUTE, rtnetlink.RTMSG.pack(FAMILY[6], 0, 0, 0, 0, 0, 0, 0, 0)):
        length, small = payload[1], payload[4]
        parts = rtnetlink.attributes(payload, rtnetlink.RTMSG.size)
        oif, number, metric = (
            int.from_bytes(parts.get(kind, b""), byteorder)
            for kind in (rtnetlink.RTA_OIF, rtnetlink.RTA_TABLE, rtnetlink.RTA_PRIORITY)
        )
        if (length, number or small, parts.get(rtnetlink.RTA_DST, bytes(16))) == (dst.length, table, dst.address.packed):
            gateway = parts.get(rtnetlink.RTA_GATEWAY)
            found.append((oif, from_packed(gateway) if gateway else None, metric))
    return found


def links_of_temporary_addresses(rtnl: Netlink) -> set[int]:
    """Indexes of the links with global IPv6 addresses whose time will be over: a router announced them."""
    found = set()
    for payload in rtnl.dump(rtnetlink.RTM_GETADDR, rtnetlink.IFADDR.pack(FAMILY[6], 0, 0, 0, 0)):
        _family, _length, flags, scope, index = rtnetlink.IFADDR.unpack_from(payload)
        if not flags & rtnetlink.IFA_F_PERMANENT and scope == rtnetlink.RT_SCOPE_UNIVERSE:
            found.add(index)
    return found


def links_of_routes(rtnl: Netlink, protocol: int) -> set[int]:
    """Indexes of the links that IPv6 routes of this origin (RTPROT_*) lead out by."""
    found = set()
    for payload in rtnl.dump(rtnetlink.RTM_GETROUTE, rtnetlink.RTMSG.pack(FAMILY[6], 0, 0, 0, 0, 0, 0, 0, 0)):
        parts = rtnetlink.attributes(payload, rtnetlink.RTMSG.size)
        if rtnetlink.RTMSG.unpack_from(payload)[5] == protocol:
            hops = rtnetlink.next_hops(parts.get(rtnetlink.RTA_MULTIPATH, b""))
            found |= {int.from_bytes(parts.get(rtnetlink.RTA_OIF, b""), byteorder), *(index for index, _ in hops)}
    return found - {0}
