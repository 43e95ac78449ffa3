"""Many DELs at once: each sets its link down and lets the others go first, then one removes the links of them all.

The test holds the lock while they come, so that all of them wait. Oracles are the kernel's list of links, the table,
and strace for the messages that remove links.
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
from support.crowd import name_of, waits
from support.scratch import PLUGIN, Host, Json, network, port

MANY = 8
PATIENCE = 30.0  # seconds until a test gives up; what it takes is a fraction of one
WITHOUT_LIMIT = ("strace", "-D", "-qq", "-o", "/dev/null", "-e", "inject=setitimer:retval=0")
PTP = network("net0", "10.90.0.0/24", "fd00:90::/64", mode="ptp")
del PTP["bridge"]


def config(index: int) -> Json:
    return network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8000 + index, 80)])


def folder(host: Host) -> Path:
    return next(path for path in host.file("/run/nftcni").iterdir() if "." in path.name)


def start(host: Host, index: int, *before: str, asked: Json = None) -> subprocess.Popen[str]:
    variables = {
        **{"CNI_COMMAND": "DEL", "CNI_CONTAINERID": f"c{index}", "CNI_IFNAME": "eth0"},
        **{"CNI_NETNS": f"/run/netns/c{index}", "CNI_PATH": "/x"},
    }
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = host.popen(*before, PLUGIN, env=variables, **pipes)
    assert process.stdin is not None
    process.stdin.write(json.dumps(asked or config(index)))
    process.stdin.close()
    process.stdin = None
    return process


def all_wait(processes: list[subprocess.Popen[str]], lock: os.stat_result) -> bool:
    return Path("/proc/locks").read_text().count(f"{name_of(lock)} ") >= len(processes) + 1  # and who holds it


def crowd_of(host: Host, count: int) -> list[subprocess.CompletedProcess[str]]:
    """Their DELs, all of which have waited for the lock at the same time."""
    with (folder(host) / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        log = ("strace", "-f", "-qq", "-e", "trace=sendto", "-o")
        running = [start(host, index, *log, f"/run/sent.{index}") for index in range(count)]
        end = time.monotonic() + PATIENCE
        while not all_wait(running, os.fstat(lock.fileno())):
            assert time.monotonic() < end, "they never waited"
            time.sleep(0.01)
    done = []
    for process in running:
        out, err = process.communicate(timeout=PATIENCE)
        done.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return done


def removals(host: Host, count: int) -> int:
    text = "".join(host.file(f"/run/sent.{index}").read_text() for index in range(count))
    return text.count("nlmsg_type=RTM_DELLINK")


@pytest.mark.parametrize("keeper", [True, False], ids=["beside another", "all of the bridge"])
def test_one_wait_of_the_kernel_for_all_of_them(host: Host, keeper: bool) -> None:
    for index in range(MANY):
        host.add(config(index), f"c{index}")
    if keeper:
        kept = host.add(config(99), "keeper")
    for done in crowd_of(host, MANY):
        assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    assert removals(host, MANY) < MANY, "each DEL has removed its own link"
    assert len(host.json("ip", "-j", "link", "show", "type", "veth")) == keeper
    if not keeper:
        assert host.state_files() == [] and host.elements() == {} and host.link("br-net0") is None
        return
    assert {item["elem"]["comment"] for item in host.elements()["attachments"]} == {"net0/keeper/eth0"}
    assert host.cni("CHECK", {**config(99), "prevResult": kept}, "keeper").words == ""
    host.delete(config(99), "keeper")
    assert host.state_files() == [] and host.elements() == {} and host.link("br-net0") is None


@contextlib.contextmanager
def stepped_back(host: Host, asked: Json) -> Iterator[subprocess.Popen[str]]:
    """A DEL of c0 between its two parts: the link is down, the elements have gone, it waits until nobody else waits for
    the lock, as which the test poses."""
    queue = os.open(folder(host), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(queue, fcntl.LOCK_SH)
        process = start(host, 0, *WITHOUT_LIMIT, asked=asked)
        end = time.monotonic() + PATIENCE
        while not waits(os.fstat(queue)):
            assert process.poll() is None and time.monotonic() < end, "it has not stepped back"
            time.sleep(0.002)
        yield process
    finally:
        os.close(queue)


def state_of(host: Host, link: str) -> tuple[bool, str]:
    (found,) = host.json("ip", "-j", "link", "show", link)
    return "UP" in found["flags"], found["group"]


def link_of(result: Json) -> str:
    return str(next(one["name"] for one in result["interfaces"] if one["name"].startswith("veth")))


@pytest.mark.parametrize("asked", [config(0), PTP], ids=["bridge", "ptp"])
@pytest.mark.parametrize("way", ["ADD again", "repair"])
def test_what_is_wanted_again_after_a_kill_does_not_go_with_the_next_one(host: Host, asked: Json, way: str) -> None:
    """The link was in the group that the next DEL removes."""
    result = host.add(asked, "c0")
    other = {**asked, "runtimeConfig": {}}
    host.add(other, "c1")
    with stepped_back(host, asked) as process:
        up, group = state_of(host, link_of(result))
        assert not up and group != "default"
        process.kill()
        process.wait()
    if way == "repair":
        assert host.command("repair").returncode == 0
    else:
        assert host.add(asked, "c0") == result
    assert state_of(host, link_of(result)) == (True, "default")
    host.delete(other, "c1")
    assert host.cni("CHECK", {**asked, "prevResult": result}, "c0").words == ""
    host.delete(asked, "c0")
    assert host.state_files() == [] and host.elements() == {}


@pytest.mark.parametrize("between", ["ADD again", "repair", "GC", "flush", "state lost", "another's DEL"])
def test_whatever_happens_between_its_two_parts(host: Host, between: str) -> None:
    result = host.add(config(0), "c0")
    host.add(config(1), "c1")
    if between == "another's DEL":
        host.add(config(2), "c2")
    with stepped_back(host, config(0)) as process:
        if between == "ADD again":
            assert host.add(config(0), "c0") == result
        elif between == "GC":
            valid = {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
            assert host.cni("GC", {**config(0), **valid}).status == 0
        elif between == "flush":
            host.nft("flush ruleset")
        elif between == "state lost":
            host.run("rm", "-rf", "/run/nftcni")
        elif between == "another's DEL":
            host.delete(config(2), "c2")  # it steps back as well, and waits in vain
        else:
            assert host.command("repair").returncode == 0
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, ""), out + err
    host.command("repair")
    assert host.link(link_of(result)) is None and "net0/c0/eth0" not in str(host.elements())
    for name in ("c1", "c2"):
        host.delete(config(1), name)
    assert host.state_files() == [] and host.elements() == {} and host.link("br-net0") is None
