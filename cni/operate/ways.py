"""The ways of packets that `explain` and `doctor` follow: to each published port, out of each container."""

from __future__ import annotations

from cni.model.attachment import Attachment
from cni.model.ports import PortMapping
from cni.operate.walk.follow import Follow
from cni.operate.walk.step import Step
from cni.operate.walk.world import Client, World
from nft.addresses import Address


class Way:
    """One packet's way: who asks whom, and its steps."""

    def __init__(self, title: str, steps: list[Step]) -> None:
        self.title = title
        self.steps = steps


def parse_port(words: str) -> tuple[int, str]:
    """(port, protocol or ""); port 0 for what is no port."""
    number, _, protocol = words.partition("/")
    if number.isascii() and number.isdigit() and 0 < int(number) < 65536 and protocol in ("", "tcp", "udp", "sctp"):
        return int(number), protocol
    return 0, ""


def container_ways(world: World, item: Attachment, client: Client | None) -> list[Way]:
    ways = [way for mapping in item.mappings for way in published_ways(world, item, mapping, client)]
    for version in sorted({address.version for address in item.addresses}):
        for one in [client] if client else world.clients(version)[:1]:
            steps = Follow(world, item).outbound(one)
            if steps:
                ways.append(Way(f"{item.ident} to {one.address}", steps))
    return ways


def published_ways(world: World, item: Attachment, mapping: PortMapping, client: Client | None) -> list[Way]:
    """From each kind of client: one for each uplink, and the host itself."""
    assert mapping.host_ip is not None, "records hold concrete host addresses only"
    clients = [client] if client else world.clients(mapping.host_ip.version)
    if not client and mapping.host_ip.version == 4:
        wide = mapping.host_ip.is_unspecified or mapping.host_ip.is_loopback
        clients = [*clients, Client("lo", Address(4, 0x7F000001) if wide else mapping.host_ip)]
    ways = []
    for one in clients:
        steps = Follow(world, item).inbound(mapping, one)
        if steps:
            inside = item.address_of(mapping.host_ip.version)
            ways.append(Way(f"{mapping} for {item.ident} ({inside}:{mapping.container_port}), asked by {one}", steps))
    return ways


def step_document(step: Step) -> dict[str, object]:
    return {
        "verdict": step.verdict,
        "kind": step.kind,
        "what": step.what,
        "because": step.because,
        "remedy": list(step.remedy),
    }
