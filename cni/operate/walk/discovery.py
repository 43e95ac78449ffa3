"""How host and container find each other's MAC address: ARP and neighbour discovery, through every chain on the way.

Where these do not get through, nothing else does either, once old entries have expired.
"""

from __future__ import annotations

from dataclasses import replace

from cni.model.attachment import Attachment
from cni.operate.walk.drops import dropped
from cni.operate.walk.judge import Judge, Verdict
from cni.operate.walk.kernel import Kernel
from cni.operate.walk.packet import ADVERT, REPLY, REQUEST, SOLICIT, Packet
from cni.operate.walk.remedy import searching
from cni.operate.walk.step import Step, stop
from cni.operate.walk.world import World, is_link_local
from nft.addresses import Address
from nft.schema import TABLE

NEVER = 8  # arp_ignore: the host answers for none of its addresses (ip-sysctl.rst)
ETHERNETS = ("", "veth", "bridge", "vlan", "bond")  # kinds of links with neighbour discovery
LASTING = ("PERMANENT", "REACHABLE", "STALE")


def discovery_steps(world: World, item: Attachment, version: int) -> list[Step]:
    """The steps on the link between host and container; [] for somebody else's link."""
    address, bridge = item.address_of(version), world.kernel.links.get(item.bridge)
    if not item.kind.own_link or address is None or bridge is None or not bridge.up:
        return []
    steps = []
    if version == 4:
        steps += _answers(world.kernel, item.bridge, f"the host on {item.bridge}", "")
    if version == 6 and item.gateways and _gateway(world, item, version) is None:
        key = f"net.ipv6.conf.{item.bridge.replace('.', '/')}.addr_gen_mode"
        because = "without one the host searches for no neighbour there; somebody deleted it"
        again = (f"sysctl -w {key}=1", f"sysctl -w {key}=0")  # a change of it makes one (addrconf_init_auto_addrs)
        steps.append(stop("link-local", f"{item.bridge} has no link-local IPv6 address", because, *again))
    for packet in _from_host(world, item, address):
        steps += _on_host(world, item, packet, ("output",))
    for packet in _from_container(world, item, address):
        steps += _on_host(world, item, packet, ("prerouting", "input"))
    inside = world.inside(item)
    if isinstance(inside, Kernel) and item.ifname in inside.links:
        steps += _inside(world, item, address, inside)
    return list(dict.fromkeys(steps))


def outside_steps(world: World, link: str, client: Address) -> list[Step]:
    """The steps between the host and a neighbour on another link."""
    own = [one.address for one in world.kernel.addresses_of(link) if client in one.network]
    known = world.kernel.links.get(link)
    if not own or known is None or known.kind not in ETHERNETS or (link, client) in _settled(world.kernel):
        return []
    steps = _answers(world.kernel, link, f"the host on {link}", "") if client.version == 4 else []
    for packet in _searching(own[0], client):
        steps += _on_link(world, _at(packet, link, True), ("output",))
    for packet in _searching(client, own[0]):
        steps += _on_link(world, _at(packet, link, False), ("prerouting", "input"))
    return list(dict.fromkeys(steps))


def _settled(kernel: Kernel) -> set[tuple[str, Address]]:
    return {key for key, (state, _mac) in kernel.neighbours.items() if state == "PERMANENT"}


def _answers(kernel: Kernel, link: str, who: str, enter: str) -> list[Step]:
    steps = []
    if not kernel.links[link].arp:
        steps.append(stop("arp", f"{who} does not speak ARP: it is off", "", f"{enter}ip link set {link} arp on"))
    for key in ("all", link):
        if kernel.sysctl(f"ipv4/conf/{key}/arp_ignore") == str(NEVER):
            command = f"{enter}sysctl -w net.ipv4.conf.{key.replace('.', '/')}.arp_ignore=0"
            what = f"{who} answers no ARP: net/ipv4/conf/{key}/arp_ignore is {NEVER}"
            steps.append(stop("arp", what, "nobody learns its MAC address", command))
    return steps


def _gateway(world: World, item: Attachment, version: int) -> Address | None:
    """The address from which the host searches there, None without one."""
    own = [one.address for one in world.kernel.addresses_of(item.bridge) if one.version == version]
    near = [one for one in own if version == 4 or is_link_local(one)]
    return next(iter(near), None)


def _from_host(world: World, item: Attachment, address: Address) -> list[Packet]:
    return _searching(_gateway(world, item, address.version), address)


def _from_container(world: World, item: Attachment, address: Address) -> list[Packet]:
    return _searching(address, _gateway(world, item, address.version))


