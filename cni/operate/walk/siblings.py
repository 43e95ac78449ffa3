"""Between containers of one bridge: what filters of frames drop, and the IP chains that see frames by br_netfilter."""

from __future__ import annotations

from cni.model.attachment import Attachment
from cni.operate.walk.drops import dropped
from cni.operate.walk.judge import OURS, Verdict
from cni.operate.walk.packet import REQUEST, Packet
from cni.operate.walk.step import Step
from cni.operate.walk.world import World
from nft.addresses import Address


def between(world: World, item: Attachment) -> list[Step]:
    """The steps for all containers on the item's bridge. Frames are checked only if these may reach each other."""
    steps = _of_frames(world, item)
    for version, key in ((4, "iptables"), (6, "ip6tables")):
        address = item.address_of(version)
        if address is not None and world.kernel.sysctl(f"bridge/bridge-nf-call-{key}") == "1":
            packet = Packet("tcp", Address(version, address.number ^ 1), address, 80).at(item.bridge, item.bridge)
            verdicts = world.judge.pass_hook("forward", packet, skip=OURS)
            steps += _dropped(world, verdicts, packet, "br_netfilter also shows it packets that stay on a bridge")
    return steps


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
