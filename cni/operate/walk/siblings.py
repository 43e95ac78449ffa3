"""Between containers of one bridge: what filters of frames drop, the IP chains that see frames by br_netfilter, and
what a published port needs to be asked from there."""

from __future__ import annotations

from cni.model.attachment import Attachment
from cni.operate.walk.drops import dropped
from cni.operate.walk.judge import OURS, Verdict
from cni.operate.walk.packet import REQUEST, Packet
from cni.operate.walk.step import Step, stop
from cni.operate.walk.world import Client, World
from nft.addresses import Address

FILTERED = {4: "iptables", 6: "ip6tables"}
STAYS = "br_netfilter is on: a translated packet stays on the bridge, which does not send it there"


def between(world: World, item: Attachment) -> list[Step]:
    """The steps for all containers on the item's bridge. Frames are checked only if these may reach each other."""
    steps = _of_frames(world, item)
    for version in (4, 6):
        address = item.address_of(version)
        if address is not None and _br_netfilter(world, version):
            packet = Packet("tcp", Address(version, address.number ^ 1), address, 80).at(item.bridge, item.bridge)
            verdicts = world.judge.pass_hook("forward", packet, skip=OURS)
            steps += _dropped(world, verdicts, packet, "br_netfilter also shows it packets that stay on a bridge")
    return steps


def turned_steps(world: World, item: Attachment, client: Client) -> list[Step]:
    """The steps for a client on the container's own link that asks a published port: the host would have to send the
    packet back by the link that it came from, and to see the answer."""
    if client.is_host or client.link != item.bridge:
        return []
    itself = client.address in item.addresses
    who = "the container itself" if itself else f"{client.address}, on the same bridge,"
    stays = _br_netfilter(world, client.address.version) and not item.is_ptp
    if not item.snat and (itself or not stays):
        why = "the container would answer the client directly, and the client knows nothing of that address"
        return [stop("snat", f"{who} cannot ask the port: the network's `snat` is false", why)]
    if not stays:
        return []
    if itself and not item.hairpin:
        return [stop("hairpin", f"{who} cannot ask the port: the network's `hairpinMode` is false", STAYS)]
    asker = next((one for one in world.items if one.bridge == item.bridge and client.address in one.addresses), None)
    if item.port_isolation and asker is not None and asker.port_isolation:
        return [stop("port-isolation", f"{who} cannot ask the port: the network's `portIsolation` is true", STAYS)]
    return []


def _br_netfilter(world: World, version: int) -> bool:
    return world.kernel.sysctl(f"bridge/bridge-nf-call-{FILTERED[version]}") == "1"


def _of_frames(world: World, item: Attachment) -> list[Step]:
    siblings = [one for one in world.items if one.bridge == item.bridge and one.kind.own_link]
    if item.is_ptp or item.port_isolation or item not in siblings or len(siblings) < 2:
        return []
    other = next(one for one in siblings if one is not item)
    steps = []
    for version in (4, 6):
        target, source = item.address_of(version), other.address_of(version)
        if target is None or source is None:
            continue
        search = Packet("arp", source, target, 0, kind=REQUEST) if version == 4 else None
        for packet in filter(None, (search, Packet("tcp", source, target, 80))):
            verdicts = world.judge.pass_hook("forward", packet.at(other.link, item.link), ("bridge",))
            steps += _dropped(world, verdicts, packet, "containers do not reach each other")
    return steps


def _dropped(world: World, verdicts: list[Verdict], packet: Packet, because: str) -> list[Step]:
    certain = [verdict for verdict in verdicts if verdict.drops and verdict.certain]
    return [dropped(world.kernel.rules, verdict, packet, world.traffic, because) for verdict in certain]
