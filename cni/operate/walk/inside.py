"""The packet inside the container: link, address, routes, the container's own firewall, and who listens on what."""

from __future__ import annotations

from cni.model.attachment import Attachment
from cni.model.config import LEAST_MTU
from cni.operate.walk.ipsec import IN, OUT
from cni.operate.walk.judge import Judge, Verdict
from cni.operate.walk.kernel import Kernel
from cni.operate.walk.packet import Packet
from cni.operate.walk.program import waiting_steps
from cni.operate.walk.remedy import delete_rule, has_program, iptables_of
from cni.operate.walk.routing import MAIN, ended_step, ipsec_policy, taken_by_rule
from cni.operate.walk.sockets import processes_of
from cni.operate.walk.step import STOP, Step, note, ok, stop
from cni.operate.walk.world import SMALL, World
from nft.addresses import Address, format_mac, host_prefix


class Inside:
    """Follows packets inside one container."""

    def __init__(self, world: World, item: Attachment) -> None:
        self.world = world
        self.item = item

    @property
    def _again(self) -> str:
        return f"nftcni repair {self.item.network}/{self.item.container}"

    @property
    def _enter(self) -> str:
        return f"nsenter --net={self.item.sandbox}"

    def serve(self, packet: Packet) -> list[Step]:
        """The steps of a request from the container's interface to the socket, and of the answer back."""
        kernel = self.world.inside(self.item)
        if isinstance(kernel, str):
            return [self.ended(kernel)]
        steps = self.interface(kernel)
        if any(step.verdict == STOP for step in steps):
            return steps
        judge = Judge(kernel.rules, kernel)
        request = Packet(packet.proto, packet.saddr, packet.daddr, packet.dport, packet.sport).at(self.item.ifname, "")
        steps += self._judged(judge.pass_device("ingress", self.item.ifname, request), request)
        verdicts = judge.pass_hook("prerouting", request)
        steps += self._judged(verdicts, request)
        led = next((one for one in verdicts if one.word in ("dnat", "redirect")), None)
        if led is not None and not kernel.has(request.daddr):
            what = f"inside {self.item.ident} {led} leads it on to {request.daddr}:{request.dport}"
            return [*steps, note("inside-dnat", what, "the container is a router itself, or hosts containers")]
        steps += self._judged(judge.pass_hook("input", request), request)
        steps += self._ipsec(kernel, IN, request)
        steps += self.listening(kernel, request) if led is None else self._led(kernel, request, packet, led)
        answer = request.answer().at("", self.item.ifname)
        steps += self._way_back(kernel, answer)
        steps += self._ipsec(kernel, OUT, answer)
        for hook in ("output", "postrouting"):
            steps += self._judged(judge.pass_hook(hook, answer), answer)
        return steps

    def send(self, packet: Packet) -> list[Step]:
        """The steps of the container's own connection, up to its interface."""
        kernel = self.world.inside(self.item)
        if isinstance(kernel, str):
            return [self.ended(kernel)]
        steps = self.interface(kernel)
        if any(step.verdict == STOP for step in steps):
            return steps
        judge = Judge(kernel.rules, kernel)
        first = Packet(packet.proto, packet.saddr, packet.daddr, packet.dport).at("", self.item.ifname)
        steps += self._way_back(kernel, first)
        verdicts = [verdict for hook in ("output", "postrouting") for verdict in judge.pass_hook(hook, first)]
        back = first.answer().at(self.item.ifname, "")
        verdicts += [verdict for hook in ("prerouting", "input") for verdict in judge.pass_hook(hook, back)]
        # A container may refuse to go somewhere.
        return steps + [
            note("inside-firewall", f"inside {self.item.ident} {one} drops it") for one in verdicts if one.drops
        ]

    def _ipsec(self, kernel: Kernel, direction: str, packet: Packet) -> list[Step]:
        found = ipsec_policy(kernel, direction, packet)
        return [
            stop(step.kind, f"inside {self.item.ident} {step.what}", step.because, f"{self._enter} {step.remedy[0]}")
            for step in found
        ]

    def ended(self, why: str) -> Step:
        """The step for a container that has ended, or whose namespace cannot be found."""
        if self.item.kind.own_link and self.item.link in self.world.kernel.links:
            return note("unseen", f"{self.item.ident} lives, but {self.item.sandbox} does not lead to it any more", why)
        name = f"{self.item.network}/{self.item.container}"
        return stop(
            "ended",
            f"the container of {self.item.ident} has ended without a DEL: {self.item.sandbox} is gone",
            why,
            f"nftcni forget {name}",
        )

    def interface(self, kernel: Kernel) -> list[Step]:
        """The steps of the container's interface: present, up, with its addresses."""
        item = self.item
        link = kernel.links.get(item.ifname)
        where = f"{item.ifname} of {item.ident}"
        if link is None and item.sandbox.startswith("/proc/") and item.link not in self.world.kernel.links:
            return [self.ended("another process has its number by now")]
        if link is None:
            return [stop("inside-link", f"{where} is missing", "somebody deleted it or moved it away", self._again)]
        if not item.kind.own_link:
            return [ok("interface", f"{where} is there")]
        if not link.up:
            return [
                stop("inside-link", f"{where} is down", "", f"{self._enter} ip link set {item.ifname} up", self._again)
            ]
        master = kernel.bridge_of(item.ifname)
        if kernel.link_kind(master) == "bridge" and kernel.addresses_of(item.ifname):
            what = f"{where} is a port of {master}, and has its addresses itself"
            because = f"what comes in is {master}'s, which has none of them"
            return [stop("inside-link", what, because, f"{self._enter} ip link set {item.ifname} nomaster")]
        steps = []
        if item.mac and link.mac and link.mac != format_mac(item.mac):
            steps.append(
                note("mac", f"{where} has the MAC address {link.mac}; it was attached with {format_mac(item.mac)}")
            )
        held = kernel.addresses_of(item.ifname)
        lacking = [lease.address for lease in item.leases if lease.address.address not in [one.address for one in held]]
        if lacking:
            said = ", ".join(map(str, lacking))
            what, host_end = f"{where} lacks the address {said}", self.world.kernel.links.get(item.link)
            if link.mtu < LEAST_MTU[6] and any(one.version == 6 for one in lacking):
                mtu = host_end.mtu if host_end is not None and host_end.mtu >= LEAST_MTU[6] else 1500
                wider = f"{self._enter} ip link set {item.ifname} mtu {mtu}"
                return [*steps, stop("inside-address", what, f"its MTU is {link.mtu}, and {SMALL}", wider, self._again)]
            return [*steps, stop("inside-address", what, "", self._again)]
        return [*steps, ok("interface", f"{where} is up and has {', '.join(str(one) for one in item.addresses)}")]

    def _way_back(self, kernel: Kernel, packet: Packet) -> list[Step]:
        """The steps of the container's route to its peer."""
        item, client = self.item, packet.daddr
        if not item.kind.own_link:
            return []
        gateway = next(
            (lease.gateway for lease in item.leases if lease.gateway and lease.gateway.version == client.version), None
        )
        near = any(client in lease.address.network for lease in item.leases)
        way = kernel.route(client, packet.saddr if kernel.has(packet.saddr) else None, packet=packet)
        if not gateway and not near and way.error:
            return []  # it was given no way out
        if client.is_loopback or kernel.has(client):
            return []
        six = "-6 " if client.version == 6 else ""
        if way.error or way.kind != "unicast":
            ended = ended_step(kernel, packet, "", f"{item.ident} sends to {client}", f"{self._enter} ")
            if ended is not None:
                lost = [self._again] if any(command.endswith(" default") for command in ended.remedy) else []
                return [ended.replace(remedy=(*ended.remedy, *lost))]  # the container's own default route is gone, too
            if not near and not any(
                route.dst.length == 0 and route.dst.version == client.version for route in item.routes
            ):
                return [note("inside-route", f"{item.ident} was given no default route, so {client} gets no answer")]
            return [
                stop("inside-route", f"{item.ident} has no route to {client}", "its default route is gone", self._again)
            ]
        if way.link != item.ifname:
            if len([one for one in self.world.items if one.sandbox == item.sandbox]) > 1:
                return [note("inside-route", f"{item.ident} answers {client} by its other interface {way.link}")]
            right = f"{self._enter} ip {six}route replace {client} via {gateway} dev {item.ifname}"
            if way.table not in MAIN:
                right = f"{self._enter} {taken_by_rule(kernel, client, way.table, host_prefix(client))}"
            return [
                stop(
                    "inside-route", f"{item.ident} answers {client} by {way.link}", "the container's own routes", right
                )
            ]
        if gateway and not near and way.via != gateway:
            if way.via is not None and self._is_ours(way.via):
                return [ok("inside-route", f"{item.ident} reaches {client} via {way.via}")]
            right = f"{self._enter} ip {six}route replace default via {gateway} dev {item.ifname}"
            said = f"{item.ident} sends to {client} via {way.via or 'nobody'}, the gateway is {gateway}"
            return [stop("inside-route", said, "the container's own routes", right)]
        return [ok("inside-route", f"{item.ident} reaches {client}" + (f" via {way.via}" if way.via else ""))]

    def _is_ours(self, address: Address) -> bool:
        return self.world.kernel.has(address)

    def listening(self, kernel: Kernel, packet: Packet) -> list[Step]:
        """The steps that say who listens on the port inside."""
        item, where = self.item, f"{packet.daddr}:{packet.dport}/{packet.proto}"
        of_proto = [one for one in kernel.listeners if one.proto == packet.proto]
        if packet.proto == "udp":
            of_proto = [one for one in of_proto if one.port]
        takers = [one for one in of_proto if one.port == packet.dport and one.takes(packet.daddr)]
        if takers:
            if all(one.waiting for one in takers):
                return waiting_steps(kernel, item, takers)
            return [ok("listener", f"somebody in {item.container[:12]} listens on {takers[0]}")]
        same = [one for one in of_proto if one.port == packet.dport]
        if same:
            process = processes_of({same[0].inode}).get(same[0].inode)
            return [
                stop(
                    "listens-elsewhere",
                    f"{process or 'the program'} in {item.ident} listens on {same[0]} only, not on {packet.daddr}",
                    "a published port reaches the container at its own address",
                    f"# configure it to listen on {'0.0.0.0' if packet.version == 4 else '::'}:{packet.dport}",
                )
            ]
        others = sorted({one.port for one in of_proto if not one.address.is_loopback})[:8]
        hint = (
            f"it listens on {', '.join(map(str, others))}: publish that one"
            if others
            else "its program has ended, or has not started yet"
        )
        enter = f"# see for yourself: {self._enter} ss -ln{'u' if packet.proto == 'udp' else 't'}p"
        return [stop("nobody-listens", f"nobody in {item.ident} listens on {where}", hint, enter)]

    def _led(self, kernel: Kernel, request: Packet, packet: Packet, verdict: Verdict) -> list[Step]:
        """The steps for a rule inside that leads the packet elsewhere: a proxy beside the program (sidecar) takes its
        packets so, and may have ended."""
        steps = self.listening(kernel, request)
        if not any(step.verdict == STOP for step in steps) or verdict.at is None or verdict.rule is None:
            return steps
        where = f"{request.daddr}:{request.dport}/{request.proto}"
        what = f"inside {self.item.ident} {verdict} leads port {packet.dport} to {where}, where nobody listens"
        because = "start what should listen there (a proxy beside the program?), or remove the rule"
        remove = f"{self._enter} {delete_rule(verdict.at, verdict.rule.handle, verdict.rule.text)}"
        return [stop("inside-dnat", what, because, remove)]

    def _judged(self, verdicts: list[Verdict], packet: Packet) -> list[Step]:
        found = []
        for verdict in verdicts:
            if verdict.drops and verdict.certain:
                found.append(
                    stop(
                        "inside-firewall",
                        f"inside {self.item.ident} {verdict} drops it",
                        "the container's own firewall",
                        *self._allow(verdict, packet),
                    )
                )
            elif verdict.drops:
                found.append(note("doubt", f"inside {self.item.ident} {verdict} may drop it"))
        return found

    def _allow(self, verdict: Verdict, packet: Packet) -> list[str]:
        chain = verdict.chain
        answers = packet.direction == "reply"
        inward = chain.hook in ("input", "prerouting", "ingress")
        if chain.tool != "nft" or (chain.name.isupper() and chain.family in ("ip", "ip6") and has_program("iptables")):
            name = iptables_of(chain)
            matches = [f"-p {proto} --dport {port}" for proto, port in self._served]
            matches = ["-m conntrack --ctstate ESTABLISHED,RELATED"] if answers else matches
            return [f"{self._enter} {name} -t {chain.table} -I {chain.name} {match} -j ACCEPT" for match in matches]
        matches = [f"{proto} dport {port}" for proto, port in self._served]
        if answers and not inward:
            matches = [f"{proto} sport {port}" for proto, port in self._served]
            if chain.family in ("ip", "ip6", "inet") and chain.prio > -200:
                matches = ["ct state established,related"]
        where = f"insert rule {chain.family} {chain.table} {chain.name}"
        return [f"{self._enter} nft '{where} {match} accept'" for match in matches]

    @property
    def _served(self) -> list[tuple[str, int]]:
        """(protocol, port) of all that it publishes, so that one remedy serves every port."""
        return list(dict.fromkeys((one.protocol, one.container_port) for one in self.item.mappings))
