"""The drop-in `tuning` broken at every system call: the interface, somebody else's (as host-device hands it over), has
what it had before as soon as a DEL has succeeded.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from strace import ERRORS, FOR_A_KILL_ONLY, Point, Run, failed, killed, points
from support.scratch import PLUGIN, Host, Json

TUNING = "/run/bin/tuning"
PREVIOUS = {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/c1"}], "ips": []}
CONFIG = {
    **{"cniVersion": "1.0.0", "name": "net0", "type": "tuning", "mtu": 1300, "mac": "02:00:00:00:00:99"},
    **{"promisc": True, "txQLen": 77, "prevResult": PREVIOUS},
}


class Lent:
    """A host whose container has an interface that is not ours."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.run("mkdir", "-p", "/run/bin")
        host.file(TUNING).symlink_to(PLUGIN)
        self.container = host.container("c1")
        words = ("address", "02:00:00:00:00:11", "type", "veth", "peer", "name", "far")
        self.container.run("ip", "link", "add", "eth0", *words)
        self.call("ADD")  # bytecode is compiled, folders are made
        self.call("DEL")
        self.before = self.settings()

    def settings(self) -> Json:
        link = self.container.link("eth0")
        return {key: link[key] for key in ("mtu", "address", "txqlen", "promiscuity")} | {
            "promisc": "PROMISC" in link["flags"]
        }

    def kept(self) -> list[str]:
        return [path.name for path in self.host.file("/run/nftcni").glob("*/tuning/*")]

    def call(self, verb: str) -> Any:
        answer = self.host.cni(verb, CONFIG, plugin=TUNING)
        assert answer.status == 0, f"{verb}: {answer.stdout}"
        return answer.document

    def prepare(self, verb: str) -> None:
        if verb == "DEL":
            self.call("ADD")
            assert self.settings() != self.before

    def places(self, verb: str) -> list[Point]:
        self.prepare(verb)
        found = points(self.host, Run(verb, CONFIG, plugin=TUNING))
        self.call("DEL")
        assert len(found) > 10, found
        return found

    def reset(self) -> None:
        """What one point has left must not be found at the next."""
        self.call("DEL")
        values = ("mtu", str(self.before["mtu"]), "address", self.before["address"], "promisc", "off")
        self.container.run("ip", "link", "set", "eth0", *values, "txqueuelen", str(self.before["txqlen"]))

    def is_given_back(self) -> bool:
        return self.settings() == self.before and self.kept() == []


@pytest.fixture
def lent(host: Host) -> Lent:
    return Lent(host)


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_killed_anywhere(lent: Lent, tally: Counter[str], verb: str) -> None:
    problems = []
    for place in lent.places(verb):
        lent.prepare(verb)
        tally["killed"] += killed(lent.host, Run(verb, CONFIG, plugin=TUNING), place)
        tally["ways"] += 1
        lent.call("DEL")
        if not lent.is_given_back():
            problems.append(f"{place}: {lent.settings()} {lent.kept()}")
            tally["leftovers"] += 1
            lent.reset()
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_every_error_is_answered(lent: Lent, tally: Counter[str], verb: str) -> None:
    """A DEL that succeeds in spite of it has given the interface back; after one that fails the next one does."""
    problems = []
    places = [place for place in lent.places(verb) if place.call not in FOR_A_KILL_ONLY]
    for index, place in enumerate(places):
        error = ERRORS[place.call][index % len(ERRORS[place.call])]
        lent.prepare(verb)
        answer = failed(lent.host, Run(verb, CONFIG, plugin=TUNING), place, error)
        tally["injected"] += 1
        if "Traceback" in answer.stdout + answer.stderr or answer.status and answer.code == 999:
            problems.append(f"{place} {error}: {answer.stdout}{answer.stderr}")
            tally["improper"] += 1
        if verb == "ADD" or answer.status:
            lent.call("DEL")
        if not lent.is_given_back():
            problems.append(f"{place} {error}, answered {answer.stdout.strip()}: {lent.settings()} {lent.kept()}")
            tally["leftovers"] += 1
            lent.reset()
    assert not problems, "\n".join(problems)
