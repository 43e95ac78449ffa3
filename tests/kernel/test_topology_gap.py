"""After the table was missing: flows that began meanwhile are judged and translated again, and no others forgotten."""

from __future__ import annotations

import contextlib
import re
import socket

import pytest
from support.scratch import Host, network, port
from support.traffic import QUICK, Server, ask_on, open_socket, serving

NET = ("10.88.0.0/24", "fd00:88::/64")
WAYS = ["repair", "add"]


def say(sock: socket.socket) -> str:
    sock.settimeout(QUICK)
    try:
        sock.send(b"?")
        return sock.recv(2048).decode()
    except OSError:
        return "silence"


def to_the_host(host: Host) -> list[str]:
    """By the kernel's ID: the same entries, not others like them."""
    return re.findall(r"id=\d+", host.run("conntrack", "-L", "-p", "udp", "--orig-port-dst", "5301", "-o", "id"))


def mend(host: Host, way: str) -> None:
    if way == "repair":
        assert host.command("repair").returncode == 0
    else:
        host.add(network("other", "10.90.0.0/24"), "other")


@pytest.mark.parametrize("way", WAYS)
def test_flows_of_the_gap_work_again(host: Host, way: str) -> None:
    """moby#8795: who sends without a pause was never translated again. A tracker of somebody else's keeps the flows."""
    lan = host.neighbour()
    host.add(network("net0", *NET, ports=[port(5300, 53, "udp")]), "a")
    host.nft("table inet tracker { chain c { type filter hook prerouting priority 0; ct state new counter; }; }")
    inside = host.place("a")
    servers = serving(Server(lan, 53, "udp"), Server(inside, 53, "udp"), Server(host, 5301, "udp"))
    with servers, contextlib.ExitStack() as stack:
        places = (inside, lan, lan, inside)
        socks = [stack.enter_context(open_socket(place, socket.AF_INET, "udp")) for place in places]
        out, into, to_host, kept = socks
        assert ask_on(kept, "198.51.100.2", 53) == "lan 198.51.100.1"
        assert ask_on(to_host, "198.51.100.1", 5301) == "host 198.51.100.2"
        host.run("nft", "delete", "table", "inet", "nftcni")
        ask_on(out, "198.51.100.2", 53, 0.3)
        ask_on(into, "198.51.100.1", 5300, 0.3)
        unrelated = to_the_host(host)
        mend(host, way)
        assert say(out) == "lan 198.51.100.1"
        into.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        assert say(into) == "a 198.51.100.2"
        assert say(kept) == "lan 198.51.100.1" and say(to_host) == "host 198.51.100.2"
        assert to_the_host(host) == unrelated


@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_published_ends_with_the_gap(host: Host, way: str) -> None:
    """Its packets are judged one by one: what is established is no way in."""
    lan = host.neighbour()
    lan.run("ip", "route", "add", "10.88.0.0/24", "via", "198.51.100.1")
    host.add(network("net0", *NET), "a")
    with Server(host.place("a"), 53, "udp"), open_socket(lan, socket.AF_INET, "udp") as sock:
        host.run("nft", "delete", "table", "inet", "nftcni")
        host.nft("table inet tracker { chain c { type filter hook prerouting priority 0; ct state new counter; }; }")
        assert ask_on(sock, "10.88.0.2", 53) == "a 198.51.100.2"
        mend(host, way)
        assert say(sock) == "silence"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", [4, 6])
def test_addresses_that_nobody_told_us_get_out_again(host: Host, way: str, version: int) -> None:
    """One that keepalived gave a container: what it said in the gap went out as it was, and would for ever. What stays
    on the host or is never masqueraded is not forgotten."""
    lan, far = host.neighbour(), host.neighbour("far", 2)
    keys = {"nonMasqueradeCIDRs": ["198.51.101.0/24", "2001:db8:101::/64"]}
    for subnet, gateway in zip(NET, ("198.51.101.1", "2001:db8:101::1")):
        far.run("ip", "route", "add", subnet, "via", gateway)
    host.add(network("net0", *NET, **keys), "a")
    host.add(network("net1", "10.89.0.0/24", "fd00:89::/64", isolation=False), "b")
    host.nft("table inet tracker { chain c { type filter hook prerouting priority 0; ct state new counter; }; }")
    own, out, direct, sibling, seen = {
        4: ("10.88.0.100/24", "198.51.100.2", "198.51.101.2", "10.89.0.2", "198.51.100.1"),
        6: ("fd00:88::100/64", "2001:db8:100::2", "2001:db8:101::2", "fd00:89::2", "2001:db8:100::1"),
    }[version]
    host.place("a").run("ip", "addr", "add", own, "dev", "eth0", *(["nodad"] if version == 6 else []))
    address = own.partition("/")[0]
    servers = serving(*(Server(place, 53, "udp") for place in (lan, far, host.place("b"))))
    with servers, contextlib.ExitStack() as stack:
        host.run("nft", "delete", "table", "inet", "nftcni")
        socks = []
        for target in (out, direct, sibling):
            sock = stack.enter_context(
                open_socket(host.place("a"), socket.AF_INET6 if version == 6 else socket.AF_INET, "udp")
            )
            sock.bind((address, 0))
            ask_on(sock, target, 53, 0.3)
            socks.append(sock)

        def others() -> list[str]:
            listed = host.run("conntrack", "-L", "-f", f"ipv{version}", "-p", "udp", "-s", address, "-o", "id")
            return sorted(
                re.findall(r"id=\d+", "".join(line for line in listed.splitlines() if f"dst={out} " not in line))
            )

        kept = others()
        assert len(kept) == 2
        mend(host, way)
        assert others() == kept
        assert [say(sock) for sock in socks] == [f"lan {seen}", f"far {address}", f"b {address}"]
