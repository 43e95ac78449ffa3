"""Many processes at once: no address twice, no port lost or anybody else's, nothing left, no deadlock.

64 threads start one plugin process after the other in one scratch host; some are killed after a random time. The order
of events is the machine's, the seed of what is asked and killed is printed when a test fails.
"""

from __future__ import annotations

import fcntl
import os
import random
import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.scratch import PLUGIN, Host, Json, network, port

NETWORKS = 3
WORKERS = 64
PER_WORKER = 32  # 64 x 32 = 2048 attachments
SEED = int(os.environ.get("NFTCNI_STORM_SEED", "20261124"))


def config(net: int, ports: list[Json]) -> Json:
    return network(f"net{net}", f"10.{80 + net}.0.0/16", f"fd00:{80 + net}::/64", ports=ports)


def ports_of(worker: int, turn: int) -> list[Json]:
    """Two ports that nobody else asks for at the same time."""
    first = 10000 + worker * 2 * 4 + turn % 4 * 2
    return [port(first, 80), port(first + 1, 53, "udp")]


class Storm:
    def __init__(self, host: Host, seed: int) -> None:
        self.host = host
        self.seed = seed
        self.lock = threading.Lock()
        self.tally: Counter[str] = Counter()
        self.problems: list[str] = []
        self.live: dict[str, tuple[Json, Json]] = {}  # container: configuration, result
        self.held: dict[str, str] = {}  # address: container, from the answer to ADD until DEL is asked for
        self.seconds: list[float] = [0.1]  # that calls took, to kill others somewhere in there

    def call(self, verb: str, conf: Json, container: str, netns: str, kill_after: float | None) -> Any:
        """The answer, or None for a process that was killed."""
        import json

        process = self.host.popen(
            PLUGIN,
            env={
                **{"CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": netns},
                **{"CNI_IFNAME": container, "CNI_PATH": "/x"},
            },
            **dict.fromkeys(("stdin", "stdout", "stderr"), -1),
        )
        start = time.monotonic()
        if kill_after is not None:
            timer = threading.Timer(kill_after * statistics.median(self.seconds), process.kill)
            timer.start()
        try:
            out, err = process.communicate(json.dumps(conf), timeout=120)
        finally:
            if kill_after is not None:
                timer.cancel()
        if process.returncode == -9:
            self.count("killed")
            self.count("killed at work", self.has_traces(conf["name"], container))
            return None
        with self.lock:
            self.seconds = [*self.seconds[-99:], time.monotonic() - start]
        if process.returncode:
            return json.loads(out)
        return json.loads(out) if out else {}

    def has_traces(self, net: str, container: str) -> bool:
        """Whether a killed call had begun, or not yet ended: there is a record, or its journal."""
        folders = [*self.host.file("/run").glob("nftcni/*.*")]
        if not folders:  # killed before any of them came so far
            return False
        (folder,) = folders
        return (folder / "attachments" / net / f"{container}@{container}").exists() or (folder / "pending").exists()

    def take(self, container: str, result: Json) -> None:
        """Two containers must not have one address at the same time, however short."""
        with self.lock:
            for item in result["ips"]:
                other = self.held.setdefault(item["address"], container)
                if other != container:
                    self.problems.append(f"{item['address']} of {container} is {other}'s")

    def give_back(self, container: str) -> None:
        with self.lock:
            self.held = {address: who for address, who in self.held.items() if who != container}

    def count(self, what: str, number: int = 1) -> None:
        with self.lock:
            self.tally[what] += number

    def problem(self, text: str) -> None:
        with self.lock:
            self.problems.append(text)

    def worker(self, number: int) -> None:
        dice = random.Random(self.seed * 1000 + number)
        netns = f"/run/netns/w{number}"
        for turn in range(PER_WORKER):
            name = f"w{number}t{turn}"
            conf = config(dice.randrange(NETWORKS), ports_of(number, turn))
            kill_add = dice.uniform(0.2, 1.1) if dice.random() < 0.1 else None
            result = self.call("ADD", conf, name, netns, kill_add)
            self.count("attachments")
            if result is not None and "code" in result:
                self.problem(f"ADD {name}: {result}")
            if result and "ips" in result:
                self.take(name, result)
            if result and "ips" in result and turn >= PER_WORKER - 2:
                with self.lock:
                    self.live[name] = (conf, result)
                continue  # the last two of each worker stay: 128 at once at the end
            self.give_back(name)
            kill_del = dice.uniform(0.2, 1.1) if dice.random() < 0.1 else None
            for attempt in (kill_del, None):
                answer = self.call("DEL", conf, name, dice.choice([netns, ""]), attempt)
                if answer is not None and "code" in answer:
                    self.problem(f"DEL {name}: {answer}")


def test_storm(host: Host, tally: Counter[str]) -> None:
    for number in range(WORKERS):
        host.container(f"w{number}")
    before = host.snapshot()
    storm = Storm(host, SEED)
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(storm.worker, range(WORKERS)))
    tally.update(storm.tally, processes=WORKERS)
    assert not storm.problems, f"seed {SEED}: {len(storm.problems)} problems\n" + "\n".join(storm.problems[:10])
    _compare(host, storm)
    for name, (conf, _) in storm.live.items():
        answer = host.cni("DEL", conf, name, netns="", ifname=name)
        assert answer.status == 0, answer.stdout
    after = host.snapshot()
    tally["leftovers"] += after != before
    assert after == before


