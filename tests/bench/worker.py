"""The measurements, made inside the scratch host by `run`, which prints what this writes as JSON.

Every round takes one sample of each thing, in one order and then in the reverse one, so that drift of the machine meets
them all. Ratios are of medians over all rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from connecting import Route, measure
from hosts import SETTLE, BenchHost
from peers import Container, Netavark, ours, reference
from processes import BARE, FOLDER, Call, CallFailed, Series

WARM_UPS = 3
AT_ONCE = 64
PEER_SUBNET = "10.90.0.0/24"


class Subject:
    """One container that is added and deleted again and again."""

    def __init__(self, host: BenchHost, container: Container) -> None:
        self.host = host
        self.container = container
        self.add = Series()
        self.delete = Series()

    def sample(self) -> None:
        for verb, series in (("ADD", self.add), ("DEL", self.delete)):
            operation = self.host.peer.prepare(verb, self.container)
            with self.host.space.entered():
                start = time.perf_counter()
                operation()
                series.values.append((time.perf_counter() - start) * 1e3)
            time.sleep(SETTLE)


class Plain:
    """A process that changes nothing."""

    def __init__(self, host: BenchHost, call: Call) -> None:
        self.host = host
        self.call = call
        self.series = Series()

    def sample(self) -> None:
        with self.host.space.entered():
            self.series.time(self.call)
        time.sleep(SETTLE / 4)


def together(host: BenchHost, calls: list[Call]) -> float:
    """Milliseconds from the first start to the last end."""
    with host.space.entered():
        start = time.perf_counter()
        running = [(call.start(), call) for call in calls]
        ended = [(os.waitpid(pid, 0)[1], call) for pid, call in running]
        took = (time.perf_counter() - start) * 1e3
    for status, call in ended:
        call.check(status)
    return took


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        self.executable = f"{options.install}/bin/nftcni"
        self.code = f"{options.install}/lib/nftcni/current"
        self.rounds = options.rounds
        self.full = options.full
        self.sizes = [100, 1000, 10000]
        self.port_counts = [10, 100, 1000, 10000]
        self.notes: list[str] = []

    def host(self, name: str, *subnets: str, network: str = "", bridge: str = "") -> BenchHost:
        return BenchHost(name, ours(self.executable, network or name, *(subnets or ("10.88.0.0/16",)), bridge=bridge))

    def filled(self, attachments: int) -> BenchHost:
        """The measured network is one of the filled ones."""
        host = self.host(f"full{attachments}", "10.100.0.0/16", network="fill0", bridge="br-fill0")
        host.fill(self.code, attachments, foreign=attachments >= 10000)
        if attachments >= 10000:
            host.add_links("sibling")
        host.keep()
        return host

    def peer_hosts(self) -> list[BenchHost]:
        places = [("reference, Debian", "/usr/lib/cni", "ref")]
        if os.environ.get("NFTCNI_BENCH_CNI"):
            places.append(("reference, newer", os.environ["NFTCNI_BENCH_CNI"], "newer"))
        else:
            self.notes.append("NFTCNI_BENCH_CNI names no folder: newer reference plugins are not measured")
        found = []
        for label, folder, name in places:
            if all(os.access(f"{folder}/{kind}", os.X_OK) for kind in ("bridge", "host-local", "portmap", "firewall")):
                found.append(BenchHost(name, reference(label, folder, name, PEER_SUBNET)))
            else:
                self.notes.append(f"{label}: no plugins in {folder} (Debian: containernetworking-plugins)")
        netavark = os.environ.get("NFTCNI_BENCH_NETAVARK", "")
        if os.access(netavark, os.X_OK):
            found.append(BenchHost("netavark", Netavark(netavark, "netavark", PEER_SUBNET)))
        else:
            self.notes.append("NFTCNI_BENCH_NETAVARK names no executable: netavark is not measured")
        for host in found:
            host.keep()
        return found

    def processes(self) -> dict[str, Any]:
        say("preparing hosts")
        empty = self.host("empty")
        empty.keep()
        dual = self.host("dual", "10.88.0.0/16", "fd88::/64")
        dual.keep()
        subjects = {
            "ipv4": Subject(empty, empty.container(30000)),
            "dual": Subject(dual, dual.container(30000)),
            "tcp1000": Subject(empty, empty.container(31000, tcp=1000)),
            "udp1000": Subject(empty, empty.container(31000, tcp=0, udp=1000)),
        }
        for size in self.sizes:
            say(f"{size} attachments")
            host = self.filled(size)
            subjects[f"full{size}"] = Subject(host, host.container(30000))
        peers = {host.name: Subject(host, host.container(30000)) for host in self.peer_hosts()}
        subjects.update(peers)
        versions = empty.peer.prepare("ADD", subjects["ipv4"].container)
        assert not isinstance(versions, Call)
        plain = {"bare": Plain(empty, Call(BARE))}
        for verb in ("VERSION", "STATUS"):
            call = versions.calls[0]
            plain[verb] = Plain(empty, Call(call.argv, {**call.env, "CNI_COMMAND": verb}, call.stdin))
        large = subjects["full10000"]
        crowd = large.host.peer.prepare("ADD", large.container)
        assert not isinstance(crowd, Call)
        asked = {**crowd.calls[0].env, "CNI_COMMAND": "STATUS"}
        plain["STATUS full10000"] = Plain(large.host, Call(crowd.calls[0].argv, asked, crowd.calls[0].stdin))
        everything: list[Subject | Plain] = [*plain.values(), *subjects.values()]
        say(f"{self.rounds} rounds of {len(everything)} subjects")
        for index in range(WARM_UPS + self.rounds):
            if index == WARM_UPS:
                for item in everything:
                    for series in (item.add, item.delete) if isinstance(item, Subject) else (item.series,):
                        series.values.clear()
            for item in everything if index % 2 else reversed(everything):
                item.sample()
        found = {name: item.series.summary() for name, item in plain.items()}
        for name, subject in subjects.items():
            found[f"ADD {name}"] = subject.add.summary()
            found[f"DEL {name}"] = subject.delete.summary()
        say("memory")
        found.update(self.memory(empty))
        say(f"{AT_ONCE} at once")
        found.update(self.at_once())
        self.growing(peers, found)
        return found

    def memory(self, host: BenchHost) -> dict[str, Any]:
        """In KiB, each the largest moment of one process."""
        container = host.container(30000)
        sizes = {"bare": Series(), "ADD": Series()}
        with host.space.entered():
            for _ in range(9):
                add = host.peer.prepare("ADD", container)
                assert not isinstance(add, Call)
                sizes["bare"].values.append(Call(BARE).peak())
                sizes["ADD"].values.append(add.calls[0].peak())
                Call(add.calls[0].argv, {**add.calls[0].env, "CNI_COMMAND": "DEL"}, add.calls[0].stdin)()
                time.sleep(SETTLE)
        return {f"memory {name}": series.summary() for name, series in sizes.items()}

    def at_once(self) -> dict[str, Any]:
        """On two processors, with single ADDs between, and bare interpreters as what no plugin in Python can beat."""
        host = self.host("parallel")
        host.keep()
        containers = [host.container(30000 + 2 * index) for index in range(AT_ONCE)]
        single, wall, bare = Series(), Series(), Series()
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, set(sorted(allowed)[:2]))
        for _ in range(6):
            one = Subject(host, host.container(29000))
            for _ in range(5):
                one.sample()
            single.values += one.add.values
            for verb in ("ADD", "DEL"):
                calls = []
                for container in containers:
                    operation = host.peer.prepare(verb, container)
                    assert not isinstance(operation, Call)
                    calls += operation.calls
                took = together(host, calls)
                if verb == "ADD":
                    wall.values.append(took)
                time.sleep(1)
            bare.values.append(together(host, [Call(BARE)] * AT_ONCE))
        os.sched_setaffinity(0, allowed)
        return {"ADD single": single.summary(), "ADD 64 at once": wall.summary(), "bare 64 at once": bare.summary()}

    def growing(self, peers: dict[str, Subject], found: dict[str, Any]) -> None:
        """The peers with more containers on their hosts; these are real, so without --full they are few."""
        for name, subject in peers.items():
            have = 1
            for size in [30, 100, 200] if self.full else [30]:
                say(f"{name}: {size} containers")
                while have < size:
                    subject.host.keep(2000 + 2 * have)
                    have += 1
                grown = Subject(subject.host, subject.container)
                for _ in range(10):
                    grown.sample()
                found[f"ADD {name} {size}"] = grown.add.summary()
                found[f"DEL {name} {size}"] = grown.delete.summary()

    def connections(self) -> dict[str, Any]:
        routes: dict[str, Route] = {}
        for count in self.port_counts:
            say(f"{count} published ports")
            host = self.host(f"ports{count}")
            container = host.keep(10000, tcp=count)
            routes[f"connect first of {count}"] = first = Route(host, container, 0)
            routes[f"connect last of {count}"] = Route(host, container, count - 1, first.lan)
        if os.access("/usr/lib/cni/portmap", os.X_OK):
            for count in [10, 100, 1000] if self.full else [10, 100]:
                say(f"{count} published ports, reference")
                name = f"refports{count}"
                host = BenchHost(name, reference("reference, Debian", "/usr/lib/cni", f"rp{count}", PEER_SUBNET))
                container = host.keep(10000, tcp=count)
                routes[f"connect reference last of {count}"] = Route(host, container, count - 1)
        say("connections")
        measure(list(routes.values()), 40 if self.full else 15)
        return {name: route.series.summary() for name, route in routes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    FOLDER.mkdir()
    bench = Bench(options)
    try:
        found = bench.processes()
        found.update(bench.connections())
    except CallFailed as failure:
        sys.exit(f"bench: a call failed: {failure}")
    Path(options.install, "found.json").write_text(json.dumps({"figures": found, "notes": bench.notes}))


main()
