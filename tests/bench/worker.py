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

import crowd
from connecting import Packets, Queries, Route, measure
from hosts import SETTLE, BenchHost
from peers import DEBIAN, Chain, Container, Netavark, converted, ours, reference
from processes import BARE, FOLDER, Call, CallFailed, Series

WARM_UPS = 3
AT_ONCE = 64
PEER_SUBNET = "10.90.0.0/24"
REFERENCE = ("bridge", "host-local", "portmap", "firewall", "tuning")


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


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        self.executable = f"{options.install}/bin/nftcni"
        self.code = f"{options.install}/lib/nftcni/current"
        self.rounds = options.rounds
        self.full = options.full
        self.sizes = [100, 1000, 10000]
        self.port_counts = [2, 10, 100, 1000, 10000]
        self.notes: list[str] = []
        self.peers: dict[str, str] = {}
        self.references = self.found_references()

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

    def found_references(self) -> dict[str, str]:
        """Folders of reference plugins: `ref` is Debian's, whose one backend is iptables, `newer` one with nftables
        backends. What a variable names has to be there, and so has Debian's in CI."""
        found = {}
        newer = os.environ.get("NFTCNI_BENCH_CNI", "")
        if not newer:
            self.notes.append("NFTCNI_BENCH_CNI names no folder: newer reference plugins")
        for name, folder in (("ref", DEBIAN), ("newer", newer)):
            lacking = [kind for kind in REFERENCE if not os.access(f"{folder}/{kind}", os.X_OK)]
            if folder and not lacking:
                found[name] = folder
            elif folder and (name == "newer" or os.environ.get("CI")):
                sys.exit(f"bench: {folder} has no {', '.join(lacking)} (Debian: containernetworking-plugins)")
            elif folder:
                self.notes.append(f"Debian's reference plugins: none in {folder} (containernetworking-plugins)")
        return found

    def reference_chain(self, name: str, network: str, nerdctl: bool = False) -> Chain:
        label = {"ref": "reference, Debian, iptables", "newer": "reference, newer, nftables backends"}[name]
        folder, nftables = self.references[name], name == "newer"
        return reference(label, folder, network, PEER_SUBNET, nerdctl=nerdctl, nftables=nftables)

    def peer_hosts(self) -> list[BenchHost]:
        found = [BenchHost(name, self.reference_chain(name, name)) for name in self.references]
        netavark = os.environ.get("NFTCNI_BENCH_NETAVARK", "")
        if os.access(netavark, os.X_OK):
            found.append(BenchHost("netavark", Netavark(netavark, "netavark", PEER_SUBNET)))
        elif netavark:
            sys.exit(f"bench: NFTCNI_BENCH_NETAVARK: {netavark} is no executable")
        else:
            self.notes.append("NFTCNI_BENCH_NETAVARK names no executable: netavark")
        for host in found:
            host.keep()
            self.peers[host.peer.label] = host.peer.about()
        return found

    def chain_hosts(self) -> list[BenchHost]:
        """bridge, portmap, firewall and tuning, as `nerdctl network create` writes them: under our drop-in names,
        converted to our own type, and the reference plugins'."""
        folder = os.path.dirname(self.executable)
        chain = reference("drop-in chain", folder, "dropin", PEER_SUBNET, nerdctl=True)
        own = converted(self.executable, reference("converted", folder, "converted", PEER_SUBNET, nerdctl=True))
        chains = [chain, own, *(self.reference_chain(name, f"{name}chain", nerdctl=True) for name in self.references)]
        hosts = [BenchHost(chain.network, chain) for chain in chains]
        for host in hosts:
            host.keep()
        return hosts

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
        subjects.update((host.name, Subject(host, host.container(30000))) for host in self.chain_hosts())
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
        found.update(self.crowds())
        if self.full:
            found.update(self.full_host())
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

    def crowds(self) -> dict[str, Any]:
        """A plugin process each, so the chains of others are not among them."""
        counts = (AT_ONCE, 4 * AT_ONCE) if self.full else (AT_ONCE,)
        found = crowd.at_once(self.host("parallel"), counts, 6 if self.full else 3)
        size = 1000 if self.full else 250
        say(f"GC and repair of {size}")
        all_of_it = crowd.everything(self.host("many"), self.executable, size, 3 if self.full else 1)
        found.update({f"{name} {size}": series for name, series in all_of_it.items()})
        if not self.full:
            self.notes.append("256 at once, GC and repair of 1000, 10 000 real attachments: with --full")
        return {name: series.summary() for name, series in found.items()}

    def full_host(self) -> dict[str, Any]:
        """10 000 real attachments over ten bridges, beside an empty host."""
        empty = self.host("beside")
        empty.keep()
        crowded = self.host("real", "10.200.0.0/16", network="real0", bridge="br-real0")
        for number in range(10):
            say(f"{1000 * (number + 1)} real attachments")
            chain = ours(self.executable, f"real{number}", f"10.{200 + number}.0.0/16")
            crowd.attach(crowded, chain, 999, 10000 + 2000 * number)
        subjects = {
            "beside": Subject(empty, empty.container(40000)),
            "real": Subject(crowded, crowded.container(40000)),
        }
        for index in range(WARM_UPS + self.rounds // 4):
            for subject in subjects.values() if index % 2 else reversed(list(subjects.values())):
                subject.sample()
        return {
            f"{verb} {name}": series.summary()
            for name, subject in subjects.items()
            for verb, series in (("ADD", subject.add), ("DEL", subject.delete))
        }

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
        routes: dict[str, Route | Packets | Queries] = {}
        for count in self.port_counts:
            say(f"{count} published ports")
            host = self.host(f"ports{count}")
            container = host.keep(10000, count, udp=1)
            routes[f"connect first of {count}"] = first = Route(host, container, 0)
            routes[f"connect last of {count}"] = Route(host, container, count - 1, first.lan)
            routes[f"packet last of {count}"] = known = Packets(first.lan, container)
            routes[f"query last of {count}"] = Queries(known)
        for name in self.references:
            for count in [2, 10, 100, 1000] if self.full else [2, 10, 100]:
                say(f"{count} published ports, {name}")
                host = BenchHost(f"{name}ports{count}", self.reference_chain(name, f"{name}{count}", nerdctl=True))
                container = host.keep(10000, count, udp=1)
                routes[f"connect {name} last of {count}"] = route = Route(host, container, count - 1)
                routes[f"packet {name} last of {count}"] = known = Packets(route.lan, container)
                routes[f"query {name} last of {count}"] = Queries(known)
        self.notes.append("bulk throughput by the fast path: needs nf_flow_table, tests/run -e kernels has it")
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
    Path(options.install, "found.json").write_text(
        json.dumps({"figures": found, "notes": bench.notes, "peers": bench.peers})
    )


main()
