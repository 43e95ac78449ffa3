"""Errors that the kernel may give at every such call: each is a CNI error that says what failed, nothing is left."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from scenes import SITUATIONS, Scene
from strace import ERRORS, EVERY, FOR_A_KILL_ONLY, Point, failed
from support.scratch import PLUGIN, Answer, Host
from support.turn import in_turn

TIMED_OUT = 137


def improper(scene: Scene, answer: Answer, error: str) -> str:
    """What is wrong with an answer, "" for nothing."""
    run = scene.situation.run
    if answer.status == TIMED_OUT:
        return "it hung"
    if "Traceback" in answer.stdout + answer.stderr:
        return f"a traceback: {answer.stdout}{answer.stderr}"
    if not run.verb:
        return "" if answer.status == 0 or answer.stdout + answer.stderr else "not a word"
    if answer.status:
        return _improper_refusal(answer, error)
    if (answer.document is not None) != (run.verb == "ADD"):
        return f"success with {answer.stdout!r}"
    if run.verb == "ADD":  # in spite of the error: then it has to be true
        env = {"CNI_PATH": "/run/bin"}
        config = {**run.config, "prevResult": answer.document}
        check = scene.host.cni("CHECK", config, ifname=run.ifname, plugin=run.plugin, env=env)
        if check.status == 0 or error == "EROFS" and _names_sysctls_alone(check.words):
            return ""  # a read-only /proc/sys is no reason to refuse a container
        return f"success, but CHECK: {check.words}"
    return ""


def _names_sysctls_alone(words: str) -> bool:
    return all(re.search(r"net/ipv[46]/\S+ is not \d$", problem) for problem in words.split(" | "))


def _improper_refusal(answer: Answer, error: str) -> str:
    if answer.document is None:
        return "" if "stdout" in answer.stderr else f"no error document, stderr {answer.stderr!r}"
    if answer.code == 999:
        return f"an unexpected error: {answer.words}"
    if answer.code == 5 and error not in answer.words and "libnftables" not in answer.words:
        return f"it does not say {error}: {answer.words}"
    return ""


def errors_at(index: int, place: Point, every: bool) -> tuple[str, ...]:
    """One of those that the call gives in practice, in turn, or all that there may be."""
    usual = ERRORS[place.call]
    return tuple(dict.fromkeys((*EVERY, *usual))) if every else (usual[index % len(usual)],)


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_error_is_answered(host: Host, tally: Counter[str], every_error: bool, name: str) -> None:
    situation = SITUATIONS[name]
    scene = Scene(host, situation)
    places = enumerate(place for place in scene.points() if place.call not in FOR_A_KILL_ONLY)
    problems = []
    for index, place in in_turn(list(places), 4):
        for error in errors_at(index, place, every_error):
            scene.prepare()
            answer = failed(host, situation.run, place, error)
            tally["injected"] += 1
            wrong = improper(scene, answer, error)
            if wrong:
                problems.append(f"{place} {error}: {wrong}")
                tally["improper"] += 1
            # A failed ADD has cleaned up after itself and a DEL without error has left nothing; everything else is
            # finished by the runtime's DEL.
            failed_add = situation.run.verb == "ADD" and answer.status != 0 and answer.document is not None
            told_gone = situation.run.verb in ("DEL", "GC") and answer.status == 0 and not situation.second
            if situation.run.plugin != PLUGIN or not (failed_add and not situation.attached or told_gone):
                scene.clear()
            left = scene.leftovers()
            if left:
                problems.append(f"{place} {error}, answered {answer.stdout.strip()[:300]}: left {left}")
                tally["leftovers"] += 1
                scene.clear()
                scene.before = scene.snapshot()
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:25])
