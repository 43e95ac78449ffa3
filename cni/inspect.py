"""Reading addresses and routes back from the kernel, for CHECK and for adopted bridges. Listings, so never for ADD."""

from __future__ import annotations

from sys import byteorder

from . import wire
from .ip import Address, Prefix
from .netlink import Netlink
from .spec import Route

VERSION = {2: 4, 10: 6}


def read_addresses(rtnl: Netlink, index: int) -> list[Prefix]:
    found = []
    for payload in rtnl.dump(wire.RTM_GETADDR, wire.IFADDR.pack(0, 0, 0, 0, 0)):
        family, length, _flags, _scope, owner = wire.IFADDR.unpack_from(payload)
        parts = wire.attributes(payload, wire.IFADDR.size)
        packed = parts.get(wire.IFA_LOCAL) or parts.get(wire.IFA_ADDRESS)
        if owner == index and family in VERSION and packed:
            found.append(Prefix(_address(family, packed), length))
    return found


def read_routes(rtnl: Netlink, index: int) -> list[Route]:
    """Unicast routes out of the link, in any table, without those the kernel makes for its addresses."""
    found = []
    for payload in rtnl.dump(wire.RTM_GETROUTE, wire.RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
        family, length, _src, _tos, table, _protocol, _scope, kind, _flags = wire.RTMSG.unpack_from(payload)
        parts = wire.attributes(payload, wire.RTMSG.size)
        if kind != wire.RTN_UNICAST or family not in VERSION:
            continue
        oif = int.from_bytes(parts.get(wire.RTA_OIF, b""), byteorder)
        hops = [(oif, parts.get(wire.RTA_GATEWAY)), *wire.next_hops(parts.get(wire.RTA_MULTIPATH, b""))]
        version = VERSION[family]
        packed = parts.get(wire.RTA_DST)
        dst = Prefix(_address(family, packed) if packed else Address(version, 0), length)
        number = int.from_bytes(parts.get(wire.RTA_TABLE, bytes([table])), byteorder)
        options = (("table", number),) if number != wire.RT_TABLE_MAIN else ()
        for way, gateway in hops:
            if way == index:
                found.append(Route(dst, _address(family, gateway) if gateway else None, options))
    return found


def _address(family: int, packed: bytes) -> Address:
    return Address(VERSION[family], int.from_bytes(packed, "big"))
