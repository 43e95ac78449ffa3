"""The kernel's routing of one packet: the way, policy rules, rp_filter, forwarding of a link, IPsec policies."""

from __future__ import annotations

import errno
from dataclasses import replace

from cni.kernel.rtnetlink import RT_TABLE_MAIN
from cni.operate.walk import policy
from cni.operate.walk.ipsec import FWD, OUT, blocked
from cni.operate.walk.kernel import Kernel, Link
from cni.operate.walk.lookup import PacketRoute
from cni.operate.walk.packet import Packet
from cni.operate.walk.step import Step, ok, stop
from cni.operate.walk.world import Client, World, is_link_local
from nft.addresses import Address, Prefix, host_prefix

MAIN = (0, 254, 255)
Ends = tuple[Address, Address, int, int]  # source, destination, their ports


def route_steps(world: World, packet: Packet, iif: str, wanted: str) -> list[Step]:
    """Checks that the packet that came in by `iif` ("" for one of the host's own) leaves by `wanted`."""
    kernel = world.kernel
    if not wanted or (iif and iif not in kernel.links) or wanted not in kernel.links:
        return []
    mark = packet.mark or 0
    steps = _forwarding(world, packet.version, iif) if iif else []
    source = packet.saddr if iif else None
    way = kernel.route(packet.daddr, source, iif, mark, packet)
    ended = (
        ended_step(kernel, packet, iif, _whom(world, packet, wanted)) if way.error or way.kind != "unicast" else None
    )
    if ended is not None:
        return [*steps, ended]
    if iif and way.error and (steps or way.error != errno.ENETUNREACH):
        plain = kernel.route(packet.daddr, mark=mark, packet=packet)
        if not plain.error and wanted in plain.links and plain.kind == "unicast":
            return steps or _refused_source(world, packet, iif, way)
        way = plain
    if wanted in way.links and way.kind == "unicast":
        said = f"{packet.daddr} leads by {way.link}" + (f" via {way.via}" if way.via else "")
        return steps or [ok("route", said)]
    return steps + [_elsewhere(world, packet, way, wanted)]


def unreached_steps(world: World, client: Client) -> list[Step]:
    """The steps for a client in whose subnet no link has an address. If nobody named the client, it only reports IPv6
    that is off just on the uplinks; if it is off everywhere, somebody wants it so."""
    off = [
        link
        for link in world.uplinks
        if client.address.version == 6 and world.kernel.sysctl(f"ipv6/conf/{link}/disable_ipv6") == "1"
    ]
    if client.link or not (client.named or (off and world.kernel.sysctl("ipv6/conf/all/disable_ipv6") == "0")):
        return []
    commands = [f"sysctl -w net.ipv6.conf.{link.replace('.', '/')}.disable_ipv6=0" for link in off]
    commands += [f"# then let the program that manages {link} set its IPv6 addresses again" for link in off]
    because = f"IPv6 is off on {', '.join(off)}" if off else "no link of this host leads there"
    what = f"no route to {client.address}" if client.named else "nobody outside reaches a port by IPv6"
    return [stop("route", what, because, *commands)]


def uplink_steps(world: World, link: Link) -> list[Step]:
    """Checks for a link that is up but cannot receive anything."""
    kernel = world.kernel
    if not link.carrier:
        see = f"# look at its other end, a cable or a switch, or see where it leads: ip -d link show {link.name}"
        return [stop("uplink", f"{link.name} is up, but has no carrier", "nothing is at the other end of it", see)]
    bridge = kernel.names.get(link.master, "")
    if kernel.link_kind(bridge) != "bridge":
        return []
    if any(item.made and item.master == bridge for item in world.items):
        # With the host's addresses on it, the bridge would have the outside among its containers.
        what = f"{link.name} is a port of {bridge}, which is the containers' bridge"
        back = f"ip link set {link.name} nomaster"
        return [stop("uplink", what, f"what comes by {link.name} passes for a container's", back)]
    commands = []
    own = [one for one in kernel.addresses_of(link.name) if not is_link_local(one.address)]
    for prefix in own:
        six = "-6 " if prefix.version == 6 else ""
        commands.append(f"ip addr del {prefix} dev {link.name}")
        commands.append(f"ip addr add {prefix} dev {bridge}")
        commands += [
            f"ip {six}route replace default via {via} dev {bridge}"
            for dst, table, name, _kind, via in kernel.routes
            if (dst.length, dst.version, table, name) == (0, prefix.version, RT_TABLE_MAIN, link.name)
            and via is not None
            and via in prefix.network
        ]
    what = f"{link.name} is a port of the bridge {bridge}, and has the addresses {', '.join(map(str, own))} itself"
    return [stop("uplink", what, f"its packets go to {bridge}, which has none of these addresses", *commands)]


