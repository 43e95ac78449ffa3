"""A packet that a published port is not for: the network's `conditionsV4` or `conditionsV6` does not match."""

from __future__ import annotations

from cni.model.attachment import Attachment
from cni.operate.walk.judge import OURS, Verdict
from cni.operate.walk.step import Step, note
from nft.ruleset import WHEN

KIND = "condition"


def is_missed(verdict: Verdict) -> bool:
    """What matches returns from the condition's chain, everything else is accepted there and meets no DNAT."""
    at = verdict.at
    return at is not None and (at.family, at.table) == OURS and at.name.startswith(WHEN)


def missed(verdict: Verdict, item: Attachment, version: int) -> Step:
    assert verdict.at is not None, "is_missed"
    return note(
        KIND,
        f"chain {verdict.at.name}: the packet goes on to this host's own port, the container's is not for it",
        f'{item.network} has "conditionsV{version}": {item.condition(version)}',
    )
