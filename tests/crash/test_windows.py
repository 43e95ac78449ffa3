"""Windows that one kill has opened once, each with what comes after it: who else wants the port, the link, the records.

`test_kill` asks whether anything is left behind; here others come in between, and the oracle is what they get.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Callable

import pytest
from strace import Point, Run, points
from support.scratch import Answer, Host, Json, network, port
from support.traffic import Server, ask

CONFIG = network("net0", "10.88.0.0/24", ports=[port(8080, 80)])
PLAIN = network("net0", "10.88.0.0/24")
CHANGES = ("rename", "unlink", "rmdir", "mkdir", "symlink", "write", "sendto")
KILLED = (-9, 137)


def valid(*containers: str) -> Json:
    listed = [{"containerID": container, "ifname": "eth0"} for container in containers]
    return {**PLAIN, "cni.dev/valid-attachments": listed}


def broken(host: Host, run: Run, call: str, number: int = 1, path: str = "", how: str = "signal=KILL") -> Answer:
    """The run with its `number`-th such call (of those that name the path) killed or failed. It must come to that."""
    log = host.file("/run/broken.log")
    log.unlink(missing_ok=True)
    words = (
        "strace",
        "-qq",
        "-o",
        "/run/broken.log",
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:{how}:when={number}",
    )
    answer = run.command(host, (*words, *(("-P", path) if path else ())))
    said = log.read_text(errors="replace")
    assert answer.status in KILLED if "KILL" in how else "(INJECTED)" in said, f"{call}#{number} {path}: {said[-300:]}"
    return answer


def inner(host: Host) -> str:
    """The state folder as the host itself calls it."""
    (found,) = [path.name for path in host.file("/run/nftcni").iterdir() if "." in path.name]
    return f"/run/nftcni/{found}"


def state(host: Host) -> Path:
    return host.file(inner(host))


def record(host: Host) -> str:
    return f"{inner(host)}/attachments/net0/c1@eth0"


def lines_of(host: Host, run: Run) -> list[str]:
    """The run's own calls as strace prints them; it takes effect."""
    points(host, run)
    lines = host.file("/run/strace.log").read_text(errors="replace").splitlines()
    first = lines[0].partition(" ")[0]
    return [line.partition(" ")[2].strip() for line in lines if line.partition(" ")[0] == first]


def steps_from(host: Host, run: Run, start: str) -> list[Point]:
    """Calls of the run that change something, in their order, from the first one that begins like this."""
    counts: Counter[str] = Counter()
    found: list[Point] = []
    for line in lines_of(host, run):
        match = re.match(r"(\w+)\(", line)
        if match:
            call = match.group(1)
            counts[call] += 1
            if (found or line.startswith(start)) and (call in CHANGES or "O_CREAT" in line):
                found.append(Point(call, counts[call]))
    assert found, f"{start} was never called"
    return found


def groups(host: Host) -> set[str]:
    """Of the links that are ports."""
    return {item["group"] for item in host.links() if item["master"]}


@pytest.fixture
def two(host: Host) -> Host:
    """c1 with a port, c2 beside it, and a GC of c1 that has come as far as putting its link into the doomed group."""
    host.add(CONFIG)
    host.add(PLAIN, "c2")
    assert groups(host) == {"default"}
    # The first GC of a fresh checkout writes bytecode, and the tests below count writes.
    assert host.cni("GC", valid("c1", "c2")).status == 0
    return host