def loopback_steps(kernel: Kernel, packet: Packet, bridge: str) -> list[Step]:
    """Checks route_localnet for a packet from 127.0.0.1."""
    if not packet.saddr.is_loopback or packet.version != 4 or not bridge:
        return []
    if "1" in (kernel.sysctl(f"ipv4/conf/{name}/route_localnet") for name in ("all", bridge)):
        return [ok("route-localnet", f"route_localnet is on for {bridge}")]
    return [
        stop(
            "route-localnet",
            f"net/ipv4/conf/{bridge}/route_localnet is 0",
            "a packet from 127.0.0.1 does not leave the loopback device without it",
            f"sysctl -w net.ipv4.conf.{bridge.replace('.', '/')}.route_localnet=1",
        )
    ]


def ipsec_steps(kernel: Kernel, packet: Packet, came: Ends | None = None, leaves: Ends | None = None) -> list[Step]:
    """The IPsec policies for a forwarded packet with its present ends. Direction fwd is asked with the ends with which
    it `came` (nf_nat_decode_session), direction out again with those with which it `leaves` (nf_xfrm_me_harder)."""
    own = (packet.saddr, packet.daddr, packet.sport, packet.dport)
    asked = [(FWD, came or own), (OUT, own), *([(OUT, leaves)] if leaves else [])]
    return [
        step
        for direction, (saddr, daddr, sport, dport) in asked
        for step in ipsec_policy(kernel, direction, replace(packet, saddr=saddr, daddr=daddr, sport=sport, dport=dport))
    ]


def ipsec_policy(kernel: Kernel, direction: str, packet: Packet) -> list[Step]:
    """A step if a policy blocks the packet. A link with disable_policy asks none (ip-sysctl.rst)."""
    link, key = (packet.oif, "disable_xfrm") if direction == OUT else (packet.iif, "disable_policy")
    if packet.version == 4 and "1" in (kernel.sysctl(f"ipv4/conf/{name}/{key}") for name in ("all", link) if name):
        return []
    return blocked(kernel.ipsec, direction, packet)


def _forwarding(world: World, version: int, iif: str) -> list[Step]:
    kernel = world.kernel
    if version == 6:
        if kernel.sysctl("ipv6/conf/all/forwarding") == "0":
            what, command = "net/ipv6/conf/all/forwarding is 0", "sysctl -w net.ipv6.conf.all.forwarding=1"
            return [stop("forwarding", what, "the host forwards no IPv6", command)]
        return []
    if kernel.sysctl("ipv4/ip_forward") == "0":
        command = "sysctl -w net.ipv4.ip_forward=1"
        return [stop("forwarding", "net/ipv4/ip_forward is 0", "the host forwards no IPv4", command)]
    if kernel.sysctl(f"ipv4/conf/{iif}/forwarding") == "0":
        return [
            stop(
                "link-forwarding",
                f"net/ipv4/conf/{iif}/forwarding is 0",
                f"ip_forward is 1, but nothing that comes in by {iif} is forwarded",
                f"sysctl -w net.ipv4.conf.{iif.replace('.', '/')}.forwarding=1",
            )
        ]
    return []


def _refused_source(world: World, packet: Packet, iif: str, way: PacketRoute) -> list[Step]:
    """The steps if there is a route, but not for a packet from there: rp_filter, or an impossible source address."""
    kernel = world.kernel
    values = [kernel.sysctl(f"ipv4/conf/{name}/rp_filter") or "0" for name in ("all", iif)]
    back = kernel.route(packet.saddr)
    if packet.version == 4 and max(values) != "0" and iif not in back.links:
        reason = f"rp_filter of {iif} is {max(values)}, and the way back to {packet.saddr} is " + (
            f"by {back.link}" if back.link else "nowhere"
        )
        return [
            stop(
                "rp-filter",
                f"packets from {packet.saddr} by {iif} are dropped",
                reason,
                *_lead_back(world, packet.saddr, iif, back),
            )
        ]
    name = errno.errorcode.get(way.error, str(way.error))
    return [stop("source", f"the kernel takes no packet from {packet.saddr} by {iif}", f"route look-up: {name}")]


def _lead_back(world: World, address: Address, link: str, back: PacketRoute) -> list[str]:
    if not back.link:
        return [f"sysctl -w net.ipv4.conf.{link.replace('.', '/')}.rp_filter=0"]
    return _take_back(world, address, back, link)


