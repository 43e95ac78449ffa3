"""rtnetlink messages as bytes: what we send and the little we read back. Pure; framing and sockets are nft's.

Written out with `struct` because pyroute2's codecs cost 50-90 times as much to encode and 130 ms to import; the tests
compare every message byte for byte with pyroute2's. Numbers are from the kernel's include/uapi/linux/{netlink,
rtnetlink,if_link,if_addr,veth}.h.
"""

from __future__ import annotations

from nft.addresses import FAMILY, Address, Prefix
from nft.framing import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, attr, attr_name, attr_u32, attributes, walk
from nft.stdlib import Struct

CREATE = NLM_F_CREATE | NLM_F_EXCL
APPEND = NLM_F_CREATE | NLM_F_APPEND

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE, RTM_GETNEIGH = 24, 26, 30

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_TXQLEN, IFLA_GROUP, IFLA_NET_NS_FD, IFLA_EXT_MASK = 13, 27, 28, 29
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_BRPORT_STATE, IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 1, 4, 33  # MODE is hairpin
BR_STATE_FORWARDING = 3
VETH_INFO_PEER = 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 4, 5, 6, 7
RTA_METRICS, RTA_MULTIPATH, RTA_TABLE = 8, 9, 15
RTAX_MTU, RTAX_ADVMSS = 2, 8
IFA_F_NODAD, IFA_F_PERMANENT, IFA_F_NOPREFIXROUTE = 0x02, 0x80, 0x200
IFF_UP, IFF_PROMISC, IFF_ALLMULTI = 0x1, 0x100, 0x200
RTEXT_FILTER_SKIP_STATS = 1 << 3
RTM_F_FIB_MATCH = 0x2000
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 254, 4, 0, 253
RTN_UNICAST, RTN_LOCAL = 1, 2
NDA_DST, NDA_IFINDEX = 1, 8
NUD_VALID = 0xDE  # permanent, noarp, reachable, stale, delay, probe; include/net/neighbour.h

IFINFO = Struct("=BxHiII")  # family, device type, index, flags, change mask
IFADDR = Struct("=BBBBI")  # family, prefix length, flags, scope, index
RTNEXTHOP = Struct("=HBBi")  # length, flags, hops, index
NDMSG = Struct("=BxxxiHBB")  # family, index, state, flags, type
RTMSG = Struct("=BBBBBBBBI")  # family, dst length, src length, tos, table, protocol, scope, type, flags


def next_hops(data: bytes) -> list[tuple[int, bytes | None]]:
    """(index, gateway) of each next hop of a multipath route (RTA_MULTIPATH)."""
    return [(fields[3], attributes(hop).get(RTA_GATEWAY)) for fields, hop in walk(data, RTNEXTHOP)]


# The requests: each returns the payload that `message` wraps.


def link_named(name: str) -> bytes:
    return IFINFO.pack(0, 0, 0, 0, 0) + attr_name(IFLA_IFNAME, name)


def get_link(name: str) -> bytes:
    return link_named(name) + attr_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


def link_at(index: int) -> bytes:
    return IFINFO.pack(0, 0, index, 0, 0)


def get_link_at(index: int) -> bytes:
    return link_at(index) + attr_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


def new_bridge(name: str, mac: bytes, mtu: int) -> bytes:
    size = attr_u32(IFLA_MTU, mtu) if mtu else b""
    kind = attr(IFLA_LINKINFO, attr_name(IFLA_INFO_KIND, "bridge"))
    return IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP) + attr_name(IFLA_IFNAME, name) + attr(IFLA_ADDRESS, mac) + size + kind


def new_veth(name: str, mac: bytes, mtu: int, master: int, peer: str, peer_mac: bytes, netns_fd: int) -> bytes:
    """Makes both ends of a pair, the host end up and in the bridge `master` (0: in none), the peer born in its
    namespace.

    The peer cannot be created up: veth_open fails with ENOTCONN until the pair is tied.
    """
    size = attr_u32(IFLA_MTU, mtu) if mtu else b""
    other = IFINFO.pack(0, 0, 0, 0, 0) + attr_name(IFLA_IFNAME, peer) + attr(IFLA_ADDRESS, peer_mac) + size
    other += attr_u32(IFLA_NET_NS_FD, netns_fd)
    info = attr_name(IFLA_INFO_KIND, "veth") + attr(IFLA_INFO_DATA, attr(VETH_INFO_PEER, other))
    bridge = attr_u32(IFLA_MASTER, master) if master else b""
    host = attr_name(IFLA_IFNAME, name) + attr(IFLA_ADDRESS, mac) + size + bridge
    return IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP) + host + attr(IFLA_LINKINFO, info)