@pytest.mark.parametrize(
    ("how", "again"),
    [("signal=KILL", "before"), ("error=ENOMEM", "before"), ("signal=KILL", "after")],
)
def test_gc_takes_no_link_that_an_earlier_gc_had_marked(two: Host, tally: Counter[str], how: str, again: str) -> None:
    """It ended between marking the links and telling its child to delete their group; then the runtime wants the one
    container after all. The next GC comes before the repeated ADD or after it."""
    broken(two, Run("GC", valid("c2")), "write", how=how)
    tally["killed" if "KILL" in how else "injected"] += 1
    assert len(groups(two)) == 2, "the link has to be marked for this to mean anything"
    index = two.place("c1").link("eth0")["ifindex"]
    if again == "before":
        result = two.add(CONFIG)
    answer = Run("GC", valid("c1")).command(two, ("timeout", "--signal=KILL", "10"))
    assert answer.status == 0, f"{answer.status} {answer.stdout}"
    assert two.place("c1").link("eth0")["ifindex"] == index
    if again == "after":
        result = two.add(CONFIG)
    with Server(two.place("c1"), 80):
        assert ask(two, "127.0.0.1", 8080) == "c1 10.88.0.1"
    assert two.cni("CHECK", {**CONFIG, "prevResult": result}).status == 0
    assert two.place("c2").link("eth0") is None
    assert groups(two) == {"default"}


def test_gc_without_memory_for_its_child_says_what_for(two: Host, tally: Counter[str]) -> None:
    answer = broken(two, Run("GC", valid("c2")), "clone", how="error=ENOMEM")
    tally["injected"] += 1
    assert answer.code == 5 and "ENOMEM" in answer.words and "process that removes links" in answer.words
    assert two.cni("GC", valid()).status == 0
    assert two.links() == [item for item in two.links() if not item["master"] and item["ifname"] != "br-net0"]


def dnat_owners(host: Host) -> set[str]:
    return {key["elem"]["comment"] for key, _ in host.elements().get("dnat4", [])}


@pytest.mark.parametrize("heir", ["a1", "z1"])
def test_a_killed_del_takes_nothing_of_who_came_after(host: Host, tally: Counter[str], heir: str) -> None:
    """It was killed while it gave up the record; a repair after a flush must not bring the dead one's port back, nor
    must the runtime's repeated DEL take what is another's. Whose name comes first makes no difference."""
    for name in ("c1", heir, "keeper"):
        host.container(name)
    host.add(PLAIN, "keeper")
    host.add(CONFIG)
    steps = steps_from(host, Run("DEL", CONFIG), f'rename("{record(host)}"')
    assert len(steps) >= 5, steps
    before = host.snapshot()
    asked = {**CONFIG, "runtimeConfig": {**CONFIG["runtimeConfig"], "ips": ["10.88.0.3"]}}
    problems = []
    for step in steps:
        host.add(asked)
        broken(host, Run("DEL", CONFIG), step.call, step.number)
        tally["killed"] += 1
        answer = host.cni("ADD", asked, heir)
        if step == steps[0]:  # the record is whole: nothing is given away, nor to be taken back
            assert answer.code in (100, 102), answer.stdout
            host.delete(CONFIG)
            continue
        try:
            assert answer.status == 0, answer.words
            host.nft("flush ruleset")
            assert host.command("repair").returncode == 0
            for _ in range(2):
                with Server(host.place(heir), 80):
                    assert ask(host, "127.0.0.1", 8080) == f"{heir} 10.88.0.1"
                assert dnat_owners(host) == {f"net0/{heir}/eth0"}
                assert host.cni("CHECK", {**asked, "prevResult": answer.document}, heir).words == ""
                host.delete(CONFIG, netns="")
        except AssertionError as error:
            problems.append(f"{step}: {error}")
        host.delete(CONFIG)
        host.delete(CONFIG, heir)
        if host.snapshot() != before:
            problems.append(f"{step}: left {host.state_files()} {host.elements()}")
    assert not problems, "\n".join(problems)


FIRST = network("a", "10.1.0.0/24", ports=[port(8080, 80)])
SECOND = network("b", "10.2.0.0/24", ports=[port(8080, 80)])
BESIDE = {"cni.dev/valid-attachments": [{"containerID": "keeper", "ifname": "eth9"}]}
ANY_VERB: dict[str, Callable[[Host], object]] = {
    "ADD of another": lambda host: host.add(network("c", "10.3.0.0/24"), "keeper", netns="/run/netns/keeper"),
    "DEL of nobody": lambda host: host.delete(network("c", "10.3.0.0/24"), "nobody", netns=""),
    "list": lambda host: host.command("list"),
    "GC": lambda host: host.cni("GC", {**FIRST, **BESIDE}),
    "repair": lambda host: host.command("repair"),
}


