"""A packet that a chain keeps from the container, as a step: a drop, with whose rule it is and which commands let our
traffic through, or a network's condition that the packet does not match.
"""

from __future__ import annotations

from cni.model.attachment import Attachment
from cni.operate.walk.judge import OURS, Verdict
from cni.operate.walk.packet import Packet
from cni.operate.walk.remedy import Traffic, let_through, owner_of
from cni.operate.walk.ruleset import Ruleset
from cni.operate.walk.step import Step, note, stop
from nft.schema import WHEN

CONDITION = "condition"  # the kind of its step
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


def is_missed(verdict: Verdict) -> bool:
    """Whether a condition's chain accepted the packet, which keeps it from DNAT; a packet that matches `conditionsV4`
    or `conditionsV6` returns."""
    at = verdict.at
    return at is not None and (at.family, at.table) == OURS and at.name.startswith(WHEN)


def missed(verdict: Verdict, item: Attachment, version: int) -> Step:
    """The step for a packet that does not match the port's condition."""
    assert verdict.at is not None, "is_missed"
    return note(
        CONDITION,
        f"chain {verdict.at.name}: the packet goes to this host's own port, as it may not use the container's",
        f'{item.network} has "conditionsV{version}": {item.condition(version)}',
    )


def _of(packet: Packet) -> str:
    if packet.kind:
        return "ARP" if packet.proto == "arp" else "neighbour discovery"
    port = packet.original[3]
    return f"{packet.proto} packets to port {port}" if packet.direction == "original" else f"the answers of port {port}"
