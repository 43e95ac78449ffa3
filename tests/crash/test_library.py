"""A libnftables that dies, exits or raises: the runtime has its answer; a standing table is worked on without it."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.scratch import PLUGIN, Host, network, port

CONFIG = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80), port(53, 53, "udp")])
DEATHS = {
    "segfault": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "abort": "import os; os.abort()",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "exit": "import os; os._exit(3)",
    "sys.exit": "import sys; sys.exit(0)",
    "exit-0": "import os; os._exit(0)",
    "raises": "raise RuntimeError('broken')",
    "syntax": "this is not Python",
}
# A map with concatenated data, which the JSON of nft before 1.1.0 turns into a set.
CONCATENATED = """{"nftables": [{"add": {"table": {"family": "inet", "name": "other"}}},
{"add": {"map": {"family": "inet", "table": "other", "name": "m", "type": "inet_service",
"map": ["ipv4_addr", "inet_service"]}}},
{"add": {"chain": {"family": "inet", "table": "other", "name": "c", "type": "nat", "hook": "prerouting", "prio": -100,
"policy": "accept"}}}]}"""
# Using that set as what it was meant to be is fatal for whoever does it.
FATAL_RULE = "add rule inet other c meta l4proto tcp dnat ip to th dport map @m"
# What nft 1.1.3 attaches to `set s { type ipv4_addr; }`: the key's byte order, and its `typeof` without an expression,
# which nft 1.0.6 takes for one. (libnftnl's include/udata.h: NFTNL_UDATA_SET_KEYBYTEORDER, NFTNL_UDATA_SET_KEY_TYPEOF)
NEWER_USERDATA = bytes.fromhex("0004020000000308000404000000" + "0100")
BATCH_BEGIN, BATCH_END, NEWTABLE, NEWSET = 0x10, 0x11, 0xA00, 0xA09  # linux/netfilter/nf_tables.h, subsystem 10


def break_library(host: Host, code: str) -> None:
    """In the host's mount namespace alone. Returns once the replacement is what that host sees."""
    found = [Path(folder, "nftables", "__init__.py") for folder in ("/usr/lib/python3/dist-packages", *sys.path)]
    module = next((path for path in found if path.is_file()), None)
    assert module is not None, "needs the distribution's package python3-nftables"
    host.run("mount", "-t", "tmpfs", "none", str(module.parent))
    host.file(str(module)).write_text(code + "\n")


@pytest.mark.parametrize("death", DEATHS)
def test_the_first_add_says_what_died_and_leaves_nothing(host: Host, tally: Counter[str], death: str) -> None:
    host.container("c1")
    host.delete(CONFIG)  # folders are made
    break_library(host, DEATHS[death])
    tally["injected"] += 1
    answer = host.refused("ADD", CONFIG)
    assert answer.code == 5 and "nftables" in answer.words
    host.delete(CONFIG)


@pytest.mark.parametrize("death", DEATHS)
def test_a_table_that_stands_needs_no_library(host: Host, tally: Counter[str], death: str) -> None:
    host.add(CONFIG)
    host.delete(CONFIG)
    before = host.snapshot()
    break_library(host, DEATHS[death])
    tally["injected"] += 1
    result = host.add(CONFIG)
    check = host.cni("CHECK", {**CONFIG, "prevResult": result})
    assert check.status == 0, check.words
    assert host.add(CONFIG) == result
    host.delete(CONFIG)
    assert host.snapshot() == before


