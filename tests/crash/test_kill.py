"""SIGKILL at every system call of every verb that changes something, and then each way out of it."""

from __future__ import annotations

from collections import Counter

import pytest
from scenes import SITUATIONS, WAYS_OUT, Scene
from strace import ONLY_WAIT, killed
from support.scratch import Host
from support.turn import in_turn


@pytest.mark.parametrize("name", SITUATIONS)
def test_killed_anywhere(host: Host, tally: Counter[str], name: str) -> None:
    situation = SITUATIONS[name]
    scene = Scene(host, situation)
    places = scene.points()
    assert len(places) > 40, "strace saw too little to mean anything"
    places = in_turn(places, 4)
    certain = [place for place in places if place.call not in ONLY_WAIT]  # how often it waits is the machine's affair
    problems = []
    missed = 0
    for number, place in enumerate(places):
        ways = list(WAYS_OUT)
        if not situation.every_way or place.call in ONLY_WAIT:
            ways = [ways[number % len(ways)]]
        hits = 0
        for way in ways:
            scene.prepare()
            hits += killed(host, situation.run, place)
            tally["ways"] += 1
            try:
                WAYS_OUT[way](scene)
            except AssertionError as error:
                problems.append(f"{place}, then {way}: {error}")
                tally["improper"] += 1
                scene.clear()
            left = scene.leftovers()
            if left:
                problems.append(f"{place}, then {way}: left {left}")
                tally["leftovers"] += 1
                scene.before = scene.snapshot()  # what one kill left must not be found a second time
        tally["killed"] += hits > 0
        missed += hits == 0 and place in certain
    assert host.sysctls() == scene.sysctls
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:20])
    assert missed < len(certain) / 5, f"{missed} of {len(certain)} kills never came"