def test_a_port_is_handed_over_whenever_del_of_the_first_network_is_killed(host: Host, tally: Counter[str]) -> None:
    """From the record's removal on, any verb ends what it began: the second network publishes, the claim is its own.

    The container's link is gone already, so DEL asks the kernel as often each time."""
    for name in ("c1", "keeper"):
        host.container(name)
    host.add(network("a", "10.1.0.0/24"), "keeper", ifname="eth9")
    before = host.snapshot()
    run = Run("DEL", FIRST)

    def attach() -> Json:
        host.add(FIRST, netns="/run/netns/c1")
        result = host.add(SECOND, netns="/run/netns/c1", ifname="eth1")
        host.place("c1").run("ip", "link", "del", "eth0")
        return result

    attach()
    steps = steps_from(host, run, f'rename("{inner(host)}/attachments/a/c1@eth0"')
    assert {"sendto", "rename", "unlink", "symlink"} <= {step.call for step in steps}
    assert len(steps) > 10, steps
    host.delete(SECOND, ifname="eth1")
    problems = []
    for number, step in enumerate(steps):
        verbs = list(ANY_VERB)
        for verb in ["DEL again", *([verbs[number % len(verbs)]] if number else [])]:
            result = attach()
            broken(host, run, step.call, step.number)
            tally["killed"] += 1
            try:
                if verb in ANY_VERB:
                    ANY_VERB[verb](host)
                else:
                    host.delete(FIRST, netns="")
                with Server(host.place("c1"), 80):
                    assert ask(host, "127.0.0.1", 8080) == "c1 10.2.0.1"
                assert os.readlink(state(host) / "ports/tcp-8080") == "0.0.0.0=b/c1/eth1"
                assert host.cni("CHECK", {**SECOND, "prevResult": result}, ifname="eth1").words == ""
            except AssertionError as error:
                problems.append(f"{step}, then {verb}: {error}")
            host.delete(FIRST)
            host.delete(SECOND, ifname="eth1")
            host.delete(network("c", "10.3.0.0/24"), "keeper")
            if host.snapshot() != before:
                problems.append(f"{step}, then {verb}: left {host.state_files()} {host.elements()}")
    assert not problems, "\n".join(problems)


def test_an_adoption_that_was_killed_is_begun_again(host: Host, tally: Counter[str]) -> None:
    """The first verb after the state was lost writes a record for everybody in the table; a kill in between must not
    pass the rest over, for good: the next GC would take no notice of them."""
    before = host.snapshot()
    names = ("c1", "c2", "c3")
    for number, name in enumerate(names):
        host.add(network("net0", "10.88.0.0/24", ports=[port(8080 + number, 80)]), name)
    elements, files = host.elements(), host.state_files()
    run = Run("", None, words=("list",))
    host.run("rm", "-rf", "/run/nftcni")
    host.command("list")  # bytecode is compiled: its writes would be counted, and never come again
    host.run("rm", "-rf", "/run/nftcni")
    steps = steps_from(host, run, 'mkdir("/run/nftcni')
    assert host.state_files() == files, "an adoption that nobody disturbs finds all"
    assert len([step for step in steps if step.call == "rename"]) >= len(names)
    problems = []
    for step in steps:
        host.run("rm", "-rf", "/run/nftcni")
        broken(host, run, step.call, step.number)
        tally["killed"] += 1
        host.delete(network("other", "10.9.0.0/24"), "nobody", netns="")
        if (host.state_files(), host.elements()) != (files, elements):
            problems.append(f"{step}: {host.state_files()}")
    assert not problems, "\n".join(problems)
    assert host.cni("GC", valid("c2")).status == 0
    assert {item["elem"]["comment"] for item in host.elements()["attachments"]} == {"net0/c2/eth0"}
    host.delete(PLAIN, "c2")
    host.run("ip", "netns", "del", "c1")
    assert {**host.snapshot(), "state": []} == {**before, "state": []}


LOOKS = ("?newfstatat", "?stat", "?lstat", "?access", "?faccessat2", "openat", "?readlink", "getdents64")