HANGS = "import time; time.sleep(60)"  # longer than anybody waits for it; then it is no module that could be used
PATIENCE = 30.0  # seconds until a test gives up


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_a_library_that_hangs_is_ended(host: Host, tally: Counter[str]) -> None:
    """The answer comes in time; and if the plugin itself is killed meanwhile, its child, which has the lock as well,
    does not keep it for ever. Two hosts at once, since each of them has to wait for ten seconds."""
    other = Host()
    try:
        for place in (host, other):
            place.container("c1")
            place.delete(CONFIG)
            break_library(place, HANGS)
            tally["injected"] += 1
        variables = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1"}
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        plugin = other.popen(PLUGIN, env={**variables, "CNI_IFNAME": "eth0", "CNI_PATH": "/x"}, **pipes)
        assert plugin.stdin is not None
        plugin.stdin.write(json.dumps(CONFIG))
        plugin.stdin.close()
        end = time.monotonic() + PATIENCE
        while not children(plugin.pid):
            assert plugin.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        plugin.kill()
        plugin.wait()
        answer = host.refused("ADD", CONFIG)
        assert answer.code == 5 and "libnftables did not load the table within 10 s" in answer.words
        other.delete(CONFIG)
        for place in (host, other):
            place.delete(CONFIG)
            assert place.state_files() == [] and place.elements() == {} and len(place.links()) == 1
    finally:
        other.close()


def crash_by_json(host: Host) -> bool:
    """Whether the installed nft dies of it."""
    done = host.call("nft", "-j", "-f", "-", input=CONCATENATED)
    assert done.returncode == 0, done.stderr
    return host.call("nft", FATAL_RULE).returncode in (-11, 139)


def crash_by_newer_set(host: Host) -> bool:
    """The same of a set as a newer nft makes it, in a container image on the host's network for example."""

    def message(kind: int, flags: int, family: int, number: int, *attributes: bytes) -> bytes:
        body = struct.pack("=BBH", family, 0, socket.htons(10) if kind in (BATCH_BEGIN, BATCH_END) else 0)
        body += b"".join(attributes)
        return struct.pack("=IHHII", 16 + len(body), kind, flags, number, 0) + body

    def attribute(kind: int, data: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)

    create = 0x401  # NLM_F_REQUEST, NLM_F_CREATE
    number = [attribute(kind, struct.pack("!I", value)) for kind, value in ((3, 0), (4, 7), (5, 4), (10, 1))]
    batch = (
        message(BATCH_BEGIN, 1, 0, 1),
        message(NEWTABLE, create, socket.AF_INET, 2, attribute(1, b"other\0")),
        message(
            *(NEWSET, create | 4, socket.AF_INET, 3, attribute(1, b"other\0"), attribute(2, b"s\0")),
            *(*number, attribute(13, NEWER_USERDATA)),
        ),
        message(BATCH_END, 1, 0, 4),
    )
    with host.entered():
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    with netlink:
        netlink.send(b"".join(batch))
        length, kind, _flags, _number, _port, error = struct.unpack_from("=IHHIIi", netlink.recv(4096))
        assert (length, kind, error) == (36, 2, 0), f"the kernel's answer: {os.strerror(-error)}"
    return host.call("nft", "list", "ruleset").returncode in (-11, 139)


@pytest.mark.parametrize("table", ["fresh", "standing"])
@pytest.mark.parametrize("make", [crash_by_json, crash_by_newer_set])
def test_beside_a_ruleset_that_crashes_nft(
    host: Host, tally: Counter[str], make: Callable[[Host], bool], table: str
) -> None:
    """Whatever the installed nft makes of it, the answer is one, and only a table that is missing may be refused."""
    host.container("c1")
    if table == "standing":
        host.add(CONFIG)
        host.delete(CONFIG)
    before = [host.links(), host.addresses("lo"), host.routes(), host.state_files()]
    crashes = make(host)
    assert crashes or "v1.0.6" not in host.run("nft", "--version"), "this version is known to"
    tally["injected"] += 1
    answer = host.cni("ADD", CONFIG)
    if crashes and make is crash_by_newer_set and table == "fresh":
        assert answer.code == 5 and "libnftables was killed by signal 11" in answer.words, answer.stdout
    else:
        assert answer.status == 0, answer.stdout + answer.stderr
        check = host.cni("CHECK", {**CONFIG, "prevResult": answer.document})
        assert check.status == 0, check.words
    host.delete(CONFIG)
    assert [host.links(), host.addresses("lo"), host.routes(), host.state_files()] == before
