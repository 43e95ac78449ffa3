"""Somebody else's NAT on the packet's way: a port that leads elsewhere, a sender that gets an unused address."""

from __future__ import annotations

from cni.model.attachment import Attachment
from cni.operate.walk.judge import Verdict
from cni.operate.walk.packet import Packet
from cni.operate.walk.remedy import delete_rule
from cni.operate.walk.step import Step, note, stop
from cni.operate.walk.world import World
from nft.addresses import Address, parse_address


def translated(world: World, item: Attachment, verdict: Verdict, packet: Packet, port: int) -> list[Step]:
    """The steps for a translation by somebody else. `port` is the container's, 0 for a packet to none."""
    assert verdict.at is not None and verdict.rule is not None, "only a rule translates"
    remove = delete_rule(verdict.at, verdict.rule.handle, verdict.rule.text)
    if verdict.word == "snat":
        return _sender(world, verdict, packet, remove)
    if verdict.word not in ("dnat", "redirect") or (packet.daddr in item.addresses and packet.dport in (port, 0)):
        return []
    led = f"{packet.daddr}, port {packet.dport}" if packet.daddr in item.addresses else f"{packet.daddr}"
    what = f"{verdict} takes the port {packet.original[3]}/{packet.proto} and leads it to {led}"
    because = "that chain comes before ours, or somebody publishes the same port there"
    return [stop("foreign-dnat", what, because, remove)]


def _sender(world: World, verdict: Verdict, packet: Packet, remove: str) -> list[Step]:
    """The steps for a new sender. An address that others route to this host need not be the host's. One of a link's own
    subnet must be, because neighbours search for it there."""
    address = _given(verdict)
    if address is None or address.version != packet.version or world.kernel.has(address):
        return []
    what = f"{verdict} gives packets from {packet.saddr} the sender {address}, which this host does not have"
    near = [prefix for prefix in world.kernel.addresses_of(packet.oif) if address in prefix.network]
    proxies = (world.kernel.sysctl(f"ipv4/conf/{name}/proxy_arp") for name in ("all", packet.oif))
    if not near or "1" in proxies:
        return [note("foreign-snat", what, "answers come back only if other machines route them here")]
    because = f"nobody answers for it on {packet.oif}, so that no answer comes back; without the rule ours masquerades"
    return [stop("foreign-snat", what, because, remove)]


def _given(verdict: Verdict) -> Address | None:
    """The new address, None if there may be several."""
    exprs = verdict.rule.exprs if verdict.rule is not None else []
    for body in (expr.get("snat") for expr in exprs if isinstance(expr, dict)):
        text = body.get("addr") if isinstance(body, dict) else None
        if isinstance(text, str):
            try:
                return parse_address(text)
            except ValueError:
                return None
    return None
