"""SIGKILL at every system call of every verb that changes something, and then each way out of it."""

from __future__ import annotations

from collections import Counter

import pytest
from scenes import SITUATIONS, WAYS_OUT, Scene
from strace import killed, points
from support.scratch import Host


@pytest.mark.parametrize("name", SITUATIONS)
def test_killed_anywhere(host: Host, tally: Counter[str], name: str) -> None:
    situation = SITUATIONS[name]
    scene = Scene(host, situation.keeper, situation.fresh)
    situation.prepare(scene)
    places = points(host, situation.run)
    host.delete(situation.run.config or SITUATIONS["GC"].run.config)
    assert len(places) > 40, "strace saw too little to mean anything"
    problems = []
    tally["killed"] += len(places)
    for place in places:
        for way in WAYS_OUT:
            situation.prepare(scene)
            killed(host, situation.run, place)
            tally["ways"] += 1
            try:
                WAYS_OUT[way](scene)
            except AssertionError as error:
                problems.append(f"{place}, then {way}: {error}")
                tally["improper"] += 1
                host.cni("DEL", situation.run.config or SITUATIONS["GC"].run.config)
            left = scene.leftovers(situation.flushed)
            if left:
                problems.append(f"{place}, then {way}: left {left}")
                tally["leftovers"] += 1
                scene = _start_again(host, scene)
    assert host.sysctls() == scene.sysctls
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:20])


def _start_again(host: Host, scene: Scene) -> Scene:
    """What one kill left must not be found a second time."""
    scene.before = host.snapshot()
    return scene
