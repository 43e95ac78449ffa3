"""A host port that a process of the host listens on is refused, unless that is a runtime's reserver. The oracle is
bind(2): what would refuse a socket there refuses a container.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scratch import PLUGIN, Answer, Host, Json, network, port
from support.traffic import Server, ask

DUAL = ("10.88.0.0/24", "fd00:88::/64")
HERE, OTHER, HERE6 = "198.51.100.1", "198.51.100.7", "2001:db8:100::1"
NUMBER = 8080
KINDS = {"tcp": (socket.SOCK_STREAM, 0), "udp": (socket.SOCK_DGRAM, 0), "sctp": (socket.SOCK_STREAM, 132)}
# What listens: address, and whether IPv6 alone
BOUND = [
    ("0.0.0.0", True),
    ("127.0.0.53", True),
    (HERE, True),
    ("::", True),
    ("::", False),
    ("::1", True),
    (HERE6, True),
    (f"::ffff:{HERE}", False),
]
ASKED = ["0.0.0.0", HERE, OTHER, "::", HERE6]


@contextlib.contextmanager
def bound(host: Host, address: str, alone: bool, protocol: str = "tcp", number: int = NUMBER) -> Iterator[None]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind, proto = KINDS[protocol]
    with host.entered():
        try:
            made = socket.socket(family, kind, proto)
        except OSError as error:
            if error.errno == errno.EPROTONOSUPPORT:
                pytest.skip(f"NOT RUN: this kernel has no {protocol}")
            raise
    with made:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, alone)
        made.bind((address, number))
        if protocol != "udp":
            made.listen()
        yield


def would_bind(host: Host, address: str, protocol: str) -> bool:
    try:
        with bound(host, address, True, protocol):
            return True
    except OSError as error:
        assert error.errno == errno.EADDRINUSE
        return False


def with_port(protocol: str = "tcp", ip: str = "", number: int = NUMBER, **keys: Json) -> Json:
    return network("net0", *DUAL, ports=[port(number, 80, protocol, ip)], **keys)


@pytest.fixture
def wired(host: Host) -> Host:
    host.neighbour()
    host.run("ip", "addr", "add", f"{OTHER}/24", "dev", "to-lan")
    host.container("c1")
    return host


@pytest.mark.parametrize("protocol", KINDS)
@pytest.mark.parametrize(("address", "alone"), BOUND)
def test_as_bind_would_have_it(wired: Host, protocol: str, address: str, alone: bool) -> None:
    with bound(wired, address, alone, protocol):
        for asked in ASKED:
            answer = wired.cni("ADD", with_port(protocol, asked))
            assert (answer.status == 0) == would_bind(wired, asked, protocol), f"{asked}: {answer.words}"
            if answer.status:
                assert answer.code == 100 and f"{NUMBER}/{protocol}" in answer.words
            wired.delete(with_port(protocol, asked))


def test_the_listener_is_named(wired: Host, tmp_path: Path) -> None:
    program = tmp_path / "webserver"
    shutil.copy("/usr/bin/python3", program)
    code = f"import socket; s = socket.create_server(('127.0.0.1', {NUMBER})); print(1, flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with wired.popen(str(program), "-IS", "-c", code, **pipes) as process:
        assert process.stdout is not None
        process.stdout.readline()
        answer = wired.refused("ADD", with_port())
        assert answer.code == 100
        assert "webserver" in answer.words and f"PID {process.pid}" in answer.words, answer.words
        assert f"127.0.0.1:{NUMBER}/tcp" in answer.words and "allowBoundPorts" in answer.words
        process.communicate("\n")
    assert wired.cni("ADD", with_port()).status == 0


def test_it_may_be_overridden(wired: Host) -> None:
    config = with_port(allowBoundPorts=True)
    with bound(wired, "0.0.0.0", True):
        wired.add(config, netns="/run/netns/c1")
        with Server(wired.place("c1"), 80):
            assert ask(wired, "127.0.0.1", NUMBER) == "c1 10.88.0.1"
        wired.delete(config)
    assert wired.cni("ADD", with_port(allowBoundPorts="yes")).code == 7


def test_who_came_later_stops_nobody(wired: Host) -> None:
    """The same ADD again, CHECK, repair and DEL: the container had the port first."""
    result = wired.add(with_port(), netns="/run/netns/c1")
    with bound(wired, "0.0.0.0", True):
        assert wired.add(with_port(), netns="/run/netns/c1") == result
        assert wired.cni("CHECK", {**with_port(), "prevResult": result}).words == ""
        wired.nft("flush ruleset")
        assert wired.command("repair").returncode == 0
        wired.delete(with_port())


def test_another_port_or_namespace_is_none_of_ours(wired: Host) -> None:
    inside = wired.container("elsewhere")
    with inside.entered():
        there = socket.create_server(("0.0.0.0", NUMBER))
    with there, bound(wired, "0.0.0.0", True, number=NUMBER + 1), bound(wired, "0.0.0.0", True, "udp"):
        assert wired.cni("ADD", with_port()).status == 0


def test_of_many_ports_one_is_refused(wired: Host) -> None:
    ports = [port(number, 80) for number in range(7000, 7300)]
    with bound(wired, "127.0.0.1", True, number=7123):
        answer = wired.refused("ADD", network("net0", *DUAL, ports=ports))
        assert answer.code == 100 and "7123/tcp" in answer.words
        assert (
            wired.cni("ADD", network("net0", *DUAL, ports=[item for item in ports if item["HostPort"] != 7123])).status
            == 0
        )


def test_addresses_of_a_foreign_plugin(wired: Host, tmp_path: Path) -> None:
    script = tmp_path / "leaser"
    script.write_text('#!/bin/sh\n[ $CNI_COMMAND = DEL ] || echo \'{"ips": [{"address": "10.88.0.9/24"}]}\'\n')
    script.chmod(0o755)
    config = network("net0", ipam={"type": "leaser"}, ports=[port(NUMBER, 80)])
    with bound(wired, "127.0.0.1", True):
        assert wired.refused("ADD", config, env={"CNI_PATH": str(tmp_path)}).code == 100


# Runtimes' own reservers


@pytest.mark.parametrize(
    ("program", "words"),
    [("sleep", ["infinity"]), ("conmon", ["60"]), ("rootlessport", ["60"]), ("rootlesskit", ["60"])],
)
def test_a_reserver_is_in_nobodys_way(wired: Host, tmp_path: Path, program: str, words: list[str]) -> None:
    """Each is a process that inherited the socket from its runtime, which may still hold it: this test, here."""
    shutil.copy(shutil.which("sleep") or "", tmp_path / program)
    with wired.entered():
        kept = socket.create_server(("0.0.0.0", NUMBER))
    with kept, wired.popen(str(tmp_path / program), *words, pass_fds=(kept.fileno(),)) as process:
        try:
            wired.add(with_port(ip="0.0.0.0"), netns="/run/netns/c1")
            wired.delete(with_port())
        finally:
            process.kill()


def test_a_sleep_that_ends_is_no_reserver(wired: Host, tmp_path: Path) -> None:
    with wired.entered():
        kept = socket.create_server(("0.0.0.0", NUMBER))
    with wired.popen("sleep", "60", pass_fds=(kept.fileno(),)) as process:
        kept.close()
        try:
            answer = wired.refused("ADD", with_port())
            assert f"sleep (PID {process.pid})" in answer.words
        finally:
            process.kill()


# Questions


def questions(host: Host, config: Json) -> int:
    """What an ADD asks sock_diag."""
    host.file("/run/conf").write_text(json.dumps(config))
    variables = {
        **{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1"},
        **{"CNI_IFNAME": "eth0", "CNI_PATH": "/x"},
    }
    words = f"exec strace -yy -qq -o /run/log -e trace=sendto {PLUGIN} </run/conf"
    done = host.call("sh", "-c", words, env=variables)
    assert done.returncode == 0, done.stdout
    host.delete(config)
    return sum("<NETLINK:[SOCK_DIAG" in line for line in host.file("/run/log").read_text().splitlines())


def test_one_question_for_a_port_and_none_without(wired: Host) -> None:
    assert questions(wired, network("net0", *DUAL)) == 0
    assert questions(wired, with_port()) == 1
    assert questions(wired, with_port(allowBoundPorts=True)) == 0
    assert questions(wired, network("net0", *DUAL, ports=[port(number, 80) for number in range(7000, 7050)])) == 1


def test_a_kernel_that_cannot_tell(wired: Host) -> None:
    """Without sock_diag nobody is known, and nobody refused."""
    wrapper = wired.file("/run/without")
    inject = "inject=socket:error=EPROTONOSUPPORT:when=3+"
    wrapper.write_text(f'#!/bin/sh\nexec strace -qq -o /run/log -e trace=socket -e {inject} {PLUGIN} "$@"\n')
    wrapper.chmod(0o755)
    wired.add(network("net0", *DUAL), "first")
    answer = wired.cni("ADD", with_port(), plugin="/run/without")
    assert "DIAG" in wired.file("/run/log").read_text()
    assert answer.status == 0 or "EPROTONOSUPPORT" in answer.words  # the container's own socket is one as well


# Host addresses


@pytest.mark.parametrize("ip", ["224.0.0.1", "ff02::1", "fe80::1234", "255.255.255.255"])
def test_addresses_that_no_port_can_have(wired: Host, ip: str) -> None:
    answer = wired.refused("ADD", with_port(ip=ip))
    assert answer.code == 7 and "hostIP" in answer.words and ip in answer.words


@pytest.mark.parametrize("ip", ["192.0.2.77", "2001:db8:9::9"])
def test_an_address_that_is_nobodys_is_said(wired: Host, ip: str) -> None:
    """It may come later: keepalived moves one from host to host. The port answers then."""
    answer: Answer = wired.cni("ADD", with_port(ip=ip))
    assert answer.status == 0 and ip in answer.stderr and "hostIP" in answer.stderr
    wired.run("ip", "addr", "add", ip, "dev", "lo")
    with Server(wired.place("c1"), 80):
        assert ask(wired, ip, NUMBER).startswith("c1 ")
    wired.delete(with_port(ip=ip))
    assert wired.cni("ADD", with_port(ip=ip)).stderr == ""
