"""Errors that the kernel may give at every such call: each is a CNI error that says what failed, nothing is left."""

from __future__ import annotations

from collections import Counter

import pytest
from scenes import CONFIG, SITUATIONS, Scene
from strace import ERRORS, EVERY, Point, failed, points
from support.scratch import Answer, Host

TIMED_OUT = 137


def improper(answer: Answer, verb: str) -> str:
    """What is wrong with an answer, "" for nothing."""
    if answer.status == TIMED_OUT:
        return "it hung"
    if "Traceback" in answer.stdout + answer.stderr:
        return f"a traceback: {answer.stdout}{answer.stderr}"
    if not verb:
        return ""  # an operator's command says it in words
    if answer.status == 0:
        return "" if (answer.document is not None) == (verb == "ADD") else f"success with {answer.stdout!r}"
    if answer.document is None:
        return "" if "stdout" in answer.stderr else f"no error document, stderr {answer.stderr!r}"
    if answer.code == 999:
        return f"an unexpected error: {answer.words}"
    return ""


def errors_at(index: int, place: Point, every: bool) -> tuple[str, ...]:
    """One of those that the call gives in practice, in turn, or all that there may be."""
    usual = ERRORS[place.call]
    return tuple(dict.fromkeys((*EVERY, *usual))) if every else (usual[index % len(usual)],)


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_error_is_answered(host: Host, tally: Counter[str], every_error: bool, name: str) -> None:
    situation = SITUATIONS[name]
    scene = Scene(host, situation.keeper, situation.fresh)
    situation.prepare(scene)
    places = points(host, situation.run)
    host.delete(CONFIG)
    problems = []
    for index, place in enumerate(places):
        for error in errors_at(index, place, every_error):
            situation.prepare(scene)
            answer = failed(host, situation.run, place, error)
            tally["injected"] += 1
            wrong = improper(answer, situation.run.verb)
            if wrong:
                problems.append(f"{place} {error}: {wrong}")
                tally["improper"] += 1
            # A failed ADD has cleaned up after itself; everything else is finished by the runtime's DEL.
            failed_add = situation.run.verb == "ADD" and answer.status != 0 and answer.document is not None
            gone = failed_add and not situation.attached
            if not gone:
                host.delete(CONFIG)
            left = scene.leftovers(situation.flushed)
            if left:
                problems.append(f"{place} {error}, answered {answer.stdout.strip()[:300]}: left {left}")
                tally["leftovers"] += 1
                host.delete(CONFIG)
                scene.before = host.snapshot()
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:25])