def set_port(index: int, hairpin: bool, isolated: bool) -> bytes:
    """Sets the bridge port's flags, which the kernel ignores in the message that makes the link. Takes the link out of
    any group, into which a DEL or GC that was killed may have put it."""
    data = attr(IFLA_BRPORT_MODE, bytes([hairpin])) + attr(IFLA_BRPORT_ISOLATED, bytes([isolated]))
    info = attr_name(IFLA_INFO_SLAVE_KIND, "bridge") + attr(IFLA_INFO_SLAVE_DATA, data)
    return IFINFO.pack(0, 0, index, 0, 0) + attr_u32(IFLA_GROUP, 0) + attr(IFLA_LINKINFO, info)


def set_master(index: int, bridge: int) -> bytes:
    return IFINFO.pack(0, 0, index, 0, 0) + attr_u32(IFLA_MASTER, bridge)


def set_up(index: int) -> bytes:
    return IFINFO.pack(0, 0, index, IFF_UP, IFF_UP)


def set_up_again(index: int) -> bytes:
    """Also takes the link out of the group into which a DEL that was killed may have put it."""
    return set_up(index) + attr_u32(IFLA_GROUP, 0)


def set_down(index: int, group: int) -> bytes:
    return IFINFO.pack(0, 0, index, 0, IFF_UP) + attr_u32(IFLA_GROUP, group)


def tune(index: int, flags: dict[int, bool], mac: bytes, mtu: int, queue: int | None) -> bytes:
    """Sets or clears `flags`. b"", 0 and None leave MAC address, MTU and queue length alone."""
    mask = sum(flags)
    body = IFINFO.pack(0, 0, index, sum(flag for flag, on in flags.items() if on), mask)
    if mac:
        body += attr(IFLA_ADDRESS, mac)
    if mtu:
        body += attr_u32(IFLA_MTU, mtu)
    return body + (attr_u32(IFLA_TXQLEN, queue) if queue is not None else b"")


def rename(index: int, name: str) -> bytes:
    return IFINFO.pack(0, 0, index, 0, 0) + attr_name(IFLA_IFNAME, name)


def set_group(name: str, group: int) -> bytes:
    return link_named(name) + attr_u32(IFLA_GROUP, group)


def group(number: int) -> bytes:
    """For RTM_DELLINK: removes every link of the group in one wait."""
    return IFINFO.pack(0, 0, 0, 0, 0) + attr_u32(IFLA_GROUP, number)


def address(index: int, prefix: Prefix, flags: int = 0) -> bytes:
    packed = prefix.address.packed
    body = IFADDR.pack(FAMILY[prefix.version], prefix.length, flags & 0xFF, RT_SCOPE_UNIVERSE, index)
    body += attr(IFA_LOCAL, packed) + attr(IFA_ADDRESS, packed)
    if prefix.version == 4 and prefix.length < 31:
        body += attr(IFA_BROADCAST, Address(4, prefix.last).packed)
    return body + (attr_u32(IFA_FLAGS, flags) if flags else b"")


def get_route(address: Address, flags: int = 0) -> bytes:
    """Asks which way a packet to the address would go; with RTM_F_FIB_MATCH, by which route."""
    packed = address.packed
    return RTMSG.pack(FAMILY[address.version], len(packed) * 8, 0, 0, 0, 0, 0, 0, flags) + attr(RTA_DST, packed)


def list_routes(version: int, link: int, origin: int) -> bytes:
    """Asks for the routes of an IP version, by a link, of an origin; 0 stands for any."""
    query = RTMSG.pack(FAMILY.get(version, 0), 0, 0, 0, 0, origin, 0, 0, 0)
    return query + attr_u32(RTA_OIF, link) if link else query


def list_neighbours(index: int) -> bytes:
    """Asks for the neighbours on one link. Linux filters since 4.4 (neigh_dump_info)."""
    return NDMSG.pack(0, 0, 0, 0, 0) + attr_u32(NDA_IFINDEX, index)


def route(
    index: int, dst: Prefix, gateway: Address | None, options: dict[str, int], source: Address | None = None
) -> bytes:
    """`options`: mtu, advmss, priority, table, scope. Without a gateway the destination is on the link."""
    table = options.get("table") or RT_TABLE_MAIN
    scope = options.get("scope", RT_SCOPE_UNIVERSE if gateway or dst.version == 6 else RT_SCOPE_LINK)
    small = table if table < 256 else 0
    body = RTMSG.pack(FAMILY[dst.version], dst.length, 0, 0, small, RTPROT_STATIC, scope, RTN_UNICAST, 0)
    if dst.length:
        body += attr(RTA_DST, dst.address.packed)
    body += attr_u32(RTA_OIF, index)
    if gateway is not None:
        body += attr(RTA_GATEWAY, gateway.packed)
    if source is not None:
        body += attr(RTA_PREFSRC, source.packed)
    if options.get("priority"):
        body += attr_u32(RTA_PRIORITY, options["priority"])
    metrics = [(RTAX_MTU, "mtu"), (RTAX_ADVMSS, "advmss")]
    nested = b"".join(attr_u32(kind, options[key]) for kind, key in metrics if options.get(key))
    if nested:
        body += attr(RTA_METRICS, nested)
    return body + (attr_u32(RTA_TABLE, table) if table >= 256 else b"")
