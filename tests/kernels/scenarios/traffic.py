"""A published port from everywhere, by TCP and UDP, IPv4 and IPv6, with bridged frames in the IP tables and without."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from kernels.scenarios import scene
from kernels.scenarios.scene import GATE4, GATE6, HOST4, HOST6, LAN4, LAN6, SIBLING4, SIBLING6, WEB4, WEB6
from support.scratch import Host, network, port
from support.traffic import ask

PUBLISHED = [
    ("lan", HOST4, LAN4),
    ("lan", HOST6, LAN6),
    ("host", HOST4, HOST4),
    ("host", HOST6, HOST6),
    ("host", "127.0.0.1", GATE4),
    ("web", HOST4, GATE4),
    ("web", HOST6, GATE6),
    ("other", HOST4, "10.89.0.2"),
    ("other", HOST6, "fd00:89::2"),
]


@pytest.fixture(scope="module", params=["0", "1"], ids=["br_netfilter=0", "br_netfilter=1"])
def built(request: pytest.FixtureRequest) -> Iterator[Host]:
    host = Host()
    try:
        host.bridge_netfilter(request.param)
        scene.build(host)
        with scene.serving_web(host, "tcp", "udp"):
            yield host
    finally:
        host.close()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(("asker", "address", "seen"), PUBLISHED)
def test_published(built: Host, asker: str, address: str, seen: str, protocol: str) -> None:
    assert scene.heard(built.place(asker), address, 8080, protocol) == f"web {seen}"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_published_to_a_sibling(built: Host, protocol: str) -> None:
    br_netfilter = built.sysctl("bridge/bridge-nf-call-iptables")
    for asker, address, seen in scene.seen_of_sibling(br_netfilter):
        assert scene.heard(built.place(asker), address, 8080, protocol) == f"web {seen}"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(("address", "seen"), [(WEB4, SIBLING4), (WEB6, SIBLING6)])
def test_sibling_by_its_own_address(built: Host, address: str, seen: str, protocol: str) -> None:
    assert scene.heard(built.place("sibling"), address, 80, protocol) == f"web {seen}"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(("address", "seen"), [(LAN4, HOST4), (LAN6, HOST6)])
def test_out_behind_the_host(built: Host, address: str, seen: str, protocol: str) -> None:
    assert scene.heard(built.place("web"), address, 80, protocol) == f"lan {seen}"


@pytest.mark.parametrize("address", [WEB4, WEB6])
def test_networks_are_isolated(built: Host, address: str) -> None:
    assert ask(built.place("other"), address, 80) == "silence"


@pytest.mark.parametrize("asker", ["lan", "sibling"])
def test_not_published_is_refused(built: Host, asker: str) -> None:
    assert scene.heard(built.place(asker), HOST4, 8081) == "refused"


def test_a_vrf_beside_the_containers_is_well(host: Host) -> None:
    """Its addresses and routes are in a table of its own: neither lost nor in anybody's way."""
    host.neighbour()
    host.run("ip", "link", "add", "mgmt", "up", "type", "vrf", "table", "10")
    host.neighbour("admin", 2)
    host.run("ip", "link", "set", "to-admin", "master", "mgmt")
    host.run("ip", "addr", "add", "127.0.0.1/8", "dev", "mgmt")
    host.add(network("net0", *scene.NETS["net0"], ports=[port(8080, 80)]), "web")
    with scene.serving_web(host, "tcp"):
        for address in (HOST4, HOST6):
            assert scene.heard(host.place("lan"), address, 8080).startswith("web ")
        done = host.command("doctor")
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 attachments, all well"), done.stdout
    # A VRF is the loopback device of its own sockets, once its table is asked before the local one (vrf.rst).
    host.run("ip", "rule", "add", "priority", "32765", "lookup", "local")
    host.run("ip", "rule", "del", "priority", "0")
    with host.entered():
        listener, asker = (socket.socket() for _ in range(2))
    with listener, asker:
        for sock in (listener, asker):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"mgmt")
            sock.settimeout(scene.PATIENCE)
        listener.bind(("127.0.0.1", 9999))
        listener.listen()
        asker.connect(("127.0.0.1", 9999))
