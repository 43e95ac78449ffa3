"""Nodes that know each other's pod networks by static routes, with the network of conf's podcidr.template."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import matrix
import pytest
import readme
from lan import Lan, seen
from support.traffic import Server, open_socket, serving

IP_MTU_DISCOVER, IP_MTU, IP_PMTUDISC_DO = 10, 14, 2  # include/uapi/linux/in.h


@pytest.fixture(scope="module")
def cluster(lan: Lan) -> Iterator[Lan]:
    """Pods a and b on the first node, c on the second, whose ports are published."""
    one, two = lan.nodes
    lan.route()
    one.pod(one.pods(), "a")
    one.pod(one.pods(), "b")
    two.pod(two.pods(*matrix.PORTS), "c")
    yield lan


def test_the_routes_are_those_of_the_readme(cluster: Lan) -> None:
    one = cluster.nodes[0]
    before = one.routes()
    for line in readme.commands("Static routes"):
        one.run(*line.split())
    assert one.routes() == before


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("row", matrix.ROWS)
def test_sources(cluster: Lan, row: str, version: int) -> None:
    matrix.check(cluster, row, version)


@pytest.mark.parametrize("version", [4, 6])
def test_the_lan_reaches_a_pod_by_a_route(cluster: Lan, version: int) -> None:
    expected = f"c {cluster.address('outside', version)}"
    assert seen(cluster.outside, cluster.address("c", version)) == expected


def test_a_port_of_one_address(cluster: Lan) -> None:
    assert seen(cluster.outside, cluster.nodes[1].address, 8081) == f"c {cluster.outside.address}"


def test_datagrams(cluster: Lan) -> None:
    with serving(Server(cluster.place("c"), 53, "udp", "names")):
        for version in (4, 6):
            answer = seen(cluster.place("a"), cluster.address("c", version), 53, "udp")
            assert answer == f"names {cluster.address('a', version)}"


def test_a_second_network_has_the_same_exceptions(cluster: Lan) -> None:
    """They are shared by a host's networks on one bridge, and kept as long as one of them is there."""
    one = cluster.nodes[0]
    other = one.pods(name="more", bridge="nftcni-more", ipam={"ranges": [[{"subnet": "10.244.7.0/24"}]]})
    cluster.nodes[1].run("ip", "route", "replace", "10.244.7.0/24", "via", one.address)
    extra = one.pod(other, "x")
    assert seen(extra, cluster.address("c", 4)) == "c 10.244.7.2"
    one.remove("x")
    assert seen(cluster.place("a"), cluster.address("c", 4)) == f"c {cluster.address('a', 4)}"


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
        assert sock.recv(100).decode() == f"m {cluster.address('a', 4)}"
        sock.send(bytes(1400 - 27))
        with pytest.raises(OSError):
            sock.recv(100)
        assert sock.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1400
    two.remove("m")
