"""Nodes that know each other's pod networks by static routes, with the network of conf's podcidr.template.

The model is Kubernetes': pods reach pods on other nodes without translation, and what leaves the cluster is masqueraded.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from lan import Lan, seen
from support.scratch import port
from support.traffic import Server, open_socket, serving

IP_MTU_DISCOVER, IP_MTU, IP_PMTUDISC_DO = 10, 14, 2  # include/uapi/linux/in.h

PORTS = (port(8080, 80), port(8080, 80, "tcp", "::"), port(8081, 80, "tcp", "192.0.2.102"))


@pytest.fixture(scope="module")
def cluster(lan: Lan) -> Iterator[Lan]:
    """Pods a and b on the first node, c on the second, whose ports are published."""
    one, two = lan.nodes
    lan.route()
    one.pod(one.pods(), "a")
    one.pod(one.pods(), "b")
    two.pod(two.pods(*PORTS), "c")
    yield lan


A, B, C = ("10.244.1.2", "fd00:244:1::2"), ("10.244.1.3", "fd00:244:1::3"), ("10.244.2.2", "fd00:244:2::2")
H1, H2, OUT = ("192.0.2.101", "2001:db8::101"), ("192.0.2.102", "2001:db8::102"), ("192.0.2.9", "2001:db8::9")
ROWS = {  # what is asked: by whom, address, port, who answers, whom it sees (None: whomever)
    "pod to pod of another node": ("a", C, 80, "c", A),
    "and back": ("c", A, 80, "a", C),
    "pod to sibling": ("a", B, 80, "b", A),
    "pod to the world": ("a", OUT, 81, "outside", H1),
    "node to its pod": ("h1", A, 80, "a", None),
    "node to pod of another node": ("h1", C, 80, "c", H1),
    "the LAN to a pod by a route": ("outside", C, 80, "c", OUT),
    "the LAN to a published port": ("outside", H2, 8080, "c", OUT),
    "node to another node's published port": ("h1", H2, 8080, "c", H1),
    "node to its own published port": ("h2", H2, 8080, "c", None),
    "pod to another node's published port": ("a", H2, 8080, "c", H1),
    "pod to its own published port": ("c", H2, 8080, "c", None),
}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("row", ROWS)
def test_sources(cluster: Lan, row: str, version: int) -> None:
    who, addresses, number, answerer, sources = ROWS[row]
    answer = seen(cluster.place(who), addresses[version == 6], number)
    if sources is None:
        assert answer.split()[0] == answerer
    else:
        assert answer == f"{answerer} {sources[version == 6]}"


def test_a_port_of_one_address(cluster: Lan) -> None:
    assert seen(cluster.outside, H2[0], 8081) == f"c {OUT[0]}"


def test_datagrams(cluster: Lan) -> None:
    with serving(Server(cluster.place("c"), 53, "udp", "names")):
        for version in (0, 1):
            assert seen(cluster.place("a"), C[version], 53, "udp") == f"names {A[version]}"


def test_a_second_network_has_the_same_exceptions(cluster: Lan) -> None:
    """They are shared by a host's networks on one bridge, and kept as long as one of them is there."""
    one = cluster.nodes[0]
    other = one.pods(name="more", bridge="nftcni-more", ipam={"ranges": [[{"subnet": "10.244.7.0/24"}]]})
    cluster.nodes[1].run("ip", "route", "replace", "10.244.7.0/24", "via", one.address)
    extra = one.pod(other, "x")
    assert seen(extra, C[0]) == "c 10.244.7.2"
    one.remove(other, "x")
    assert seen(cluster.place("a"), C[0]) == f"c {A[0]}"


def test_largest_packets(cluster: Lan) -> None:
    """The network's MTU is the way's: what fits arrives, and whoever sends more is told by the node in between."""
    one, two = cluster.nodes
    small = two.pods(name="small", bridge="nftcni-small", mtu=1400, ipam={"ranges": [[{"subnet": "10.244.8.0/24"}]]})
    one.run("ip", "route", "replace", "10.244.8.0/24", "via", two.address)
    far = two.pod(small, "m")
    assert {two.link("nftcni-small")["mtu"], far.link("eth0")["mtu"]} == {1400}
    with serving(Server(far, 53, "udp")), open_socket(cluster.place("a"), socket.AF_INET, "udp") as sock:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        sock.settimeout(1)
        sock.connect(("10.244.8.2", 53))
        sock.send(bytes(1400 - 28))
        assert sock.recv(100).decode() == f"m {A[0]}"
        sock.send(bytes(1400 - 27))
        with pytest.raises(OSError):
            sock.recv(100)
        assert sock.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1400
    two.remove(small, "m")