def _elsewhere(world: World, packet: Packet, way: PacketRoute, wanted: str) -> Step:
    """The step for a packet that goes another way than it should, or nowhere."""
    kernel, daddr = world.kernel, packet.daddr
    to_container = wanted in world.bridges
    whom = _whom(world, packet, wanted)
    if way.error or way.kind not in ("unicast", "local"):
        reason = errno.errorcode.get(way.error, "") if way.error else way.kind
        six = "-6 " if daddr.version == 6 else ""
        prefix = next((one for one in kernel.addresses_of(wanted) if daddr in one.network), None)
        if prefix is not None:
            # The kernel makes this route with the address, and never again.
            source = f" proto kernel scope link src {prefix.address}" if daddr.version == 4 else ""
            back = f"ip {six}route add {prefix.network} dev {wanted}{source}"
            because = f"{reason}; {wanted} has the address {prefix}, and somebody deleted its route"
            return stop("route", f"no route to {daddr} by {wanted}", because, back)
        if to_container:
            return stop("route", f"no route to {daddr} by {wanted}", reason, "nftcni repair")
        return stop("route", f"no route to {daddr}", f"{reason}; add a default route by {wanted}")
    if way.kind == "local":
        owner = next((name for name, prefix in kernel.addresses if prefix.address == daddr), "lo")
        length = next((prefix.length for name, prefix in kernel.addresses if prefix.address == daddr), 32)
        return stop(
            "duplicate",
            f"the host itself has the container's address {daddr}, on {owner}",
            "packets to it end on the host",
            f"ip addr del {daddr}/{length} dev {owner}",
        )
    because = f"table {way.table}" if way.table not in MAIN else "a route of the main table"
    kind = "policy-route" if way.table not in MAIN else "route-taken"
    return stop(
        kind, f"{whom} leads by {way.link} instead of {wanted}", because, *_take_back(world, daddr, way, wanted)
    )


def _whom(world: World, packet: Packet, wanted: str) -> str:
    return f"the container's address {packet.daddr}" if wanted in world.bridges else f"the answer to {packet.daddr}"


def ended_step(kernel: Kernel, packet: Packet, iif: str, whom: str, enter: str = "") -> Step | None:
    """A step for the rule or route that ends the packet in this namespace, None without one. `enter` comes before
    commands."""
    rules = kernel.policy_rules(packet.version)
    six = "-6 " if packet.version == 6 else ""
    found = policy.ended_by(rules, kernel.routes, packet, iif)
    if found is not None:
        rule, route = found
        if route is None:
            command = f"{enter}ip {six}rule del priority {rule.priority} {rule.text}"
            return stop("policy-rule", f"{whom}: the rule `{rule.text}` ends it", f"priority {rule.priority}", command)
        dst, table, _link, kind, _via = route
        named = f"{kind} {dst}" if dst.length else f"{kind} default"
        where = "" if table == policy.MAIN else f" table {table}"
        return stop(
            "route", f"{whom}: the route {named}{where} ends it", "", f"{enter}ip {six}route del {named}{where}"
        )
    for table, priority in ((policy.LOCAL, 0), (policy.MAIN, 32766)):
        if not policy.looks_up(rules, table):
            name = policy.TABLES[table]
            command = f"{enter}ip {six}rule add lookup {name} priority {priority}"
            return stop("policy-rule", f"{whom}: no rule of `ip {six}rule` looks into table {name}", "", command)
    return None


def taken_by_rule(kernel: Kernel, address: Address, table: int, target: Prefix) -> str:
    """The command that leads the address by the main table again, before the rule that leads it elsewhere."""
    six = "-6 " if address.version == 6 else ""
    rules = [rule.priority for rule in kernel.policy_rules(address.version) if rule.table == table]
    priority = max(min(rules, default=32766) - 1, 1)
    return f"ip {six}rule add to {target} lookup main priority {priority}"


def _take_back(world: World, address: Address, way: PacketRoute, wanted: str) -> list[str]:
    """Commands that lead the address by `wanted` again."""
    kernel = world.kernel
    six = "-6 " if address.version == 6 else ""
    own = [prefix.network for prefix in kernel.addresses_of(wanted) if address in prefix.network]
    if way.table not in MAIN:
        return [taken_by_rule(kernel, address, way.table, own[0] if own else host_prefix(address))]
    near = own[0] if own else None
    taking = [
        dst
        for dst, table, link, _kind, _via in kernel.routes
        if table == RT_TABLE_MAIN
        and link == way.link
        and address.version == dst.version
        and (address in dst if near is None else dst.address in near and dst.length >= near.length)
        and dst.length > 0
    ]
    if taking:
        return [f"ip {six}route del {dst} dev {way.link}" for dst in taking]
    return [f"ip {six}route add {near or host_prefix(address)} dev {wanted}"]
