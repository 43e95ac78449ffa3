"""Random sequences of calls, crashes and losses against a model, replayed on a real kernel.

A short run by default; the long one is NFTCNI_FUZZ_SEQUENCES=300 NFTCNI_FUZZ_STEPS=40 pytest tests/fuzz/test_model.py.
The model knows who is attached and which host port each one has; addresses and ports are read from `nft -j`.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from support.scratch import PLUGIN, Host, network, port

SEQUENCES = int(os.environ.get("NFTCNI_FUZZ_SEQUENCES", "12"))
STEPS = int(os.environ.get("NFTCNI_FUZZ_STEPS", "14"))
WHO = st.sampled_from(["c1", "c2", "c3", "c4"])


def config(container: str) -> Any:
    """c1 and c2 want the same host port."""
    number = 8001 if container in ("c1", "c2") else 8000 + int(container[1])
    return network("net0", "10.88.0.0/28", "fd00:88::/120", ports=[port(number, 80)])


def wanted_port(container: str) -> int:
    return int(config(container)["runtimeConfig"]["portMappings"][0]["HostPort"])


def owners(elements: Any, name: str) -> dict[str, Any]:
    """key: comment of one set or map; `nft -j` prints a map's element as a pair of key and data."""
    items = [item[0] if isinstance(item, list) else item for item in elements.get(name, [])]
    return {json.dumps(item["elem"]["val"]): item["elem"].get("comment") for item in items}


def machine(host: Host, figures: dict[str, int]) -> type[RuleBasedStateMachine]:
    class Model(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            figures["sequences"] += 1
            self.attached: set[str] = set()
            self.unsure: set[str] = set()  # a killed call may have got anywhere
            self.flushed = False

        def holders(self, container: str) -> set[str]:
            return {one for one in self.attached if wanted_port(one) == wanted_port(container)} - {container}

        @rule(container=WHO)
        def add(self, container: str) -> None:
            answer = host.cni("ADD", config(container), container)
            in_doubt = {one for one in self.unsure - {container} if wanted_port(one) == wanted_port(container)}
            if self.holders(container):
                assert answer.code == 100, answer.stdout
            elif answer.status:
                assert answer.code == 100 and in_doubt, answer.stdout
            else:
                self.attached.add(container)
                self.unsure.discard(container)
                self.flushed = False

        @rule(container=WHO, without_namespace=st.booleans())
        def delete(self, container: str, without_namespace: bool) -> None:
            if without_namespace and container in self.attached | self.unsure:
                host.delete(config(container), container, netns="")
            else:
                host.delete(config(container), container)
            self.attached.discard(container)
            self.unsure.discard(container)

        @rule()
        def collect(self) -> None:
            valid = [{"containerID": one, "ifname": "eth0"} for one in sorted(self.attached)]
            answer = host.cni("GC", {**config("c1"), "cni.dev/valid-attachments": valid})
            assert answer.status == 0, answer.stdout
            self.unsure.clear()

        @rule()
        def flush(self) -> None:
            host.nft("flush ruleset")
            self.flushed = True

        @rule()
        def repair(self) -> None:
            done = host.command("repair")
            assert "Traceback" not in done.stderr, done.stderr
            if not self.unsure:
                assert done.returncode == 0, done.stdout + done.stderr
                self.flushed = False

        @rule()
        def lose_state(self) -> None:
            if not self.flushed:  # with both gone nobody could know
                host.run("rm", "-rf", "/run/nftcni")

        @rule(container=WHO, verb=st.sampled_from(["ADD", "DEL"]), delay=st.integers(0, 60))
        def crash(self, container: str, verb: str, delay: int) -> None:
            if self.holders(container) or (verb == "ADD" and container in self.attached):
                return
            variables = {"CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": f"/run/netns/{container}"}
            variables.update(CNI_IFNAME="eth0", CNI_PATH="/nonexistent")
            process = host.popen(PLUGIN, env=variables, stdin=-1, stdout=-1, stderr=-1)
            assert process.stdin is not None
            process.stdin.write(json.dumps(config(container)))
            process.stdin.close()
            process.stdin = None
            time.sleep(delay / 1000)
            process.kill()
            process.communicate(timeout=30)
            self.attached.discard(container)
            self.unsure.add(container)

        @invariant()
        def as_the_model_says(self) -> None:
            figures["steps"] += 1
            if self.flushed:
                return
            elements = host.elements()
            addresses = owners(elements, "own4")
            for one in self.attached:
                ident = f"net0/{one}/eth0"
                assert list(addresses.values()).count(ident) == 1, (one, addresses)
                assert ident in owners(elements, "attachments").values()
                assert [key for key, who in owners(elements, "dnat4").items() if who == ident] == [
                    json.dumps({"concat": ["tcp", wanted_port(one)]})
                ]
            ours = {f"net0/{one}/eth0" for one in self.attached | self.unsure}
            assert set(addresses.values()) <= ours

        def teardown(self) -> None:
            for one in ("c1", "c2", "c3", "c4"):
                host.delete(config(one), one)
            left = [host.elements(), host.state_files(), host.link("br-net0")]
            host.run("nft", "flush", "ruleset")
            host.run("rm", "-rf", "/run/nftcni")
            if left != [{}, [], None]:
                figures["leftovers"] += 1
                raise AssertionError(f"left over: {left}")

    return Model


def test_sequences_on_the_kernel(host: Host, figures: dict[str, int]) -> None:
    for name in ("c1", "c2", "c3", "c4"):
        host.container(name)
    run_state_machine_as_test(
        machine(host, figures),
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