def test_a_folder_that_cannot_be_looked_at_is_not_taken_for_a_fresh_one(host: Host, tally: Counter[str]) -> None:
    """EIO of any look into the state folder: what the records say must not be overwritten by what the table knows."""
    config = network("net0", "10.88.0.0/24", ports=[port(9090, 80)], portIsolation=True, dns={"domain": "x.example"})
    kept = host.add(config, "keeper")
    host.container("c1")
    host.delete(CONFIG)
    record = state(host) / "attachments/net0/keeper@eth0"
    text = record.read_text()
    run = Run("ADD", CONFIG)
    counts: Counter[str] = Counter()
    found = []
    log = "/run/looks.log"
    answer = run.command(host, ("strace", "-qq", "-y", "-o", log, "-e", "trace=" + ",".join(LOOKS)))
    assert answer.status == 0
    host.delete(CONFIG)
    for line in host.file(log).read_text(errors="replace").splitlines():
        call = line.partition("(")[0]
        counts[call] += 1
        if "/run/nftcni" in line:
            found.append(Point(call, counts[call]))
    assert len(found) >= 5 and {"newfstatat", "openat"} <= {place.call for place in found}, found
    for place in found:
        broken(host, run, place.call, place.number, how="error=EIO")
        tally["injected"] += 1
        assert record.read_text() == text, f"{place}: the record of another was written anew"
        host.delete(CONFIG)
        assert record.read_text() == text, f"{place}, then DEL: the record of another was written anew"
        check = host.cni("CHECK", {**config, "prevResult": kept}, "keeper")
        assert check.status == 0, f"{place}: {check.words}"


@pytest.mark.parametrize("verb", ["repair", "ADD"])
def test_rules_that_were_loaded_but_not_noted(host: Host, tally: Counter[str], verb: str) -> None:
    """A kill between loading the table and noting its digest: the rules are ours all the same, and watched over."""
    host.container("c1")
    host.delete(CONFIG)
    run = Run("ADD", CONFIG)
    if verb == "repair":
        host.add(CONFIG)
        host.nft("flush ruleset")
        run = Run("", None, words=("repair",))
    lines = [line for line in lines_of(host, run) if line.startswith("rename(")]
    (number,) = [number for number, line in enumerate(lines, 1) if '/rules")' in line]
    if verb == "repair":
        host.nft("flush ruleset")
    else:
        host.delete(CONFIG)
        host.nft("delete table inet nftcni")
    broken(host, run, "rename", number)
    tally["killed"] += 1
    assert "chain portmap" in host.run("nft", "list", "table", "inet", "nftcni")
    assert not (state(host) / "rules").is_symlink()
    result = host.add(CONFIG)
    assert host.cni("CHECK", {**CONFIG, "prevResult": result}).words == ""
    host.nft("flush chain inet nftcni portmap")
    answer = host.cni("CHECK", {**CONFIG, "prevResult": result})
    assert answer.code == 104 and "rules" in answer.words
    assert host.command("repair").returncode == 0
    with Server(host.place("c1"), 80):
        assert ask(host, "127.0.0.1", 8080) == "c1 10.88.0.1"


@pytest.mark.parametrize("pending", ["there", "gone"])
def test_gc_takes_the_empty_folder_of_a_killed_del(host: Host, tally: Counter[str], pending: str) -> None:
    """A network's folder without attachments passed for a record: STATUS was 51 for ever after a flush."""
    host.container("c1")
    host.delete(CONFIG)
    host.add(CONFIG)
    broken(host, Run("DEL", CONFIG), "rmdir", path=f"{inner(host)}/attachments/net0")
    tally["killed"] += 1
    assert [path.name for path in (state(host) / "attachments").iterdir()] == ["net0"]
    if pending == "gone":  # as before there was one
        (state(host) / "pending").unlink()
    assert host.cni("GC", valid()).status == 0
    assert list((state(host) / "attachments").iterdir()) == [] and host.state_files() == []
    host.nft("flush ruleset")
    assert host.cni("STATUS", CONFIG).status == 0
    assert host.command("repair", "--check").returncode == 0