def _searching(own: Address | None, other: Address | None) -> list[Packet]:
    """A request for the other's MAC address, and an answer to such a request."""
    if own is None or other is None:
        return []
    if own.version == 4:
        return [Packet("arp", own, other, 0, kind=kind, tracked=False) for kind in (REQUEST, REPLY)]
    group = Address(6, 0xFF02 << 112 | 0x1FF << 24 | other.number & 0xFFFFFF)  # RFC 4291, 2.7.1
    return [
        Packet("icmpv6", own, group, 0, kind=SOLICIT, tracked=False),
        Packet("icmpv6", own, other, 0, kind=ADVERT, tracked=False),
    ]


def _on_host(world: World, item: Attachment, packet: Packet, hooks: tuple[str, ...]) -> list[Step]:
    """The drops on the bridge, as the host's own stack sees the packet, and on the port, as the bridge sees it."""
    judge, outward = world.judge, hooks == ("output",)
    of_port = _at(packet, item.link, outward)
    steps = _on_link(world, _at(packet, item.bridge, outward), hooks)
    found = []
    for hook in () if item.is_ptp else ("output", "postrouting") if outward else ("prerouting", "input"):
        found += [(verdict, of_port) for verdict in judge.pass_hook(hook, of_port, ("bridge",))]
    if not item.is_ptp:
        device = judge.pass_device("egress" if outward else "ingress", item.link, of_port)
        found += [(verdict, of_port) for verdict in device]
    return steps + _dropped(world, found)


def _on_link(world: World, packet: Packet, hooks: tuple[str, ...]) -> list[Step]:
    families = ("arp",) if packet.proto == "arp" else ("inet", "ip6")
    verdicts = [verdict for hook in hooks for verdict in world.judge.pass_hook(hook, packet, families)]
    verdicts += world.judge.pass_device("egress" if packet.oif else "ingress", packet.iif or packet.oif, packet)
    return _dropped(world, [(verdict, packet) for verdict in verdicts])


def _dropped(world: World, found: list[tuple[Verdict, Packet]]) -> list[Step]:
    because = "without it nobody finds the other's MAC address"
    return [
        dropped(world.kernel.rules, verdict, one, world.traffic, because)
        for verdict, one in found
        if verdict.drops and verdict.certain and verdict.chain.table != TABLE
    ]


def _at(packet: Packet, link: str, outward: bool) -> Packet:
    return replace(packet, iif="" if outward else link, oif=link if outward else "")


def _inside(world: World, item: Attachment, address: Address, kernel: Kernel) -> list[Step]:
    enter, where = f"nsenter --net={item.sandbox} ", f"{item.ifname} of {item.ident}"
    steps = _answers(kernel, item.ifname, where, enter) if address.version == 4 else []
    macs = {link.mac for link in world.kernel.links.values() if link.mac}
    for lease in item.leases if item.gateways else ():
        state, mac = kernel.neighbours.get((item.ifname, lease.gateway), ("", "")) if lease.gateway else ("", "")
        if mac and mac not in macs and state in LASTING and lease.address.version == address.version:
            steps.append(
                stop(
                    "neighbour",
                    f"{item.ident} takes {mac} for its gateway {lease.gateway}, which no link of the host has",
                    "a permanent entry" if state == "PERMANENT" else "another machine answers for this address",
                    f"{enter}ip neigh del {lease.gateway} dev {item.ifname}",
                )
            )
    judge = Judge(kernel.rules, kernel)
    for packet, hooks in (
        *((one, ("prerouting", "input")) for one in _from_host(world, item, address)),
        *((one, ("output",)) for one in _from_container(world, item, address)),
    ):
        outward = hooks == ("output",)
        packet = _at(packet, item.ifname, outward)
        families = ("arp",) if packet.proto == "arp" else ("inet", "ip6")
        verdicts = [verdict for hook in hooks for verdict in judge.pass_hook(hook, packet, families)]
        verdicts += judge.pass_device("egress" if outward else "ingress", item.ifname, packet)
        steps += [
            _inside_drop(item, verdict, packet, enter) for verdict in verdicts if verdict.drops and verdict.certain
        ]
    return steps


def _inside_drop(item: Attachment, verdict: Verdict, packet: Packet, enter: str) -> Step:
    what = "ARP" if packet.proto == "arp" else "neighbour discovery"
    commands = [f"{enter}{one}" for one in searching(verdict.chain, packet)]
    return stop("inside-firewall", f"inside {item.ident} {verdict} drops {what}", "nobody finds it without", *commands)