def _compare(host: Host, storm: Storm) -> None:
    """What the runtimes were told against what the kernel has."""
    told = [item["address"] for _, result in storm.live.values() for item in result["ips"]]
    assert len(told) == len(set(told)), "an address was handed out twice"
    elements = host.elements()
    owners = {item["elem"]["comment"] for item in elements["attachments"]}
    assert owners == {f"{conf['name']}/{name}/{name}" for name, (conf, _) in storm.live.items()}
    for family, index in (("dnat4", 0), ("dnat6", 1)):
        have = {
            (tuple(key["elem"]["val"]["concat"]), key["elem"]["comment"], tuple(data["concat"]))
            for key, data in elements[family]
        }
        want = {
            (
                (item["Protocol"], item["HostPort"]),
                f"{conf['name']}/{name}/{name}",
                (result["ips"][index]["address"].split("/")[0], item["ContainerPort"]),
            )
            for name, (conf, result) in storm.live.items()
            for item in conf["runtimeConfig"]["portMappings"]
        }
        assert have == want


@pytest.mark.parametrize("turn", range(4))
def test_two_adds_for_one_port_and_one_wins(host: Host, tally: Counter[str], turn: int) -> None:
    racers = 8
    for number in range(racers):
        host.container(f"c{number}")
    conf = config(turn % NETWORKS, [port(8080, 80), port(9000 + turn, 80)])
    with ThreadPoolExecutor(racers) as pool:
        answers = list(pool.map(lambda number: host.cni("ADD", conf, f"c{number}"), range(racers)))
    won = [number for number, answer in enumerate(answers) if answer.status == 0]
    assert len(won) == 1
    lost = [answer for answer in answers if answer.status]
    assert {answer.code for answer in lost} == {100}
    assert all(f"c{won[0]}" in answer.words for answer in lost)
    tally["refused"] += len(lost)
    assert len(host.elements()["attachments"]) == 1


@pytest.mark.parametrize("turn", range(10))
def test_add_and_del_of_one_attachment_race(host: Host, turn: int) -> None:
    """Afterwards it is either whole or gone, and a DEL leaves nothing."""
    host.container("c1")
    before = host.snapshot()
    conf = config(0, ports_of(0, 0))
    verbs = ["ADD", "DEL", "ADD", "DEL", "DEL"][: 2 + turn % 4]
    with ThreadPoolExecutor(len(verbs)) as pool:
        answers = list(pool.map(lambda verb: host.cni(verb, conf), verbs))
    assert all(answer.status == 0 for answer in answers), [answer.stdout for answer in answers]
    if host.snapshot() != before:
        told = [answer.document for verb, answer in zip(verbs, answers) if verb == "ADD"]
        checks = [host.cni("CHECK", {**conf, "prevResult": result}) for result in told]
        assert any(check.status == 0 for check in checks), [check.words for check in checks]
    host.delete(conf)
    assert host.snapshot() == before


def test_interfaces_of_one_container_in_parallel(host: Host) -> None:
    container = host.container("c1")
    before = host.snapshot()
    confs = [network(f"net{n}", f"10.{100 + n}.0.0/24", ports=[port(8000 + n, 80)]) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: host.cni("ADD", confs[n], ifname=f"eth{n}"), range(8)))
    assert [answer.status for answer in answers] == [0] * 8, [answer.stdout for answer in answers]
    for number in range(8):
        assert container.addresses(f"eth{number}") == {f"10.{100 + number}.0.2/24"}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: host.delete(confs[n], ifname=f"eth{n}"), range(8)))
    assert host.snapshot() == before


def test_a_lock_that_is_never_given_up(host: Host) -> None:
    """The wait is bounded; code 11 tells the runtime to try again."""
    host.add(network())
    host.container("c2")
    (folder,) = [path for path in host.file("/run/nftcni").iterdir() if "." in path.name]
    before = host.snapshot()
    with open(folder / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        start = time.monotonic()
        answer = host.cni("ADD", network(), "c2")
        waited = time.monotonic() - start
    assert answer.code == 11 and str(folder).split("/root")[1] in answer.words and "15 s" in answer.words
    assert 10 < waited < 60
    assert host.snapshot() == before
    assert host.cni("ADD", network(), "c2").status == 0


def test_gc_of_a_thousand(host: Host, tally: Counter[str]) -> None:
    """One transaction, one deletion for all links; the summary has the time, nothing here asserts it."""
    count = 1000
    namespaces = [host.container(f"n{number}").path for number in range(10)]
    before = host.snapshot()

    def attach(number: int) -> int:
        conf = network("big", "10.99.0.0/16", ports=[port(20000 + number, 80), port(20000 + number, 53, "udp")])
        return host.cni("ADD", conf, f"c{number}", netns=namespaces[number % 10], ifname=f"e{number}").status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(attach, range(count))) == {0}
    tally["attachments"] += count
    conf = {**network("big", "10.99.0.0/16"), "cni.dev/valid-attachments": []}
    start = time.monotonic()
    assert host.cni("GC", conf).status == 0
    tally["collected"] += count
    tally["milliseconds"] += int((time.monotonic() - start) * 1000)
    assert host.snapshot() == before
