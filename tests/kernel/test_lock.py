"""The lock of the state folder: free as soon as a verb has answered, and one at any moment, whoever deletes its file.

The oracle is flock(2) by the test itself and /proc/locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.crowd import waits
from support.scratch import PLUGIN, Host, Json, network, port

CONFIG = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)])
PLAIN = network("net0", "10.88.0.0/24", "fd00:88::/64")
PATIENCE = 10.0  # seconds until a test gives up; what it takes is a fraction of one
ROUNDS = 20


def lock_file(host: Host) -> Path:
    (found,) = [path for path in host.file("/run/nftcni").iterdir() if "." in path.name]
    return found / "lock"


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """By this process; it must be free."""
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def start(host: Host, verb: str, config: Json, container: str) -> subprocess.Popen[str]:
    variables = {
        **{"CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0"},
        **{"CNI_NETNS": f"/run/netns/{container}", "CNI_PATH": "/x"},
    }
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = host.popen(PLUGIN, env=variables, **pipes)
    assert process.stdin is not None
    process.stdin.write(json.dumps(config))
    process.stdin.close()
    process.stdin = None
    return process


def wait_until_it_waits(process: subprocess.Popen[str], file: os.stat_result) -> None:
    """For the lock on that file. It must not come to its end instead."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if waits(file, process.pid):
            return
        assert process.poll() is None, f"it took the lock of a file that is gone: {process.communicate()}"
        time.sleep(0.005)
    raise AssertionError("it never waited for this file")


@pytest.mark.parametrize("verb", ["DEL", "GC", "failed ADD"])
def test_it_is_free_once_a_verb_has_answered(host: Host, verb: str) -> None:
    """Although its child, which was forked under the lock, still waits for the kernel to finish with the link."""
    container = host.container("c1")
    taken = network("net0", "10.88.0.0/24", "fd00:88::/64", routes=None)
    taken["ipam"]["routes"] = [{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]  # nobody leads there: fails at the end
    for _ in range(ROUNDS):
        if verb == "failed ADD":
            assert host.cni("ADD", taken).code == 5
        else:
            host.add(CONFIG)
            answer = host.cni(verb, {**CONFIG, "cni.dev/valid-attachments": []})
            assert answer.status == 0
        with held(lock_file(host)):
            assert container.link("eth0") is None


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_folder_that_is_deleted_under_a_waiting_verb(host: Host, verb: str) -> None:
    """It gets the lock of a file that nobody else will ever look at. Working under that one, beside whoever holds the
    new file's, would be two at once: here the test is that other one."""
    for name in ("c1", "c2"):
        host.container(name)
    if verb == "DEL":
        host.add(CONFIG)
    host.add(PLAIN, "keeper")
    old = lock_file(host)
    with contextlib.ExitStack() as stack:
        with held(old):
            waiting = start(host, verb, CONFIG, "c1")
            wait_until_it_waits(waiting, old.stat())
            host.run("rm", "-rf", "/run/nftcni")
            second = host.add(PLAIN, "c2", netns="/run/netns/c2")
            new = lock_file(host)
            stack.enter_context(held(new))
        wait_until_it_waits(waiting, new.stat())
    out, err = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 0, out + err
    results = {"c2": second, **({"c1": json.loads(out)} if verb == "ADD" else {})}
    inside = [address for name in ("keeper", *results) for address in host.place(name).addresses("eth0")]
    assert len(inside) == len(set(inside)) == 2 * (1 + len(results))
    owners = {item["elem"]["comment"] for item in host.elements()["attachments"]}
    assert owners == {f"net0/{name}/eth0" for name in ("keeper", *results)}
    for name, result in results.items():
        config = CONFIG if name == "c1" else PLAIN
        assert host.cni("CHECK", {**config, "prevResult": result}, name).words == ""
    for name in ("c1", "c2", "keeper"):
        host.delete(CONFIG, name)
    assert host.state_files() == [] and host.elements() == {} and host.link("br-net0") is None
