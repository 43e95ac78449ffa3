"""`nftcni watch`: a flush is mended within a moment, a deletion on purpose is left alone, and both are said."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scratch import PLUGIN, Host, network, port
from support.traffic import Server, ask

CONFIG = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)])
PATIENCE = 10.0  # seconds until a test gives up; what it takes is a fraction of one
INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of the kernel
STILL = 1.0  # seconds in which nothing must happen


class Watch:
    def __init__(self, host: Host) -> None:
        self.host = host
        self.log = host.file("/run/watch.log")
        self.process = host.popen("sh", "-c", f"exec {PLUGIN} watch > /run/watch.log 2>&1")
        self.wait_for("watching")

    def wait_for(self, words: str, patience: float = PATIENCE) -> None:
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if self.log.exists() and words in self.log.read_text():
                return
            time.sleep(0.01)
        raise AssertionError(f"{words!r} was never said:\n{self.log.read_text()}")

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=PATIENCE)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def watched(host: Host) -> Iterator[Watch]:
    host.add(CONFIG)
    with Watch(host) as watch:
        yield watch


def missing(host: Host) -> bool:
    return host.elements() == {}


@pytest.mark.parametrize("others", [False, True])
def test_a_flush_is_mended(watched: Watch, others: bool) -> None:
    host = watched.host
    if others:
        host.nft("table ip filter {\n chain c {\n }\n}")
    before = host.elements()
    host.nft("flush ruleset")
    watched.wait_for("the table was flushed")
    watched.wait_for("restored the table with 1 attachments, 0 problems remain")
    assert host.elements() == before
    with Server(host.namespaces[0], 80):
        assert ask(host, "127.0.0.1", 8080) == "c1 10.88.0.1"


def test_a_reload_of_the_firewall_is_mended(watched: Watch) -> None:
    """What Debian's nftables.service does: one file that begins with `flush ruleset` and brings its own tables."""
    watched.host.nft("flush ruleset\ntable inet filter {\n chain input {\n type filter hook input priority 0;\n }\n}")
    watched.wait_for("restored the table")
    assert not missing(watched.host)


@pytest.mark.parametrize("first", ["flush ruleset\n", ""], ids=["in its place", "over the table"])
def test_a_saved_ruleset_with_a_table_of_before_is_mended(host: Host, first: str) -> None:
    """`nft list ruleset >/etc/nftables.conf` and a restart of the firewall once other containers run. Without a flush
    in front, no table is new: an old container's elements stayed, and each rule was there twice."""
    host.add(CONFIG, "old")
    host.file("/run/saved.nft").write_text(first + host.run("nft", "list", "ruleset"))
    host.delete(CONFIG, "old")
    host.add(CONFIG if first else {**CONFIG, "runtimeConfig": {}}, "new")  # the kernel refuses a port that is taken
    before = host.elements()
    with Watch(host) as watch:
        host.run("nft", "-f", "/run/saved.nft")
        watch.wait_for("an old table inet nftcni was loaded" if first else "a saved ruleset was loaded over the table")
        watch.wait_for("0 problems remain")
        assert host.elements() == before
        time.sleep(STILL)
        assert watch.log.read_text().count("restored the table") == 1, "its own rebuild is no reason for another"


@pytest.mark.parametrize("others", [False, True])
def test_a_deletion_on_purpose_is_left_alone(watched: Watch, others: bool) -> None:
    if not others and os.stat("/proc/self/ns/pid").st_ino != INITIAL_PID_NAMESPACE:
        pytest.skip("NOT RUN: the kernel tells who deleted a table by a number of the initial PID namespace only")
    host = watched.host
    if others:
        host.nft("table ip filter {\n chain c {\n }\n}")
    host.run("nft", "delete", "table", "inet", "nftcni")
    watched.wait_for("on purpose, left alone")
    time.sleep(STILL)
    assert missing(host)


def test_whoever_flushes_again_and_again_means_it(watched: Watch) -> None:
    host = watched.host
    for number in range(1, 4):
        host.nft("flush ruleset")
        end = time.monotonic() + PATIENCE
        while watched.log.read_text().count("restored the table") < number and time.monotonic() < end:
            time.sleep(0.01)
    host.nft("flush ruleset")
    watched.wait_for("3 times")
    time.sleep(STILL)
    assert missing(host)


def test_a_table_missing_at_the_start_is_made(host: Host) -> None:
    host.add(CONFIG)
    host.nft("flush ruleset")
    with Watch(host) as watch:
        watch.wait_for("restored the table")
        assert not missing(host)


def test_other_tables_do_not_matter(watched: Watch) -> None:
    host = watched.host
    before = host.elements()
    for number in range(20):
        host.nft(f"table ip t{number} {{\n}}")
        host.run("nft", "delete", "table", "ip", f"t{number}")
    time.sleep(STILL)
    assert host.elements() == before
    assert "restored" not in watched.log.read_text()


