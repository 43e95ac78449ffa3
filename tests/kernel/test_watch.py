"""`nftcni watch`: a flush is mended within a moment, a deletion on purpose is left alone, and both are said."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

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

    def wait_for(self, words: str) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.log.exists() and words in self.log.read_text():
                return
            time.sleep(0.01)
        raise AssertionError(f"{words!r} was never said:\n{self.log.read_text()}")

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=PATIENCE)


@pytest.fixture
def watched(host: Host) -> Iterator[Watch]:
    host.add(CONFIG)
    watch = Watch(host)
    yield watch
    if watch.process.poll() is None:
        watch.stop()


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


def test_a_saved_ruleset_with_a_table_of_before_is_mended(host: Host) -> None:
    """`nft list ruleset >/etc/nftables.conf` and a restart of the firewall once other containers run."""
    host.add(CONFIG, "old")
    host.file("/run/saved.nft").write_text("flush ruleset\n" + host.run("nft", "list", "ruleset"))
    host.delete(CONFIG, "old")
    host.add(CONFIG, "new")
    before = host.elements()
    watch = Watch(host)
    host.run("nft", "-f", "/run/saved.nft")
    watch.wait_for("a table inet nftcni of before was loaded")
    watch.wait_for("0 problems remain")
    assert host.elements() == before
    time.sleep(STILL)
    assert watch.log.read_text().count("restored the table") == 1, "its own rebuild is no reason for another"
    watch.stop()


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
    watch = Watch(host)
    watch.wait_for("restored the table")
    assert not missing(host)
    watch.stop()


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
    watch = Watch(host)
    host.nft("flush ruleset")
    time.sleep(STILL)
    assert "restored" not in watch.log.read_text()
    watch.stop()


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
