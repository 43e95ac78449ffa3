"""The packets' ways that `explain` and `doctor` follow: to each published port, out of each container."""

from __future__ import annotations

from collections.abc import Mapping

from cni.model.attachment import Attachment
from cni.model.ports import PortMapping
from cni.operate.walk.follow import Follow
from cni.operate.walk.step import Step, note, ok
from cni.operate.walk.world import Client, World
from nft.addresses import Address, Prefix


class Way:
    """One packet's way: a title that says who asks whom, and its steps."""

    def __init__(self, title: str, steps: list[Step]) -> None:
        self.title = title
        self.steps = steps


def parse_port(words: str) -> tuple[int, str]:
    """(port, protocol or ""); port 0 if the words do not name a port."""
    number, _, protocol = words.partition("/")
    if number.isascii() and number.isdigit() and 0 < int(number) < 65536 and protocol in ("", "tcp", "udp", "sctp"):
        return int(number), protocol
    return 0, ""


def container_ways(world: World, item: Attachment, client: Client | None) -> list[Way]:
    """The ways to the container's published ports, and out of it for each IP version."""
    ways = [way for mapping in item.mappings for way in published_ways(world, item, mapping, client)]
    ways += [way for mapping in item.opened for way in opened_ways(world, item, mapping, client)]
    for version in sorted({address.version for address in item.addresses}):
        for one in [client] if client else world.clients(version)[:1]:
            steps = Follow(world, item).outbound(one)
            if steps:
                ways.append(Way(f"{item.ident} to {one.address}", steps))
    if not ways:
        said = ok("element", "it reaches its own network only: nothing is forwarded for it")
        ways.append(Way(item.ident, Follow(world, item).record() or [said]))
    return ways


def opened_ways(world: World, item: Attachment, mapping: PortMapping, client: Client | None) -> list[Way]:
    """The ways to a port at the container's own address."""
    assert mapping.host_ip is not None, "records hold concrete host addresses only"
    version = mapping.host_ip.version
    clients = [client] if client else world.clients(version)
    title = f"{item.address_of(version)}:{mapping.container_port}/{mapping.protocol} of {item.ident}"
    found = [(one, Follow(world, item).opened(mapping, one)) for one in clients if one.address.version == version]
    return [Way(f"{title}, asked by {one}", steps) for one, steps in found if steps]


def published_ways(world: World, item: Attachment, mapping: PortMapping, client: Client | None) -> list[Way]:
    """The ways from each kind of client: one for each uplink, and the host itself."""
    assert mapping.host_ip is not None, "records hold concrete host addresses only"
    clients = [client] if client else world.clients(mapping.host_ip.version)
    if not client and mapping.host_ip.version == 4:
        wide = mapping.host_ip.is_unspecified or mapping.host_ip.is_loopback
        clients = [*clients, Client("lo", Address(4, 0x7F000001) if wide else mapping.host_ip)]
    steps_of = {one: Follow(world, item).inbound(mapping, one) for one in clients}
    if not client:
        steps_of = {one: meant(world, one, steps, steps_of) for one, steps in steps_of.items()}
    inside = item.address_of(mapping.host_ip.version)
    title = f"{mapping} for {item.ident} ({inside}:{mapping.container_port})"
    return [Way(f"{title}, asked by {one}", steps) for one, steps in steps_of.items() if steps]


FILTERS = ("chain-drops", "inside-firewall")


def meant(world: World, client: Client, steps: list[Step], others: Mapping[Client, list[Step]]) -> list[Step]:
    """Turns a drop that somebody seems to want into a note: a filter keeps this client out but lets in those for whom
    the port is meant. The client may be a banned neighbour, a guest network or VPN beside the way out, or the host
    itself, kept out by a container's own firewall."""
    served = [one for one, found in others.items() if found and not any(step.is_finding for step in found)]
    if not any(_stands_for(world, one, client) for one in served if not one.is_host):
        return steps
    why = "others reach the port, so this seems intended; --from ADDRESS says what would let this one through"
    kinds = FILTERS[1:] if client.is_host else FILTERS
    return [note(step.kind, step.what, why) if step.is_finding and step.kind in kinds else step for step in steps]


def _stands_for(world: World, served: Client, client: Client) -> bool:
    out = world.kernel.default_links(served.address.version)
    if client.is_host:
        return served.link in (out or world.uplinks)
    if served.link == client.link:
        return any(served.address in prefix.network for prefix in _near(world, client))
    return served.link in out and client.link not in out


def _near(world: World, client: Client) -> list[Prefix]:
    return [prefix for prefix in world.kernel.addresses_of(client.link) if client.address in prefix.network]


def step_document(step: Step) -> dict[str, object]:
    """A step as JSON."""
    return {
        "verdict": step.verdict,
        "kind": step.kind,
        "what": step.what,
        "because": step.because,
        "remedy": list(step.remedy),
    }
