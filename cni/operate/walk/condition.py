"""A packet that may not use a published port: it does not match the network's `conditionsV4` or `conditionsV6`."""

from __future__ import annotations

from cni.model.attachment import Attachment
from cni.operate.walk.judge import OURS, Verdict
from cni.operate.walk.step import Step, note
from nft.ruleset import WHEN

KIND = "condition"


def is_missed(verdict: Verdict) -> bool:
    """Whether a condition's chain accepted the packet, which keeps it from DNAT; a packet that matches returns."""
    at = verdict.at
    return at is not None and (at.family, at.table) == OURS and at.name.startswith(WHEN)


def missed(verdict: Verdict, item: Attachment, version: int) -> Step:
    """The step for a packet that does not match the port's condition."""
    assert verdict.at is not None, "is_missed"
    return note(
        KIND,
        f"chain {verdict.at.name}: the packet goes to this host's own port, as it may not use the container's",
        f'{item.network} has "conditionsV{version}": {item.condition(version)}',
    )
