"""One line for each verb in the journal, or in syslog: what, for whom, how long, refused with its message.

The socket is a test's own: what arrives there is what a journal would keep.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scratch import PLUGIN, Host, network, port

CONFIG = network("net0", "10.88.0.0/24", ports=[port(8080, 80)])


@contextlib.contextmanager
def listening(host: Host, path: str) -> Iterator[socket.socket]:
    """In the host's mount namespace."""
    place = host.file(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    home = os.getcwd()
    os.chdir(place.parent)  # a socket's path has at most 108 bytes
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(place.name)
    finally:
        os.chdir(home)
    sock.setblocking(False)
    with sock:
        yield sock


def lines(sock: socket.socket) -> list[str]:
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(sock.recv(4096).decode())
    return found


def test_systemd(host: Host) -> None:
    with listening(host, "/run/systemd/journal/socket") as sock:
        result = host.add(CONFIG)
        (line,) = lines(sock)
        fields = dict(entry.partition("=")[::2] for entry in line.splitlines())
        assert fields["NFTCNI_ATTACHMENT"] == "net0/c1/eth0" and fields["NFTCNI_CODE"] == "0"
        assert fields["MESSAGE"].startswith("ADD net0/c1/eth0 for ") and fields["MESSAGE"].endswith(" ms")
        assert fields["SYSLOG_IDENTIFIER"] == "nftcni" and float(fields["NFTCNI_MS"]) > 0
        host.cni("STATUS", CONFIG)
        host.cni("VERSION", CONFIG)
        assert host.cni("CHECK", {**CONFIG, "prevResult": result}).status == 0
        assert lines(sock) == [], "these are asked all the time"
        host.container("c2")
        refused = host.cni("ADD", CONFIG, "c2")
        (line,) = lines(sock)
        fields = dict(entry.partition("=")[::2] for entry in line.splitlines())
        assert (fields["NFTCNI_CODE"], fields["PRIORITY"]) == ("100", "4")
        assert refused.document["msg"] in fields["MESSAGE"]
        host.cni("ADD", "{", "c2")
        assert "code 6" in lines(sock)[0]
        host.delete(CONFIG)
        assert "NFTCNI_VERB=DEL" in lines(sock)[0]


def test_syslog_where_there_is_no_journal(host: Host) -> None:
    host.run("mount", "-t", "tmpfs", "none", "/dev")
    for name in ("null", "urandom"):
        host.run("mknod", "-m", "666", f"/dev/{name}", "c", "1", {"null": "3", "urandom": "9"}[name])
    with listening(host, "/dev/log") as sock:
        host.add(CONFIG)
        (line,) = lines(sock)
        assert line.startswith("<30>nftcni[") and "ADD net0/c1/eth0" in line


@pytest.mark.parametrize("what", ["full", "nobody", "a file"])
def test_a_journal_that_does_not_take_it(host: Host, what: str) -> None:
    """It costs the line, nothing else: not a moment, not the answer."""
    path = "/run/systemd/journal/socket"
    with listening(host, path) as sock:
        if what == "full":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            with contextlib.suppress(BlockingIOError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
                filler.setblocking(False)
                home = os.getcwd()
                os.chdir(host.file(path).parent)
                try:
                    filler.connect("socket")
                finally:
                    os.chdir(home)
                for _ in range(10000):
                    filler.send(b"x" * 100)
        elif what == "nobody":
            sock.close()
        else:
            host.file(path).unlink()
            host.file(path).write_text("")
        assert host.add(CONFIG)["ips"]
        host.delete(CONFIG)


JOURNALCTL = """#!/bin/sh
echo "$@" >/run/asked
cat <<'END'
{"__REALTIME_TIMESTAMP":"1700000000000000","MESSAGE":"ADD net0/c1/eth0 for containerd in 9.1 ms","NFTCNI_VERB":"ADD",\
"NFTCNI_ATTACHMENT":"net0/c1/eth0","NFTCNI_CALLER":"containerd","NFTCNI_MS":"9.1","NFTCNI_CODE":"0"}
END
"""


@pytest.mark.parametrize("words", [("--since", "today"), ("--json",)])
def test_events_without_a_journal_refuses_what_only_that_can_do(host: Host, words: tuple[str, ...]) -> None:
    """Syslog's lines were printed as if nothing had been asked."""
    host.run("mount", "-t", "tmpfs", "none", "/var/log")
    host.file("/var/log/syslog").write_text("Nov 29 09:00:00 host nftcni[7]: ADD net0/c1/eth0\n")
    assert host.command("events").stdout.endswith("ADD net0/c1/eth0\n")
    done = host.command("events", *words)
    assert done.returncode == 2 and done.stdout == "" and "journal" in done.stderr


def test_events_reads_the_journal(host: Host) -> None:
    program = host.file("/run/bin/journalctl")
    Path(program).parent.mkdir()
    Path(program).write_text(JOURNALCTL)
    Path(program).chmod(0o755)
    host.run("mkdir", "-p", "/run/systemd/journal")
    host.env = {"PATH": "/run/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TZ": "UTC"}
    done = host.command("events", "--since", "1 hour ago")
    assert done.stdout == "2023-11-14 22:13:20  ADD net0/c1/eth0 for containerd in 9.1 ms\n"
    assert "--since 1 hour ago" in host.file("/run/asked").read_text()
    assert '"ms": 9.1' in host.command("events", "--json").stdout


def test_follow_tells_changes_of_the_table(host: Host) -> None:
    """On a host without a journal, too."""
    host.run("mount", "-t", "tmpfs", "none", "/var/log")
    host.add(CONFIG)
    with host.popen(PLUGIN, "events", "--follow", stdout=subprocess.PIPE) as events:
        try:
            assert events.stdout is not None
            for _ in range(100):  # nft does not say when it listens
                host.nft('add element inet nftcni bridges { "br-x" }; delete element inet nftcni bridges { "br-x" }')
                if select.select([events.stdout], [], [], 0.1)[0]:
                    break
            assert "table: add element inet nftcni bridges" in events.stdout.readline()
        finally:
            events.terminate()