def test_nothing_attached_is_nothing_to_watch_over(host: Host) -> None:
    host.add(CONFIG)
    host.delete(CONFIG)
    with Watch(host) as watch:
        host.nft("flush ruleset")
        time.sleep(STILL)
        assert "restored" not in watch.log.read_text()


def test_it_ends_when_asked(watched: Watch) -> None:
    assert watched.stop() in (0, -15)


def test_containers_come_and_go_under_it(watched: Watch) -> None:
    host = watched.host
    for number in range(5):
        host.add(network("net0", "10.88.0.0/24", "fd00:88::/64"), f"d{number}")
    host.nft("flush ruleset")
    watched.wait_for("restored the table with 6 attachments")
    for number in range(5):
        host.delete(CONFIG, f"d{number}")
    assert len(host.elements()["attachments"]) == 1
    assert isinstance(watched.process, subprocess.Popen)


@contextlib.contextmanager
def lock_held(host: Host) -> Iterator[None]:
    """As by a verb that takes its time."""
    (folder,) = [path for path in host.file("/run/nftcni").iterdir() if "." in path.name]
    with (folder / "lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def owned_table(host: Host, name: str) -> Iterator[None]:
    """A table that lives and dies with the socket of the program that made it, as firewalld's does."""
    with host.popen("nft", "-i", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as owner:
        assert owner.stdin is not None
        owner.stdin.write(f"add table inet {name} {{ flags owner; }}\n")
        owner.stdin.flush()
        end = time.monotonic() + PATIENCE
        while f"table inet {name}" not in host.run("nft", "list", "tables"):
            assert time.monotonic() < end and owner.poll() is None
            time.sleep(0.01)
        yield


def test_a_table_with_an_owner_is_no_sign_of_a_purpose(host: Host) -> None:
    """No flush can delete it, so that it is left says nothing."""
    host.add(CONFIG)
    before = host.elements()
    with owned_table(host, "firewalld"), Watch(host) as watch:
        host.nft("flush ruleset")
        assert "table inet firewalld" in host.run("nft", "list", "tables")
        watch.wait_for("restored the table with 1 attachments, 0 problems remain")
        assert host.elements() == before


def test_a_table_whose_owner_comes_later_is_no_sign_either(watched: Watch) -> None:
    host = watched.host
    before = host.elements()
    with owned_table(host, "firewalld"):
        host.nft("flush ruleset")
        watched.wait_for("restored the table")
        assert host.elements() == before


def test_a_flush_and_a_load_in_two_transactions_while_somebody_has_the_lock(watched: Watch) -> None:
    """By the time it gets the lock the firewall's own table is back: it was not there when ours was deleted."""
    host = watched.host
    before = host.elements()
    with lock_held(host):
        host.nft("flush ruleset")
        host.nft("table inet filter {\n}")
        time.sleep(0.5)
    watched.wait_for("the table was flushed")
    watched.wait_for("restored the table with 1 attachments")
    assert host.elements() == before


def test_a_deletion_on_purpose_while_somebody_has_the_lock(host: Host) -> None:
    """The other way round: tables that were there before count as they were then, also if they have gone meanwhile."""
    host.add(CONFIG)
    host.nft("table inet filter {\n}")
    with Watch(host) as watch:
        with lock_held(host):
            host.nft("delete table inet nftcni")
            host.nft("delete table inet filter")
            time.sleep(0.5)
        watch.wait_for("on purpose, left alone")
        time.sleep(STILL)
        assert missing(host) and "restored" not in watch.log.read_text()


def test_a_lock_that_is_never_free_does_not_end_it(watched: Watch) -> None:
    """It gives up after 15 s, says so, and tries again."""
    host = watched.host
    before = host.elements()
    with lock_held(host):
        host.nft("flush ruleset")
        watched.wait_for("could not be restored", patience=30)
        assert watched.process.poll() is None
    watched.wait_for("restored the table with 1 attachments")
    assert host.elements() == before
    host.nft("flush ruleset")
    watched.wait_for("restored the table with 1 attachments")


BUSCTL = """#!/bin/sh
case "$*" in
*NameHasOwner*) echo "b true" ;;
*addSource*"$(cat /run/unknown 2>/dev/null || echo none)"*) echo "INVALID_ZONE"; exit 1 ;;
*addSource*) [ ! -e /run/hangs ] || read -r line </run/hangs; echo "$*" >>/run/told ;;
*querySource*) echo "b true" ;;
*removeSource*) echo "$*" >>/run/told ;;
esac
"""


@pytest.fixture
def firewalld(host: Host) -> Iterator[Watch]:
    """A stand-in that begins anew whenever a table `firewalld` is made. c1 is in the zone inside, c2 in trusted."""
    host.run("mkdir", "/run/bin")
    host.file("/run/bin/busctl").write_text(BUSCTL)
    host.file("/run/bin/busctl").chmod(0o755)
    host.env.update(PATH=f"/run/bin:{os.environ['PATH']}", DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nonexistent")
    host.add({**CONFIG, "firewalldZone": "inside"})
    host.add(network("net1", "10.89.0.0/24", backend="firewalld"), "c2")
    host.run("rm", "/run/told")
    with Watch(host) as watch:
        yield watch


def test_nobody_waits_for_a_firewalld_that_hangs(host: Host, firewalld: Watch) -> None:
    """The lock was held for half a minute and more, and no flush was seen meanwhile."""
    host.run("mkfifo", "/run/hangs")
    host.nft("add table inet firewalld")
    with host.file("/run/hangs").open("w") as answers:  # the stand-in reads by now
        host.add(network("net2", "10.90.0.0/24"), "c3")
        host.delete(network("net1", "10.89.0.0/24"), "c2")
        host.run("rm", "/run/told")
        before = host.elements()
        host.nft("delete table inet firewalld\nflush ruleset")
        firewalld.wait_for("restored the table with 2 attachments")
        assert host.elements() == before
        host.run("rm", "/run/hangs")
        answers.write("\n")
    firewalld.wait_for("net0/c1/eth0 is in its zone inside again")
    firewalld.wait_for("net1/c2/eth0 is in its zone trusted again")
    end = time.monotonic() + PATIENCE
    while "removeSource ss trusted 10.89.0.2/32" not in host.file("/run/told").read_text():  # its DEL came first
        assert time.monotonic() < end, host.file("/run/told").read_text()
        time.sleep(0.01)


def test_a_zone_that_is_gone_does_not_keep_the_others_out(host: Host, firewalld: Watch) -> None:
    """Whoever came after it in the list of records was never told."""
    for zone, other in (("inside", "net1/c2/eth0"), ("trusted", "net0/c1/eth0")):
        host.file("/run/unknown").write_text(f"ss {zone}")
        host.nft("add table inet firewalld\ndelete table inet firewalld\nadd table inet firewalld")
        firewalld.wait_for(f"{other} is in its zone")


MANY = 40000  # elements, each an event; a socket has room for a few hundred


def drops(process: int) -> int:
    """Events that the kernel has thrown away for want of room, of the process's nfnetlink sockets (proc(5))."""
    lines = [line.split() for line in Path(f"/proc/{process}/net/netlink").read_text().splitlines()[1:]]
    inodes = set()
    for file in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(file).removeprefix("socket:[").rstrip("]"))
    return sum(int(line[8]) for line in lines if line[1] == "12" and line[9] in inodes)


@contextlib.contextmanager
def deaf(watch: Watch) -> Iterator[None]:
    """It is stopped, and in a burst of changes in another table it has lost count by the time it goes on."""
    watch.process.send_signal(signal.SIGSTOP)
    addresses = ", ".join(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(MANY))
    try:
        watch.host.nft(f"table ip burst {{\n set s {{\n type ipv4_addr;\n elements = {{ {addresses} }}\n }}\n}}")
        assert drops(watch.process.pid) > 0, "there has to be an event too many"
        yield
    finally:
        watch.process.send_signal(signal.SIGCONT)


def test_a_burst_after_a_deletion_on_purpose_changes_nothing(host: Host) -> None:
    """What was left alone is left alone, although the table is missing when it looks around again."""
    host.add(CONFIG)
    host.nft("table inet filter {\n}")
    with Watch(host) as watch:
        host.run("nft", "delete", "table", "inet", "nftcni")
        watch.wait_for("on purpose, left alone")
        with deaf(watch):
            pass
        time.sleep(STILL)
        assert missing(host) and "restored" not in watch.log.read_text() and watch.process.poll() is None
        host.command("repair")
        before = host.elements()
        host.nft("flush ruleset")
        watch.wait_for("restored the table")
        assert host.elements() == before


def test_a_flush_that_is_lost_in_a_burst_is_mended(watched: Watch) -> None:
    host = watched.host
    before = host.elements()
    with deaf(watched):
        host.nft("flush ruleset")
    watched.wait_for("burst")
    watched.wait_for("restored the table with 1 attachments, 0 problems remain")
    assert host.elements() == before
    host.nft("flush ruleset")
    watched.wait_for("the table was flushed")


def test_tables_of_a_burst_are_known_afterwards(watched: Watch) -> None:
    """It counts the tables anew: that ours alone is deleted, and the burst's own stays, was meant."""
    host = watched.host
    with deaf(watched):
        pass
    time.sleep(STILL)
    host.nft("delete table inet nftcni")
    watched.wait_for("nftcni watch: the table was")
    assert "others were left: on purpose, left alone" in watched.log.read_text()
    assert missing(host)
