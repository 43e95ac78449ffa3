"""One packet followed through the host: to a published port, out of a container, and both answers back.

Every step asks the kernel or its rules; `inside` goes on in the container. A step that nothing can pass ends the walk.
After any other one it goes on, so that one look finds everything that is wrong.
"""

from __future__ import annotations

from cni.model.attachment import Attachment
from cni.model.ports import PortMapping
from cni.operate.walk.discovery import discovery_steps, outside_steps
from cni.operate.walk.drops import CONDITION, dropped, is_missed, missed
from cni.operate.walk.inside import Inside
from cni.operate.walk.ipsec import IN, OUT
from cni.operate.walk.judge import NAT, OURS, Verdict
from cni.operate.walk.packet import Packet
from cni.operate.walk.port import neighbour_steps, port_steps
from cni.operate.walk.remedy import delete_rule
from cni.operate.walk.routing import (
    ipsec_policy,
    ipsec_steps,
    loopback_steps,
    route_steps,
    unreached_steps,
    uplink_steps,
)
from cni.operate.walk.siblings import turned_steps
from cni.operate.walk.step import Step, note, ok, stop
from cni.operate.walk.target import address_steps
from cni.operate.walk.translation import translated
from cni.operate.walk.world import Client, World
from nft.addresses import Address
from nft.schema import TABLE

BLOCKING = ("link", "ended", "inside-link")  # later findings would only follow from these


