"""UDP flows that the connection tracker remembers: what is from before ADD or outlives DEL must not be followed.

The oracle is conntrack's own table (`conntrack -L`) and who answers the next packet of a socket that is kept. Flows
that have nothing to do with the ports must stay the entries they were, by the kernel's ID.
"""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from support.scratch import PLUGIN, Host, Namespace, network, port
from support.traffic import QUICK, Server, ask, ask_on, open_socket, serving

from cni.kernel import tracker

NET = ("10.88.0.0/24", "fd00:88::/64")
HOST = {socket.AF_INET: "198.51.100.1", socket.AF_INET6: "2001:db8:100::1"}
LAN = {socket.AF_INET: "198.51.100.2", socket.AF_INET6: "2001:db8:100::2"}
MANY = 3000  # flows; some 160 of them fill a datagram
FAMILIES = [pytest.param(socket.AF_INET, id="v4"), pytest.param(socket.AF_INET6, id="v6")]


def entries(host: Host, number: int, family: int = socket.AF_INET) -> dict[str, str]:
    """The UDP flows whose first packet went to the port: the kernel's ID of each, and its two directions."""
    name = "ipv6" if family == socket.AF_INET6 else "ipv4"
    listed = host.run("conntrack", "-L", "-f", name, "-p", "udp", "--orig-port-dst", str(number), "-o", "id")
    lines = [line for line in listed.splitlines() if line.strip()]
    found = {re.findall(r"\bid=(\d+)", line)[0]: " ".join(re.findall(r"\w+=[\w.:]+", line)) for line in lines}
    assert len(found) == len(lines)
    return found


def say(sock: socket.socket) -> str:
    """One more packet of a flow that exists, and its answer."""
    sock.settimeout(QUICK)
    try:
        sock.send(b"?")
        return sock.recv(2048).decode()
    except OSError:
        return "silence"


def track(host: Host) -> None:
    """Connections are tracked from before the plugin's first ADD, as on a host that has a firewall."""
    host.nft("table inet tracker { chain c { type filter hook prerouting priority 0; ct state new counter; }; }")
    host.nft("table inet tracker { chain o { type filter hook output priority 0; ct state new counter; }; }")


@pytest.fixture
def lan(host: Host) -> Namespace:
    track(host)
    made = host.neighbour()
    for address in HOST.values():  # a cable that has just been plugged in may lose its first packet
        assert ask(made, address, 9, timeout=3) == "refused"
    return made


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("served", [True, False], ids=["answered", "unanswered"])
def test_a_flow_from_before_add_reaches_the_container_after_it(
    host: Host, lan: Namespace, family: socket.AddressFamily, served: bool
) -> None:
    """A client that keeps sending from one port: first somebody on the host answered it, or nobody did."""
    with open_socket(lan, family, "udp") as sock:
        with contextlib.ExitStack() as stack:
            if served:
                stack.enter_context(Server(host, 5300, "udp"))
            first = ask_on(sock, HOST[family], 5300)
            assert first.startswith("host ") is served
        (old,) = entries(host, 5300, family)
        host.add(network("net0", *NET, ports=[port(5300, 53, "udp")]))
        assert old not in entries(host, 5300, family)
        with Server(host.place("c1"), 53, "udp"):
            assert say(sock) == f"c1 {LAN[family]}"


def test_the_hosts_own_flow_from_before_add_reaches_the_container_after_it(host: Host, lan: Namespace) -> None:
    with open_socket(host, socket.AF_INET, "udp") as sock:
        with Server(host, 5300, "udp"):
            assert ask_on(sock, HOST[socket.AF_INET], 5300).startswith("host ")
        host.add(network("net0", *NET, ports=[port(5300, 53, "udp")]))
        with Server(host.place("c1"), 53, "udp"):
            assert say(sock) == "c1 198.51.100.1"


@pytest.mark.parametrize("family", FAMILIES)
def test_flows_that_outlive_del_are_gone(host: Host, lan: Namespace, family: socket.AddressFamily) -> None:
    """And the next holder of the port gets the packets of a client that never stopped sending."""
    config = network("net0", *NET, ports=[port(5300, 53, "udp")])
    host.add(config)
    with open_socket(lan, family, "udp") as sock:
        with Server(host.place("c1"), 53, "udp"):
            assert ask_on(sock, HOST[family], 5300) == f"c1 {LAN[family]}"
            assert len(entries(host, 5300, family)) == 1
            host.delete(config, netns="")
        assert entries(host, 5300, family) == {}
        host.add(config, "c2")
        with Server(host.place("c2"), 53, "udp"):
            assert say(sock) == f"c2 {LAN[family]}"


