"""The situations that verbs are killed in, and the three ways out: DEL, ADD again, GC.

A scene is one scratch host used for many kills; after each way out it has to be what it was before, so the next kill
starts from the same place.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Callable

from strace import Point, Run, differences, points
from support.crowd import Crowd
from support.scratch import CHECKOUT, Host, Json, network, port

DUAL = ("10.88.0.0/24", "fd00:88::/64")
PORTS = [port(8080, 80), port(53, 53, "udp")]
CONFIG = network("net0", *DUAL, ports=PORTS)
KEEPER = network("net0", *DUAL, ports=[port(9090, 80)])
# Of the same container, for the same ports.
SECOND = network("net1", "10.89.0.0/24", "fd00:89::/64", ports=PORTS, mac="02:11:22:33:44:55")
POINT_TO_POINT = network("net0", "10.90.0.0/24", "fd00:90::/64", ports=PORTS, mode="ptp")
del POINT_TO_POINT["bridge"]
POINT_TO_POINT["runtimeConfig"]["bandwidth"] = {
    **{"ingressRate": 8_000_000, "ingressBurst": 800_000},
    **{"egressRate": 8_000_000, "egressBurst": 800_000},
}
CONDITIONS: dict[str, Any] = {"conditionsV4": ["ip ttl > 3"], "conditionsV6": ["ip6 hoplimit > 3"]}
CONDITIONAL = network("net0", *DUAL, ports=PORTS, **CONDITIONS)
ADOPTED = network("net2", "10.91.0.0/24", "fd00:91::/64", ports=PORTS, bridge="br0")  # somebody else's bridge
FOREIGN = network("net0", ipam={"type": "foreign"}, ports=PORTS)
LEASED = network("net0", *DUAL, ports=PORTS, mac="02:11:22:33:44:55")
LEASED["ipam"] = {**LEASED["ipam"], "dataDir": "/run/leases"}  # with the reference host-local's lease files
VALID = {"cni.dev/valid-attachments": [{"containerID": "keeper", "ifname": "eth0"}]}
# An IPAM plugin of somebody else's: it keeps what it gave in a file, so that a lost DEL is seen.
IPAM = """#!/bin/sh
case $CNI_COMMAND in
    ADD)
        echo leased >/run/foreign.$CNI_CONTAINERID
        echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.88.0.77/24", "gateway": "10.88.0.1"}]}'
        ;;
    DEL) rm -f /run/foreign.$CNI_CONTAINERID ;;
    GC) rm -f /run/foreign.c1 ;;
