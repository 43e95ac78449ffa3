"""A chain that drops, as a step: which rule, whose it is, and which commands let our traffic through."""

from __future__ import annotations

from cni.operate.walk.judge import Verdict
from cni.operate.walk.packet import Packet
from cni.operate.walk.remedy import Traffic, let_through, owner_of
from cni.operate.walk.ruleset import Ruleset
from cni.operate.walk.step import Step, stop

WORDS = {"reject": "rejects", "fwd": "sends elsewhere"}


def dropped(rules: Ruleset, verdict: Verdict, packet: Packet, traffic: Traffic, because: str = "") -> Step:
    """The step for a verdict that drops the packet, with the remedy."""
    forwarded = verdict.chain.hook in ("forward", "postrouting")
    owner = owner_of(rules, verdict.chain)
    reason = because or "no other table can overrule it"
    return stop(
        "chain-drops",
        f"{verdict} {WORDS.get(verdict.word, 'drops')} {'what is forwarded' if forwarded else _of(packet)}",
        f"{reason}; these commands let only published and outgoing traffic through (for {owner})",
        *let_through(rules, verdict.chain, packet, traffic),
    )


def _of(packet: Packet) -> str:
    if packet.kind:
        return "ARP" if packet.proto == "arp" else "neighbour discovery"
    port = packet.original[3]
    return f"{packet.proto} packets to port {port}" if packet.direction == "original" else f"the answers of port {port}"