def test_many_ports_and_clients_in_one_go(host: Host, lan: Namespace) -> None:
    """Sixty ports with a flow each from the LAN, and unrelated ones among them."""
    ports: list[Any] = [port(6000 + number, 53, "udp") for number in range(60)]
    config = network("net0", *NET, ports=ports)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(open_socket(lan, socket.AF_INET, "udp")) for _ in ports]
        for number, sock in enumerate(socks):
            sock.connect((HOST[socket.AF_INET], 6000 + number))
            sock.send(b"?")
        assert all(len(entries(host, number)) == 1 for number in (6000, 6030, 6059))
        host.add(config)
        assert [len(entries(host, 6000 + number)) for number in (0, 30, 59)] == [0, 0, 0]
        with Server(host.place("c1"), 53, "udp"):
            for sock in socks:
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # forgets that the first packet was refused
            assert {say(sock) for sock in socks} == {"c1 198.51.100.2"}
        host.delete(config)
        left = host.run("conntrack", "-L", "-p", "udp")
        assert not [line for line in left.splitlines() if re.search(r"dport=60[0-5]\d", line)]


@pytest.mark.parametrize("family", FAMILIES)
def test_among_thousands_of_flows_just_those_meant_go(host: Host, lan: Namespace, family: socket.AddressFamily) -> None:
    """Thousands come in many datagrams, of which most have no flow that is meant: they are not taken apart."""
    config = network("net0", *NET, ports=[port(5300, 53, "udp")])
    host.add(network("net0", *NET), "other")  # an ADD that makes the table looks at all flows
    with contextlib.ExitStack() as stack:
        early, late = (stack.enter_context(open_socket(lan, family, "udp")) for _ in range(2))
        ask_on(early, HOST[family], 5300)
        many_flows(lan, family)
        ask_on(late, HOST[family], 5300)
        before = everything(host, family)
        assert len(before) > MANY and len(entries(host, 5300, family)) == 2
        host.add(config)
        assert entries(host, 5300, family) == {} and len(everything(host, family)) == len(before) - 2
        with Server(host.place("c1"), 53, "udp"):
            assert [say(sock) for sock in (early, late)] == [f"c1 {LAN[family]}"] * 2
        host.delete(config)
    assert entries(host, 5300, family) == {} and len(everything(host, family)) == len(before) - 2


def many_flows(place: Namespace, family: socket.AddressFamily) -> None:
    with place.entered():
        sock = socket.socket(family, socket.SOCK_DGRAM)
    with sock:
        for number in range(MANY):
            with contextlib.suppress(ConnectionRefusedError):
                sock.sendto(b"x", (HOST[family], 10000 + number))


def everything(host: Host, family: socket.AddressFamily) -> list[str]:
    name = "ipv6" if family == socket.AF_INET6 else "ipv4"
    return host.run("conntrack", "-L", "-f", name, "-p", "udp").splitlines()


