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
CHANGES = ("flock", "sendto", "write", "rename", "unlink", "rmdir")
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
def queue(host: Host) -> Iterator[os.stat_result]:
    """The test seems to wait for the lock, so that every DEL steps back."""
    file = os.open(folder(host), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield os.fstat(file)
    finally:
        os.close(file)


def wait_until_it_steps_back(process: subprocess.Popen[str], file: os.stat_result) -> None:
    end = time.monotonic() + PATIENCE
    while not waits(file, process.pid):
        assert process.poll() is None and time.monotonic() < end, "it has not stepped back"
        time.sleep(0.002)


@contextlib.contextmanager
def stepped_back(host: Host, asked: Json) -> Iterator[subprocess.Popen[str]]:
    """A DEL of c0 between its two parts: the link is down, the elements have gone, it waits until nobody else waits for
    the lock."""
    with queue(host) as file:
        process = start(host, 0, *WITHOUT_LIMIT, asked=asked)
        wait_until_it_steps_back(process, file)
        yield process


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


def points_of_the_second_part(host: Host) -> list[tuple[str, int]]:
    """The calls by which a DEL that has stepped back changes something, each with its number in the whole DEL."""
    host.add(config(0), "c0")
    with queue(host) as file:
        traced = ("-o", "/run/calls", "-e", "trace=" + ",".join(CHANGES))
        process = start(host, 0, *WITHOUT_LIMIT, *traced)
        wait_until_it_steps_back(process, file)
        before = host.file("/run/calls").read_text()
    assert process.wait(PATIENCE) == 0
    calls = [line.partition("(")[0] for line in host.file("/run/calls").read_text().splitlines()]
    first = len(before.splitlines())
    found = [(call, calls[: at + 1].count(call)) for at, call in enumerate(calls) if at >= first and call in CHANGES]
    assert len(found) > 8, found
    return found


def test_whoever_removes_the_links_of_others_is_killed(host: Host) -> None:
    """The others then remove their own link, or find that it has gone; the killed DEL is repeated."""
    host.add(config(9), "keeper")
    points = points_of_the_second_part(host)
    killed = 0
    for call, number in points:
        results = [host.add(config(index), f"c{index}") for index in range(2)]
        kill = (*WITHOUT_LIMIT, "-e", f"inject={call}:signal=KILL:when={number}")
        with queue(host) as file:
            first = start(host, 0, *kill)
            wait_until_it_steps_back(first, file)
            second = start(host, 1, *WITHOUT_LIMIT)
            wait_until_it_steps_back(second, file)
        first.communicate(timeout=PATIENCE)
        out, err = second.communicate(timeout=PATIENCE)
        assert (second.returncode, out) == (0, ""), f"{call} {number}: {out}{err}"
        killed += first.returncode == -9
        assert host.link(link_of(results[1])) is None and "net0/c1/eth0" not in str(host.elements()), (call, number)
        host.delete(config(0), "c0")
        assert len(host.json("ip", "-j", "link", "show", "type", "veth")) == 1, (call, number)
        assert "c0" not in str(host.elements()) + str(host.state_files()), (call, number)
    assert killed > len(points) / 2, "the other one was always faster"


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