esac
"""


def flow_to(address: str) -> list[str]:
    """What makes the tracker remember a client of the UDP port; it has to go with the container."""
    client, here = "192.0.2.9", "192.0.2.1"
    words = ["conntrack", "-I", "-p", "udp", "-t", "600", "-s", client, "-d", here, "--sport", "999", "--dport", "53"]
    return [*words, "-r", address, "-q", client, "--reply-port-src", "53", "--reply-port-dst", "999"]


def _exprs(item: Json) -> list[Json]:
    return item["rule"]["expr"] if "rule" in item else []


class Scene:
    """`keeper` is another container that must not notice anything."""

    def __init__(self, host: Host, situation: Situation) -> None:
        self.host = host
        self.situation = situation
        self.result: Json = None  # of the ADD that `prepare` has made
        for name in ("c1", "keeper"):
            host.container(name)
        if situation.config is ADOPTED:
            host.run("ip", "link", "add", "br0", "type", "bridge")
        host.add(CONFIG, netns="/run/netns/c1")  # bytecode is compiled, folders and the table are made
        host.delete(CONFIG)
        host.run("mkdir", "-p", "/run/bin")
        host.file("/run/bin/foreign").write_text(IPAM)
        host.file("/run/bin/foreign").chmod(0o755)
        for name in ("portmap", "firewall"):
            host.file(f"/run/bin/{name}").symlink_to(CHECKOUT / "conf" / "nftcni")
        if situation.keeper:
            self.kept = host.add(KEEPER, "keeper")
        if situation.crowded:
            Crowd(next(path for path in host.file("/run/nftcni").iterdir() if "." in path.name))
        self.before = self.settled()
        self.sysctls = host.sysctls()

    def snapshot(self) -> dict[str, Any]:
        leased = [path.name for path in self.host.file("/run").glob("foreign.*")]
        leased += [path.name for path in self.host.file("/run").glob("leases/net0/*[.:]*") if "last_" not in path.name]
        done = self.host.call("nft", "-j", "list", "table", "inet", "nftcni")
        listed = json.loads(done.stdout)["nftables"] if done.returncode == 0 else []
        names = [item["chain"]["name"] for item in listed if "chain" in item]
        jumps = [item["rule"]["chain"] for item in listed if {"jump": {"target": "gate"}} in _exprs(item)]
        conditions = sorted([*jumps, *(name for name in names if name.startswith("when_"))])
        found = self.host.json("tc", "-j", "qdisc", "show", "dev", "br0") if self.host.link("br0") else []
        queues = [item["kind"] for item in found if item["kind"] in ("clsact", "ingress")]  # the guard's (`forwarding`)
        return {**self.host.snapshot(), "leased": leased, "conditions": conditions, "queues": queues}

    def settled(self) -> dict[str, Any]:
        """The IPv6 routes of a bridge come with its carrier, which the kernel takes up to a second to notice."""
        found = self.snapshot()
        for _ in range(20):
            time.sleep(0.1)
            before, found = found, self.snapshot()
            up = not self.situation.keeper or self.host.link("br-net0")["operstate"] == "UP"
            if up and found == before:
                return found
        raise AssertionError("the host does not come to rest")

    def call(self, verb: str, config: Json, netns: str | None = None, ifname: str = "eth0") -> Any:
        return self.host.cni(verb, config, netns=netns, ifname=ifname, env={"CNI_PATH": "/run/bin"})

    def prepare(self) -> None:
        self.situation.prepare(self)

    def points(self) -> list[Point]:
        """Those of three runs that all of them have: how often a run asks whether a link is gone is not the same."""
        runs = []
        for _ in range(3):
            self.prepare()
            runs.append(points(self.host, self.situation.run))
            self.clear()
        return [point for point in runs[0] if point in runs[1] and point in runs[2]]

    def leftovers(self) -> dict[str, Any]:
        """After a flush the others' table is for repair, or for the next ADD, to bring back."""
        if self.situation.flushed:
            self.host.command("repair")
        if self.situation.lost:
            self.host.add(KEEPER, "keeper", netns="/run/netns/keeper")
        for _ in range(20):  # a bridge whose port was made anew has IPv6 routes once it has a carrier
            found = differences(self.snapshot(), self.before)
            if not found:
                break
            time.sleep(0.1)
        if self.situation.keeper and not found:
            answer = self.host.cni("CHECK", {**KEEPER, "prevResult": self.kept}, "keeper")
            if answer.status:
                found["keeper"] = answer.words
        return found

    def clear(self) -> None:
        """By DEL of all that a situation may have attached, whose answers matter to `by_del` only."""
        for config, ifname in self.attachments:
            answer = self.call("DEL", config, "", ifname)
            assert (answer.status, answer.stdout) == (0, ""), answer.stdout

    @property
    def attachments(self) -> list[tuple[Json, str]]:
        first = [(self.situation.config, "eth0")]
        return [(SECOND, "eth1"), *first] if self.situation.second or self.situation.run.config is SECOND else first


def by_del(scene: Scene) -> None:
    scene.clear()


def by_gc(scene: Scene) -> None:
    valid = VALID if scene.situation.keeper else {"cni.dev/valid-attachments": []}
    for config, _ifname in scene.attachments:
        answer = scene.call("GC", {**config, **valid})
        assert (answer.status, answer.stdout) == (0, ""), answer.stdout


def by_add(scene: Scene) -> None:
    """ADD answers, the same again when repeated and, where it was attached before, as then; CHECK agrees; then DEL."""
    config = scene.situation.config
    results = [scene.call("ADD", config) for _ in range(2)]
    for answer in results:
        assert answer.status == 0, f"ADD again: {answer.stdout}"
    told = [scene.result] if scene.situation.same_answer else []
    for other in [*told, results[1].document]:
        assert results[0].document == other
    check = scene.call("CHECK", {**config, "prevResult": results[0].document})
    assert check.status == 0, f"CHECK after ADD again: {check.stdout}"
    scene.clear()


WAYS_OUT: dict[str, Callable[[Scene], None]] = {"DEL": by_del, "ADD again": by_add, "GC": by_gc}


