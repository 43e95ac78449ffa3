"""Random sequences of everything that can happen to a host, against a model of what must be there afterwards.

Each sequence is replayed on the real kernel: the model says who is attached with which ports, `nft -j` and `ip -j` say
what is so. A killed call may have happened or not, so the model only knows it after the next call for that attachment.
NFTCNI_FUZZ_EXAMPLES=2000 makes a long run of it (the default of 25 takes a minute).
"""

from __future__ import annotations

import json
import os
import threading
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.scratch import PLUGIN, Host, Json, network, port
from tally import TALLY

EXAMPLES = int(os.environ.get("NFTCNI_FUZZ_EXAMPLES", "25"))
# A sequence with kills in it does not fail twice alike; looking for a shorter one would take an hour.
PHASES = [Phase.explicit, Phase.generate]
CONTAINERS = [f"c{number}" for number in range(4)]
NETWORKS = ["net0", "net1"]
WHO = st.tuples(st.sampled_from(NETWORKS), st.sampled_from(CONTAINERS))
PORTS = st.lists(st.sampled_from([8080, 8081, 8082]), unique=True, max_size=2)
Key = tuple[str, str]


def config(net: str, ports: list[int] | tuple[int, ...] = ()) -> Json:
    number = NETWORKS.index(net)
    mappings = [port(item, 80, "udp" if item == 8082 else "tcp") for item in ports]
    return network(net, f"10.{88 + number}.0.0/28", f"fd00:{88 + number}::/64", ports=mappings)


def container(who: Key) -> str:
    """Of its own for each network: one container on two networks shares its ports, which test_ports_conflicts shows."""
    return f"{who[1]}.{who[0]}" if who[1] else ""