def test_unrelated_flows_survive_add_and_del(host: Host, lan: Namespace) -> None:
    """Not one of these is a flow to the published port of the host; each must stay the same entry of the tracker.

    In turn: another port of the host; that port of the far machine, passing through; that port of the neighbour, asked
    by the host; a sibling's published port; that port of the far machine asked by a container behind masquerade.
    """
    far = host.neighbour("far", 2)
    lan.run("ip", "route", "add", "198.51.101.0/24", "via", HOST[socket.AF_INET])
    far.run("ip", "route", "add", "198.51.100.0/24", "via", "198.51.101.1")
    host.set_sysctl("ipv4/ip_forward", "1")
    host.add(network("net0", *NET, ports=[port(5400, 53, "udp")]), "other")
    other = host.place("other")
    flows = [
        (lan, HOST[socket.AF_INET], 5301, "host"),
        (lan, "198.51.101.2", 5300, "far"),
        (host, LAN[socket.AF_INET], 5300, "lan"),
        (lan, HOST[socket.AF_INET], 5400, "other"),
        (other, "198.51.101.2", 5300, "far"),
    ]
    servers = [Server(host, 5301, "udp"), Server(far, 5300, "udp"), Server(lan, 5300, "udp"), Server(other, 53, "udp")]
    with contextlib.ExitStack() as stack:
        stack.enter_context(serving(*servers))
        for asker, address, number, name in flows:
            sock = stack.enter_context(open_socket(asker, socket.AF_INET, "udp"))
            assert ask_on(sock, address, number).startswith(name + " ")
        before = {number: entries(host, number) for number in (5300, 5301, 5400)}
        assert [len(found) for found in before.values()] == [3, 1, 1]
        config = network("net0", *NET, ports=[port(5300, 53, "udp")])
        for change in (host.add, host.delete):
            change(config, "c1")
            assert {number: entries(host, number) for number in before} == before, change.__name__


@pytest.mark.parametrize(("host_ip", "gone"), [("198.51.100.1", True), ("203.0.113.1", False), ("127.0.0.1", False)])
def test_a_specific_address_concerns_its_own_flows_only(host: Host, lan: Namespace, host_ip: str, gone: bool) -> None:
    host.run("ip", "addr", "add", "203.0.113.1/32", "dev", "lo")
    with open_socket(lan, socket.AF_INET, "udp") as sock, Server(host, 5300, "udp"):
        assert ask_on(sock, HOST[socket.AF_INET], 5300).startswith("host ")
        before = entries(host, 5300)
        host.add(network("net0", *NET, ports=[port(5300, 53, "udp", host_ip)], allowBoundPorts=True))
        assert entries(host, 5300) == ({} if gone else before)


def test_tcp_connections_of_the_host_survive(host: Host, lan: Namespace) -> None:
    """Publishing a TCP port does not cut who is connected to the host's own service of that number."""
    with Server(host, 9000, "tcp"), open_socket(lan, socket.AF_INET, "tcp") as sock:
        sock.settimeout(QUICK)
        sock.connect((HOST[socket.AF_INET], 9000))
        host.add(network("net0", *NET, ports=[port(9000, 80), port(9000, 80, "udp")], allowBoundPorts=True))
        assert sock.recv(100) == b"host 198.51.100.2"
    with Server(host.place("c1"), 80):
        assert ask(lan, HOST[socket.AF_INET], 9000) == "c1 198.51.100.2"


def insert(host: Host, protocol: str, number: int) -> None:
    words = ["-p", protocol, "-t", "600", "-s", "192.0.2.9", "-d", "192.0.2.1", "--sport", str(number), "--dport", "53"]
    host.run("conntrack", "-I", *words, *(["--state", "ESTABLISHED"] if protocol == "tcp" else []))


@pytest.mark.parametrize(
    ("flows", "listed"),
    [
        ({"tcp": 3}, False),
        ({"tcp": 3, "udp": 1}, True),
        ({"tcp": 101}, True),  # reading so many takes longer than a listing
    ],
)
def test_the_tracker_is_listed_only_where_a_udp_flow_may_be(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flows: dict[str, int], listed: bool
) -> None:
    """A listing takes 10 ms, all of them under the lock. Without the text in /proc there is always one."""
    track(host)
    host.add(network("net0", ports=[port(8080, 80)]), "other")
    host.run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
    host.run("conntrack", "-F")
    for protocol, count in flows.items():
        for number in range(count):
            insert(host, protocol, 1000 + number)
    host.container("c1")
    wrapper = tmp_path / "nftcni"
    wrapper.write_text(f"#!/bin/sh\nexec strace -qq -o /run/log -e trace=sendto {PLUGIN}\n")
    wrapper.chmod(0o755)
    answer = host.cni("ADD", network("net0", ports=[port(53, 53, "udp")]), plugin=str(wrapper))
    assert answer.status == 0, answer.stdout
    assert ("IPCTNL_MSG_CT_GET" in host.file("/run/log").read_text()) is listed
    assert not entries(host, 53)
    monkeypatch.setattr(tracker, "FLOWS", "/proc/thread-self/net/nonexistent")
    with host.entered():
        assert tracker.may_have_udp()
