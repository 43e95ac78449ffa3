"""The situations that verbs are killed in, and the three ways out: DEL, ADD again, GC.

A scene is one scratch host used for many kills; after each way out it has to be what it was before, so the next kill
starts from the same place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

from strace import Run, differences
from support.scratch import Host, Json, network, port

DUAL = ("10.88.0.0/24", "fd00:88::/64")
PORTS = [port(8080, 80), port(53, 53, "udp")]
CONFIG = network("net0", *DUAL, ports=PORTS)
KEEPER = network("net0", *DUAL, ports=[port(9090, 80)])
VALID = {"cni.dev/valid-attachments": [{"containerID": "keeper", "ifname": "eth0"}]}


def flow_to(address: str) -> list[str]:
    """What makes the tracker remember a client of the UDP port; it has to go with the container."""
    client, here = "192.0.2.9", "192.0.2.1"
    words = ["conntrack", "-I", "-p", "udp", "-t", "600", "-s", client, "-d", here, "--sport", "999", "--dport", "53"]
    return [*words, "-r", address, "-q", client, "--reply-port-src", "53", "--reply-port-dst", "999"]


class Scene:
    """`keeper` is another container that must not notice anything."""

    def __init__(self, host: Host, keeper: bool, fresh: bool) -> None:
        self.host = host
        self.keeper = keeper
        self.fresh = fresh
        for name in ("c1", "keeper"):
            host.container(name)
        host.delete(CONFIG)  # bytecode is compiled, folders are made
        if keeper:
            self.kept = host.add(KEEPER, "keeper")
        self.before = host.snapshot()
        self.sysctls = host.sysctls()

    def forget_table(self) -> None:
        """For the first ADD on a host: no table, no state."""
        if self.fresh:
            self.host.call("nft", "delete", "table", "inet", "nftcni")
            self.host.run("rm", "-rf", "/run/nftcni")

    def leftovers(self, flushed: bool) -> dict[str, Any]:
        """After a flush the others' table is for repair, or for the next ADD, to bring back."""
        if flushed:
            self.host.command("repair")
        found = differences(self.host.snapshot(), self.before)
        if self.keeper and not found:
            answer = self.host.cni("CHECK", {**KEEPER, "prevResult": self.kept}, "keeper")
            if answer.status:
                found["keeper"] = answer.words
        return found


def by_del(scene: Scene) -> None:
    scene.host.delete(CONFIG, netns="")


def by_gc(scene: Scene) -> None:
    valid = VALID if scene.keeper else {"cni.dev/valid-attachments": []}
    answer = scene.host.cni("GC", {**CONFIG, **valid})
    assert (answer.status, answer.stdout) == (0, ""), answer.stdout


def by_add(scene: Scene) -> None:
    """ADD answers, the same again when repeated, CHECK agrees; then DEL."""
    host = scene.host
    results = [host.cni("ADD", CONFIG) for _ in range(2)]
    for answer in results:
        assert answer.status == 0, f"ADD again: {answer.stdout}"
    assert results[0].document == results[1].document
    check = host.cni("CHECK", {**CONFIG, "prevResult": results[0].document})
    assert check.status == 0, f"CHECK after ADD again: {check.stdout}"
    scene.host.delete(CONFIG)


WAYS_OUT: dict[str, Callable[[Scene], None]] = {"DEL": by_del, "ADD again": by_add, "GC": by_gc}


@dataclass(frozen=True)
class Situation:
    """`prepare` brings the host to where `run` starts; `attached` says whether c1 is there then."""

    run: Run
    keeper: bool = True
    fresh: bool = False
    attached: bool = False
    flushed: bool = False

    def prepare(self, scene: Scene) -> Json:
        result = None
        scene.forget_table()
        if self.attached:
            answer = scene.host.cni("ADD", CONFIG)
            assert answer.status == 0, answer.stdout
            result = answer.document
            scene.host.run(*flow_to(result["ips"][0]["address"].split("/")[0]))
        if self.flushed:
            scene.host.nft("flush ruleset")
        return result


GC_RUN = Run("GC", {**CONFIG, **VALID})
SITUATIONS = {
    "first ADD of a host": Situation(Run("ADD", CONFIG), keeper=False, fresh=True),
    "ADD beside another": Situation(Run("ADD", CONFIG)),
    "ADD that makes the bridge": Situation(Run("ADD", CONFIG), keeper=False),
    "ADD after a flush": Situation(Run("ADD", CONFIG), flushed=True),
    "ADD repeated": Situation(Run("ADD", CONFIG), attached=True),
    "DEL beside another": Situation(Run("DEL", CONFIG), attached=True),
    "last DEL of a bridge": Situation(Run("DEL", CONFIG), keeper=False, attached=True),
    "GC": Situation(GC_RUN, attached=True),
    "repair": Situation(Run("", None, words=("repair",)), attached=True, flushed=True),
}
