"""SIGKILL at a handful of system calls of one ADD and one DEL; a DEL then leaves nothing. tests/crash has them all."""

from __future__ import annotations

import json
import re

import pytest
from kernels.scenarios.scene import config
from support.scratch import PLUGIN, Host, Json

# What changes something outside the process, or is asked of the kernel.
CALLS = ("openat", "write", "rename", "unlink", "mkdir", "flock", "setns", "sendto", "sendmsg", "clone")
OURS = re.compile(r'"(/run/nftcni|/proc/sys)')  # of openat: not the interpreter's own files
POINTS = 5
CALL = """
export CNI_COMMAND=$1 CNI_CONTAINERID=web CNI_NETNS=/run/netns/web CNI_IFNAME=eth0 CNI_PATH=/nonexistent
shift
exec strace -qq -o /run/strace "$@"
"""


def traced(host: Host, verb: str, web: Json, *options: str) -> int:
    words = ("sh", "-c", CALL, "sh", verb, *options, PLUGIN)
    return host.call(*words, input=json.dumps(web)).returncode


def points(host: Host, verb: str, web: Json) -> list[tuple[str, int]]:
    """Calls with their numbers, some of all that the verb makes, the first and the last among them."""
    assert traced(host, verb, web, "-e", "trace=" + ",".join(CALLS)) == 0
    counts = dict.fromkeys(CALLS, 0)
    found = []
    for line in host.file("/run/strace").read_text().splitlines():
        name = line.partition("(")[0]
        if name in counts:
            counts[name] += 1
            if name != "openat" or OURS.search(line):
                found.append((name, counts[name]))
    step = (len(found) - 1) / (POINTS - 1)
    return [found[round(number * step)] for number in range(POINTS)]


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_killed(host: Host, verb: str) -> None:
    host.add(config("sibling"), "sibling")
    assert problems(host, verb, config("web")) == []


def problems(host: Host, verb: str, web: Json) -> list[Json]:
    """Where `web` was killed, and what a DEL left of it."""
    host.container("web")
    before = host.snapshot()
    host.add(web, "web")  # and gone: what is loaded for the first time writes its bytecode, which no later call does
    host.delete(web, "web")
    if verb == "DEL":
        host.add(web, "web")
    chosen = points(host, verb, web)
    found: list[Json] = []
    for name, number in chosen:
        host.delete(web, "web")
        if verb == "DEL":
            host.add(web, "web")
        traced(host, verb, web, "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}")
        killed = "killed by SIGKILL" in host.file("/run/strace").read_text()
        host.delete(web, "web")
        left = {key: value for key, value in host.snapshot().items() if value != before[key]}
        if left or not killed:
            found.append((name, number, left or "not killed"))
    return found