class Follow:
    """Follows one attachment's packets."""

    def __init__(self, world: World, item: Attachment) -> None:
        self.world = world
        self.kernel = world.kernel
        self.item = item
        self.inside = Inside(world, item)
        self.port = 0  # the container's, for a packet to a published port

    # To a published port

    def inbound(self, mapping: PortMapping, client: Client) -> list[Step]:
        """The steps of a packet from the client to the published port, and of the answer."""
        version = client.address.version
        container, self.port = self.item.address_of(version), mapping.container_port
        target = self._target(mapping, client)
        if container is None or target is None:
            return []
        steps = self.record()
        if any(step.kind in BLOCKING for step in steps):
            return steps
        steps = steps or [
            ok("element", f"{mapping} is published for {self.item.ident}: table inet {TABLE} has its element")
        ]
        steps += address_steps(self.world, str(mapping), target)
        steps += unreached_steps(self.world, client) + turned_steps(self.world, self.item, client)
        packet = Packet(mapping.protocol, client.address, target, mapping.host_port)
        steps += self._arrive(packet, client) + self._tracked(packet)
        if any(step.kind in ("uplink", CONDITION) for step in steps):
            return steps
        if packet.natted and packet.daddr != container and not self.world.has_drift(self.item):
            return steps
        packet.daddr, packet.dport = container, mapping.container_port
        packet.natted, packet.status = True, packet.status | {"dnat"}
        return steps + self._served(packet, client)

    def opened(self, mapping: PortMapping, client: Client) -> list[Step]:
        """The steps of a packet from the client to a port at the container's own address, which the network's mode
        leaves untranslated, and of the answer."""
        container, self.port = self.item.address_of(client.address.version), mapping.container_port
        if container is None:
            return []
        steps = self.record()
        if any(step.kind in BLOCKING for step in steps):
            return steps
        said = (
            f"{container}:{self.port}/{mapping.protocol} is open, in mode routed, to clients with a route by this host"
        )
        steps = steps or [ok("element", said)]
        steps += unreached_steps(self.world, client)
        packet = Packet(mapping.protocol, client.address, container, self.port)
        steps += self._arrive(packet, client)
        if any(step.kind == "uplink" for step in steps):
            return steps
        return steps + self._served(packet, client)

    def _served(self, packet: Packet, client: Client) -> list[Step]:
        """The steps of a packet that has the container's address and port, and of the answer."""
        steps = self._to_container(packet, client)
        steps += self._discovery(packet.version) + self._outside(client)
        steps += self.inside.serve(packet)
        return steps + self._answer(packet, client)

    def record(self) -> list[Step]:
        """The differences from the record, [] for none."""
        inside = self.world.inside(self.item)
        if isinstance(inside, str) and self.world.is_ended(self.item):
            return [self.inside.ended(inside)]
        return [*self.world.table_steps, *self.world.drift(self.item)]

    def _target(self, mapping: PortMapping, client: Client) -> Address | None:
        """The address that the client asks, None if this client cannot ask the port."""
        assert mapping.host_ip is not None, "records hold concrete host addresses only"
        if mapping.host_ip.version != client.address.version:
            return None
        if mapping.host_ip.is_unspecified:
            return self.world.host_address(client)
        if client.is_host or not mapping.host_ip.is_loopback:
            return mapping.host_ip
        return None

    def _arrive(self, packet: Packet, client: Client) -> list[Step]:
        judge = self.world.judge
        if client.is_host:
            packet.at("", "lo")
            return self._judged(judge.pass_hook("output", packet, skip=OURS), packet, "output")
        link = self.kernel.links.get(client.link)
        if client.link and (link is None or not link.up):
            return [stop("uplink", f"{client.link} is down", "", f"ip link set {client.link} up")]
        if link is not None:
            steps = uplink_steps(self.world, link)
            if steps:
                return steps
        packet.at(client.link, "")
        steps = self._judged(judge.pass_device("ingress", client.link or "-", packet), packet, "ingress")
        return steps + self._judged(judge.pass_hook("prerouting", packet, skip=OURS), packet, "prerouting")

    def _to_container(self, packet: Packet, client: Client) -> list[Step]:
        judge, bridge = self.world.judge, self.item.bridge
        steps = route_steps(self.world, packet, "" if client.is_host else client.link, bridge)
        if client.is_host:
            steps += loopback_steps(self.kernel, packet, bridge)
            packet.at("", bridge)
            steps += ipsec_policy(self.kernel, OUT, packet)
        else:
            packet.at(client.link, bridge)
            steps += ipsec_steps(self.kernel, packet, came=packet.original)
            steps += self._judged(judge.pass_hook("forward", packet, skip=OURS), packet, "forward")
        probe_saddr = packet.saddr
        steps += self._judged(judge.pass_hook("postrouting", packet, skip=OURS), packet, "postrouting")
        packet.saddr = probe_saddr
        if bridge:
            steps += self._judged(judge.pass_device("egress", bridge, packet), packet, "egress")
        return steps + self._port(packet)

    def _port(self, packet: Packet) -> list[Step]:
        """The steps at the bridge, and at its port that leads to the container."""
        item = self.item
        if not item.kind.own_link:
            return []
        searched = neighbour_steps(self.kernel, item, packet.daddr, self.world.inside(item))
        if item.is_ptp:
            return [ok("port", f"{item.link} leads to the container, and is up"), *searched]
        steps = port_steps(self.kernel, item, self.kernel.links[item.link])
        steps += self._bridge_rules(("output", "postrouting"), packet.at("", item.link))
        steps += self._judged(self.world.judge.pass_device("egress", item.link, packet), packet, "egress")
        return steps + searched

    def _discovery(self, version: int) -> list[Step]:
        """The steps of neighbour discovery. They are the same for every published port, so they are made once."""
        key = (self.item.ident, version)
        if key not in self.world.discovered:
            self.world.discovered[key] = discovery_steps(self.world, self.item, version)
        return self.world.discovered[key]

    def _outside(self, client: Client) -> list[Step]:
        key = (client.link, client.address)
        if client.is_host or not client.link or client.link in self.world.bridges:
            return []
        if key not in self.world.discovered:
            self.world.discovered[key] = outside_steps(self.world, client.link, client.address)
        return self.world.discovered[key]

    def _bridge_rules(self, hooks: tuple[str, ...], packet: Packet) -> list[Step]:
        steps = []
        for hook in hooks:
            verdicts = self.world.judge.pass_hook(hook, packet, ("bridge",))
            steps += self._judged(verdicts, packet, hook)
        return steps

    def _answer(self, request: Packet, client: Client) -> list[Step]:
        """The answer's steps from the container back to the client. Its addresses are turned back after postrouting."""
        judge, item = self.world.judge, self.item
        packet = request.answer()
        steps = self._from_port(packet)
        packet.at(item.bridge, "")
        steps += self._judged(judge.pass_hook("prerouting", packet, skip=OURS), packet, "prerouting")
        steps += self._tracked(packet)
        if client.is_host:
            steps += ipsec_policy(self.kernel, IN, packet)
            return steps + self._judged(judge.pass_hook("input", packet, skip=OURS), packet, "input")
        steps += route_steps(self.world, packet, item.bridge, client.link)
        packet.at(item.bridge, client.link)
        asker, asked, sport, dport = packet.original
        steps += ipsec_steps(self.kernel, packet, leaves=(asked, asker, dport, sport))
        for hook in ("forward", "postrouting"):
            steps += self._judged(judge.pass_hook(hook, packet, skip=OURS), packet, hook)
        return steps + self._judged(judge.pass_device("egress", client.link or "-", packet), packet, "egress")

    def _from_port(self, packet: Packet) -> list[Step]:
        item = self.item
        if not item.kind.own_link:
            return []
        packet.at(item.link, "")
        steps = self._judged(self.world.judge.pass_device("ingress", item.link, packet), packet, "ingress")
        if item.is_ptp:
            return steps
        steps += self._bridge_rules(("prerouting", "input"), packet)
        packet.at(item.bridge, "")
        return steps + self._judged(self.world.judge.pass_device("ingress", item.bridge, packet), packet, "ingress")

    # Out of a container

    def outbound(self, client: Client) -> list[Step]:
        """A connection from the container to the machine that `client` names."""
        judge, item = self.world.judge, self.item
        source = item.address_of(client.address.version)
        if source is None or not item.is_routed(client.address.version) or client.is_host:
            return []
        packet = Packet("tcp", source, client.address, 443)
        steps = self.record()
        if any(step.kind in BLOCKING for step in steps):
            return steps
        steps += self.inside.send(packet)
        if any(step.kind in BLOCKING for step in steps):
            return steps
        if item.uplink:
            return [
                *steps,
                ok("uplink", f"the router of {item.bridge} is another machine: the host does not forward the packet"),
            ]
        steps += self._discovery(packet.version) + self._outside(client)
        steps += self._from_port(packet)
        packet.at(item.bridge, "")
        steps += self._judged(judge.pass_hook("prerouting", packet, skip=OURS), packet, "prerouting")
        steps += self._tracked(packet) if item.is_masqueraded(packet.version) else []
        steps += route_steps(self.world, packet, item.bridge, client.link)
        packet.at(item.bridge, client.link)
        outside = self.world.host_address(client) if item.is_masqueraded(packet.version) else None
        leaves = (outside or source, packet.daddr, packet.sport, packet.dport)
        steps += ipsec_steps(self.kernel, packet, leaves=leaves)
        for hook in ("forward", "postrouting"):
            steps += self._judged(judge.pass_hook(hook, packet, skip=OURS), packet, hook)
        back = packet.answer().at(client.link, "")
        back.daddr, back.dport = self.world.host_address(client) or source, 40000
        steps += self._judged(judge.pass_device("ingress", client.link or "-", back), back, "ingress")
        steps += self._judged(judge.pass_hook("prerouting", back, skip=OURS), back, "prerouting")
        steps += self._tracked(back) if item.is_masqueraded(packet.version) else []
        back.daddr, back.dport = source, packet.sport
        back.at(client.link, item.bridge)
        steps += ipsec_steps(self.kernel, back, came=(leaves[1], leaves[0], leaves[3], leaves[2]))
        return steps + self._judged(judge.pass_hook("forward", back, skip=OURS), back, "forward")

    # Verdicts as steps

    def _judged(self, verdicts: list[Verdict], packet: Packet, hook: str) -> list[Step]:
        steps = []
        for verdict in verdicts:
            if is_missed(verdict):
                steps.append(missed(verdict, self.item, packet.version))
            elif verdict.word in NAT and (verdict.chain.family, verdict.chain.table) != OURS:
                steps += translated(self.world, self.item, verdict, packet, self.port)
            elif verdict.drops and not verdict.certain:
                steps.append(
                    note(
                        "doubt", f"{verdict} may drop it", "an earlier rule has a condition that only the kernel knows"
                    )
                )
            elif verdict.drops:
                steps.append(dropped(self.kernel.rules, verdict, packet, self.world.traffic))
        others = [verdict.chain for verdict in verdicts if not verdict.drops]
        if others and not any(verdict.drops and verdict.certain for verdict in verdicts):
            names = ", ".join(f"{chain.family} {chain.table} {chain.name}" for chain in others)
            steps.append(ok("chains", f"{hook}: accepted by {names}"))
        return steps

    def _tracked(self, packet: Packet) -> list[Step]:
        verdict: Verdict | None = packet.untracked
        if verdict is None or verdict.at is None or verdict.rule is None:
            return []
        return [
            stop(
                "untracked",
                f"{verdict} keeps packets out of the connection tracker",
                "untracked packets are not translated: neither a published port nor the masquerade works",
                delete_rule(verdict.at, verdict.rule.handle, verdict.rule.text),
            )
        ]