class HostModel(RuleBasedStateMachine):
    host: Host
    clean: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.attached: dict[Key, tuple[int, ...]] = {}
        self.results: dict[Key, Json] = {}
        self.unsure: dict[Key, tuple[int, ...]] = {}  # a killed ADD or DEL: may hold these ports, or nothing
        self.flushed = False

    @initialize()
    def begin(self) -> None:
        TALLY["sequences"] += 1

    def call(self, verb: str, who: Key, conf: Json, **options: Any) -> Any:
        TALLY["steps"] += 1
        ifname = "eth0" if who[0] == "net0" else "eth1"
        options.setdefault("netns", f"/run/netns/{who[1]}")
        answer = self.host.cni(verb, conf, container(who), ifname=ifname, **options)
        assert answer.code != 999 and "Traceback" not in answer.stderr, answer.stdout + answer.stderr
        return answer

    def holders(self, number: int, but: Key) -> list[Key]:
        held = {**self.unsure, **self.attached}
        return [who for who, ports in held.items() if who != but and number in ports]

    @rule(who=WHO, ports=PORTS)
    def add(self, who: Key, ports: list[int]) -> None:
        answer = self.call("ADD", who, config(who[0], ports))
        rivals = [rival for number in ports for rival in self.holders(number, who)]
        if answer.status == 0:
            assert not [rival for rival in rivals if rival in self.attached], f"{ports} given twice"
            for rival in rivals:
                self.unsure[rival] = tuple(item for item in self.unsure[rival] if item not in ports)
            self.unsure.pop(who, None)
            self.attached[who] = tuple(ports)
            self.results[who] = answer.document
            self.flushed = False
        else:
            assert answer.code == 100 and rivals, answer.stdout
            self.unsure.pop(who, None)
            self.attached.pop(who, None)
            # The old attachment was given up for the new configuration, or is as it was.
            self.call("DEL", who, config(who[0]))

    @rule(who=WHO, netns=st.booleans())
    def delete(self, who: Key, netns: bool) -> None:
        answer = self.call("DEL", who, config(who[0]), **({} if netns else {"netns": ""}))
        assert answer.status == 0, answer.stdout
        self.attached.pop(who, None)
        self.unsure.pop(who, None)

    @precondition(lambda self: self.attached)
    @rule(data=st.data())
    def check(self, data: Any) -> None:
        who = data.draw(st.sampled_from(sorted(self.attached)))
        conf = {**config(who[0], self.attached[who]), "prevResult": self.results[who]}
        answer = self.call("CHECK", who, conf)
        assert answer.code == (104 if self.flushed else 0), answer.stdout

    @rule(net=st.sampled_from(NETWORKS), keep=st.sets(st.sampled_from(CONTAINERS)))
    def collect(self, net: str, keep: set[str]) -> None:
        ifname = "eth0" if net == "net0" else "eth1"
        valid = [{"containerID": container((net, name)), "ifname": ifname} for name in keep]
        answer = self.call("GC", (net, ""), {**config(net), "cni.dev/valid-attachments": valid})
        assert answer.status == 0, answer.stdout
        for who in [who for who in {**self.attached, **self.unsure} if who[0] == net and who[1] not in keep]:
            self.attached.pop(who, None)
            self.unsure.pop(who, None)

    @rule()
    def flush(self) -> None:
        self.host.nft("flush ruleset")
        self.flushed = bool(self.attached or self.unsure)

    @rule()
    def repair(self) -> None:
        TALLY["steps"] += 1
        done = self.host.command("repair")
        assert "Traceback" not in done.stderr
        assert done.returncode == 0 or self.unsure, done.stdout
        self.flushed = False

    @precondition(lambda self: not self.flushed and not self.unsure)
    @rule()
    def lose_state(self) -> None:
        """The table remembers who has what; what the bridge was before is forgotten, so it is made certain first."""
        self.host.run("rm", "-rf", "/run/nftcni")
        for who in list(self.attached):
            answer = self.call("ADD", who, config(who[0], self.attached[who]))
            assert answer.status == 0, answer.stdout
            assert [item["address"] for item in answer.document["ips"]] == [
                item["address"] for item in self.results[who]["ips"]
            ]
            self.results[who] = answer.document

    @precondition(lambda self: self.attached and not self.flushed)
    @rule(data=st.data(), text=st.sampled_from(["", "{", "[]"]), again=st.booleans())
    def damage(self, data: Any, text: str, again: bool) -> None:
        """A record that cannot be read: DEL takes everything away, or ADD gives the same addresses."""
        who = data.draw(st.sampled_from(sorted(self.attached)))
        (file,) = self.host.file("/run/nftcni").glob(f"*/attachments/{who[0]}/{container(who)}@*")
        file.write_text(text)
        if not again:
            self.delete(who, netns=False)
            return
        answer = self.call("ADD", who, config(who[0], self.attached[who]))
        assert answer.status == 0, answer.stdout
        assert answer.document["ips"] == self.results[who]["ips"]
        self.results[who] = answer.document

    def killed(self, verb: str, who: Key, conf: Json, after: int, *words: str) -> None:
        """SIGKILL after so many milliseconds."""
        TALLY["steps"] += 1
        ifname = "eth0" if who[0] == "net0" else "eth1"
        env = {"CNI_COMMAND": verb, "CNI_CONTAINERID": container(who), "CNI_NETNS": f"/run/netns/{who[1]}"}
        pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), -1)
        process = self.host.popen(PLUGIN, *words, env={**env, "CNI_IFNAME": ifname, "CNI_PATH": "/x"}, **pipes)
        timer = threading.Timer(after / 1000, process.kill)
        timer.start()
        process.communicate(json.dumps(conf), timeout=60)
        timer.cancel()
        if process.returncode == -9:
            TALLY["crashes"] += 1

    @rule(who=WHO, ports=PORTS, verb=st.sampled_from(["ADD", "DEL"]), after=st.integers(0, 25))
    def crash(self, who: Key, ports: list[int], verb: str, after: int) -> None:
        """Afterwards the attachment may be old, new, half or gone."""
        self.killed(verb, who, config(who[0], ports), after)
        before = self.attached.pop(who, ()) + self.unsure.pop(who, ())
        self.unsure[who] = tuple(dict.fromkeys((*before, *(ports if verb == "ADD" else ()))))

    @rule(net=st.sampled_from(NETWORKS), keep=st.sets(st.sampled_from(CONTAINERS)), after=st.integers(5, 40))
    def crash_of_gc(self, net: str, keep: set[str], after: int) -> None:
        """Those that were to be kept are as they were."""
        ifname = "eth0" if net == "net0" else "eth1"
        valid = [{"containerID": container((net, name)), "ifname": ifname} for name in keep]
        self.killed("GC", (net, ""), {**config(net), "cni.dev/valid-attachments": valid}, after)
        for who in [who for who in self.attached if who[0] == net and who[1] not in keep]:
            self.unsure[who] = self.attached.pop(who)

    @rule(after=st.integers(5, 60))
    def crash_of_repair(self, after: int) -> None:
        """Whether it came to restoring the table is not known; a second one does."""
        self.killed("", ("net0", ""), None, after, "repair")
        self.repair()

    @invariant()
    def the_kernel_has_what_the_model_says(self) -> None:
        if self.flushed:
            return
        elements = self.host.elements()
        have = {
            (key["elem"]["comment"], key["elem"]["val"]["concat"][1])
            for name in ("dnat4", "dnat6")
            for key, _ in elements.get(name, [])
        }
        names = {
            who: f"{who[0]}/{container(who)}/{'eth0' if who[0] == 'net0' else 'eth1'}"
            for who in {**self.attached, **self.unsure}
        }
        must = {(names[who], number) for who, ports in self.attached.items() for number in ports}
        may = must | {(names[who], number) for who, ports in self.unsure.items() for number in ports}
        assert must <= have <= may, f"must {must}, have {have}, may {may}"
        told = [item["address"] for who in self.attached for item in self.results[who]["ips"]]
        assert len(told) == len(set(told)), "an address was handed out twice"

    def teardown(self) -> None:
        self.host.run("sh", "-c", "rm -rf /run/nftcni/*/damaged")  # kept for people
        for net in NETWORKS:
            for name in CONTAINERS:
                self.call("DEL", (net, name), config(net))
        after = self.host.snapshot()
        if after != self.clean:
            TALLY["leftovers"] += 1
        assert after == self.clean


def test_any_sequence(host: Host) -> None:
    for name in CONTAINERS:
        host.container(name)
    HostModel.host = host
    HostModel.clean = host.snapshot()
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        HostModel,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=checks,
            database=None,
            phases=PHASES,
        ),
    )