@dataclass(frozen=True)
class Situation:
    """`prepare` brings the host to where `run` starts; `attached` says whether c1 is there then, `same_answer` that an
    ADD after the kill has to answer as it did. `every_way`: all ways out of each kill, otherwise in turn. `crowded`:
    others seem to wait for the lock. `renamed`: somebody renamed the host's end of c1's link."""

    run: Run
    config: Json = None
    keeper: bool = True
    fresh: bool = False
    attached: bool = False
    second: bool = False
    flushed: bool = False
    lost: bool = False
    same_answer: bool = False
    every_way: bool = True
    crowded: bool = False
    renamed: bool = False

    def __post_init__(self) -> None:
        if self.config is None:
            object.__setattr__(self, "config", CONFIG)

    def prepare(self, scene: Scene) -> None:
        host = scene.host
        if self.fresh:
            host.call("nft", "delete", "table", "inet", "nftcni")
            host.run("rm", "-rf", "/run/nftcni")
        if self.attached:
            answer = scene.call("ADD", self.config)
            assert answer.status == 0, answer.stdout
            scene.result = answer.document
            if "runtimeConfig" in self.config:
                host.run(*flow_to(answer.document["ips"][0]["address"].split("/")[0]))
        if self.second:
            answer = scene.call("ADD", SECOND, ifname="eth1")
            assert answer.status == 0, answer.stdout
        if self.renamed:
            (link,) = [one["name"] for one in scene.result["interfaces"] if one["name"].startswith("veth")]
            host.run("sh", "-c", f"ip link set {link} down; ip link set {link} name stray0")
        if self.lost:
            host.run("rm", "-rf", "/run/nftcni")
        if self.flushed:
            host.nft("flush ruleset")


GC_RUN = Run("GC", {**CONFIG, **VALID})
BRIDGED = {"cniVersion": "1.1.0", "ips": [{"address": "10.88.0.2/24", "gateway": "10.88.0.1"}]}
PORTMAP = {"cniVersion": "1.1.0", "name": "net0", "type": "portmap", "runtimeConfig": {"portMappings": PORTS}}
PORTMAP.update(CONDITIONS)
SITUATIONS = {
    "first ADD of a host": Situation(Run("ADD", CONFIG), keeper=False, fresh=True),
    "ADD beside another": Situation(Run("ADD", CONFIG)),
    "ADD that makes the bridge": Situation(Run("ADD", CONFIG), keeper=False),
    "ADD after a flush": Situation(Run("ADD", CONFIG), flushed=True),
    "ADD repeated": Situation(Run("ADD", CONFIG), attached=True, same_answer=True),
    "DEL beside another": Situation(Run("DEL", CONFIG), attached=True),
    "DEL in a crowd": Situation(Run("DEL", CONFIG), attached=True, crowded=True),
    "DEL of rates in a crowd": Situation(
        *(Run("DEL", POINT_TO_POINT), POINT_TO_POINT), attached=True, every_way=False, crowded=True
    ),
    "DEL of a renamed link": Situation(Run("DEL", CONFIG), attached=True, every_way=False, renamed=True),
    "last DEL of a bridge": Situation(Run("DEL", CONFIG), keeper=False, attached=True),
    "GC": Situation(GC_RUN, attached=True),
    "repair": Situation(Run("", None, words=("repair",)), attached=True, flushed=True, same_answer=True),
    # One container on two networks that asks both for the same ports.
    "ADD to a second network": Situation(Run("ADD", SECOND, ifname="eth1"), attached=True, every_way=False),
    "DEL of the first network": Situation(Run("DEL", CONFIG), attached=True, second=True, every_way=False),
    "GC of two networks": Situation(GC_RUN, attached=True, second=True, every_way=False),
    "GC of ports with conditions": Situation(GC_RUN, CONDITIONAL, attached=True, every_way=False),
    "ADD with lease files": Situation(Run("ADD", LEASED), LEASED, every_way=False),
    "DEL with lease files": Situation(Run("DEL", LEASED), LEASED, attached=True, every_way=False),
    "ADD with a foreign IPAM": Situation(Run("ADD", FOREIGN), FOREIGN, every_way=False),
    "DEL with a foreign IPAM": Situation(Run("DEL", FOREIGN), FOREIGN, attached=True, every_way=False),
    "ADD of portmap": Situation(
        *(Run("ADD", {**PORTMAP, "prevResult": BRIDGED}, plugin="/run/bin/portmap"), network("net0", *DUAL)),
        attached=True,
        every_way=False,
    ),
    "DEL of portmap": Situation(
        Run("DEL", PORTMAP, plugin="/run/bin/portmap"), CONDITIONAL, attached=True, every_way=False
    ),
    "ADD point to point with rates": Situation(Run("ADD", POINT_TO_POINT), POINT_TO_POINT, every_way=False),
    "DEL point to point with rates": Situation(
        Run("DEL", POINT_TO_POINT), POINT_TO_POINT, attached=True, every_way=False
    ),
    "ADD to an adopted bridge": Situation(Run("ADD", ADOPTED), ADOPTED, every_way=False),
    "DEL from an adopted bridge": Situation(Run("DEL", ADOPTED), ADOPTED, attached=True, every_way=False),
    "DEL with the state lost": Situation(Run("DEL", CONFIG), attached=True, lost=True, every_way=False),
}
