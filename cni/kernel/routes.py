"""Routes: asks the kernel where an address leads, and adds a container's routes beside those of its other networks.

`dumps` reads whole lists; the record says which routes a container has.
"""

from __future__ import annotations

import errno
from sys import byteorder

from cni.kernel import rtnetlink
from cni.model.attachment import FURTHER_METRIC
from cni.protocol.errors import kernel_refused
from cni.protocol.spec import Route
from nft.addresses import Address, Prefix, parse_address
from nft.framing import attributes
from nft.netlink import Netlink
from nft.value import Value

IP6_RT_PRIO_USER = 1024  # include/uapi/linux/ipv6_route.h
GLOBAL_UNICAST = 0x2000 << 112  # 2000::/3, RFC 4291
# Prefixes without machines (RFC 7526, RFC 6666): only a default route leads there.
ELSEWHERE = {4: parse_address("192.88.99.1"), 6: parse_address("100::1")}


class RouteResult(Value):
    """What a look-up found: the route's type (RTN_*), its prefix length if that was asked for, and the index of its
    link."""

    kind: int
    length: int
    link: int


def look_up(rtnl: Netlink, address: Address, flags: int = 0) -> RouteResult | None:
    """Which way a packet to the address would go; with RTM_F_FIB_MATCH, by which route. None without a route."""
    try:
        reply = rtnl.ask(rtnetlink.RTM_GETROUTE, rtnetlink.get_route(address, flags))
    except OSError:
        return None
    fields = rtnetlink.RTMSG.unpack_from(reply)
    out = attributes(reply, rtnetlink.RTMSG.size).get(rtnetlink.RTA_OIF, b"")
    return RouteResult(fields[7], fields[1], int.from_bytes(out, byteorder))


def is_local(rtnl: Netlink, address: Address) -> bool:
    """Whether packets to the address are for this host, as in the table's `fib daddr type local`."""
    way = look_up(rtnl, address)
    return way is not None and way.kind == rtnetlink.RTN_LOCAL


def default_links(rtnl: Netlink, version: int) -> list[int]:
    """The indexes of the links by which the default route leaves, [] without one. It is one request, however many
    routes there are; of several default routes, the kernel names the one that it uses."""
    try:
        reply = rtnl.ask(rtnetlink.RTM_GETROUTE, rtnetlink.get_route(ELSEWHERE[version], rtnetlink.RTM_F_FIB_MATCH))
    except OSError:
        return []
    fields = rtnetlink.RTMSG.unpack_from(reply)
    if fields[7] != rtnetlink.RTN_UNICAST or fields[1] != 0:
        return []
    parts = attributes(reply, rtnetlink.RTMSG.size)
    hops = rtnetlink.next_hops(parts.get(rtnetlink.RTA_MULTIPATH, b""))
    links = (int.from_bytes(parts.get(rtnetlink.RTA_OIF, b""), byteorder), *(link for link, _gateway in hops))
    return list(dict.fromkeys(link for link in links if link))


def add_route(rtnl: Netlink, link: int, route: Route, source: Address | None = None) -> None:
    """Adds a route behind one to the same place by another interface: a container on two networks, of which either may
    go.

    Of two equal default routes, IPv4 takes turns as the gateways' neighbour entries age (fib_select_default); IPv6
    would make a multipath route and send half of the flows each way (fib6_add_rt2node). So ours gets a worse metric,
    unless the configuration names one. That of a further interface is behind it already. Other IPv4 routes are
    appended.
    """
    options = dict(route.options)
    if options.get("priority") or (route.dst.version == 4 and not _has_another_default(rtnl, link, route.dst)):
        payload = rtnetlink.route(link, route.dst, route.gw, options, source)
        repeatable(rtnl, rtnetlink.RTM_NEWROUTE, payload, route, rtnetlink.APPEND)
        return
    metric = IP6_RT_PRIO_USER if route.dst.version == 6 else 0
    table = options.get("table") or rtnetlink.RT_TABLE_MAIN
    if table != rtnetlink.RT_TABLE_MAIN or route.dst.version == 4 or _leads_somewhere(rtnl, route.dst):
        from cni.kernel.dumps import ways_to

        ways = ways_to(rtnl, route.dst, table)
        if any((index, gateway) == (link, route.gw) for index, gateway, _metric in ways):
            return
        metric = max([metric, *(other + 1 for _index, _gateway, other in ways if other != FURTHER_METRIC)])
    payload = rtnetlink.route(link, route.dst, route.gw, {**options, "priority": metric}, source)
    try:
        rtnl.ask(rtnetlink.RTM_NEWROUTE, payload, rtnetlink.CREATE)
    except OSError as error:
        raise kernel_refused(f"adding {route}", error) from None


def _has_another_default(rtnl: Netlink, link: int, dst: Prefix) -> bool:
    """Whether this is a default route, and one leads by another link."""
    return dst.length == 0 and not {link}.issuperset(default_links(rtnl, 4))


def _leads_somewhere(rtnl: Netlink, dst: Prefix) -> bool:
    """Whether any route leads to this destination. One look-up saves the listing, which most containers, having one
    interface, never need."""
    inside = Address(6, (dst.first or GLOBAL_UNICAST) + (dst.length < 128))  # the first address may be a router's
    try:
        rtnl.ask(rtnetlink.RTM_GETROUTE, rtnetlink.get_route(inside))
    except OSError as error:
        return error.errno != errno.ENETUNREACH
    return True


def repeatable(rtnl: Netlink, kind: int, payload: bytes, what: object, flags: int = rtnetlink.CREATE) -> None:
    """Makes a request to add something, which may exist already."""
    try:
        rtnl.ask(kind, payload, flags)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise kernel_refused(f"adding {what}", error) from None
