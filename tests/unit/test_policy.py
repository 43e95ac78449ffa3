"""Rules of policy routing: whether every packet comes to a table, by a rule's conditions."""

from __future__ import annotations

from typing import Any

import pytest

from cni.operate.walk.policy import BLACKHOLE, MAIN, TO_TABLE, Rule, looks_up
from nft.addresses import parse_prefix


def rule(**changed: Any) -> Rule:
    return Rule(32766, **{"action": TO_TABLE, "table": MAIN, "target": 0, "text": "lookup main", **changed})


CONDITIONS: dict[str, Any] = {
    "source": parse_prefix("10.0.0.0/8"),
    "destination": parse_prefix("10.0.0.0/8"),
    "iif": "eth0",
    "mark": (1, 0xFF),
    "proto": 6,
    "sports": (1, 2),
    "dports": (80, 80),
    "suppress": 0,
    "inverted": True,
    "never": True,
    "action": BLACKHOLE,
    "table": 100,
}


def test_the_kernels_own_rule() -> None:
    assert looks_up([rule()], MAIN) and not looks_up([], MAIN)


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_rule_with_a_condition_is_not_for_every_packet(name: str) -> None:
    only = rule(**{name: CONDITIONS[name]})
    assert not looks_up([only], MAIN) and looks_up([only, rule()], MAIN)
