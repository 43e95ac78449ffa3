"""Host ports that somebody holds already: which pairs of mappings exclude each other, what the refusal says.

The rule is that of sockets: one protocol, one port and one family, on the same address or with a wildcard on either
side. `Host.refused` compares everything on the host before and after.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.scratch import Answer, Host, network, port
from support.traffic import Server, ask, open_socket

NETS = {"net0": ("10.88.0.0/24", "fd00:88::/64"), "net1": ("10.89.0.0/24", "fd00:89::/64")}
ONE, OTHER, LOOP, SIX, SIX2 = "198.51.100.1", "203.0.113.1", "127.0.0.1", "2001:db8:100::1", "2001:db8:200::1"
# what is held, what is asked for, whether they exclude each other
PAIRS = [
    ("", "", True),
    ("", "0.0.0.0", True),
    ("", "::", True),
    ("0.0.0.0", "", True),
    ("::", "", True),
    ("0.0.0.0", "0.0.0.0", True),
    ("::", "::", True),
    ("0.0.0.0", "::", False),
    ("::", "0.0.0.0", False),
    ("", ONE, True),
    (ONE, "", True),
    ("", SIX, True),
    (SIX, "", True),
    ("0.0.0.0", ONE, True),
    (ONE, "0.0.0.0", True),
    ("0.0.0.0", LOOP, True),
    (LOOP, "0.0.0.0", True),
    ("::", SIX, True),
    (SIX, "::", True),
    (ONE, ONE, True),
    (SIX, SIX, True),
    (SIX, "2001:db8:100:0::1", True),
    (ONE, OTHER, False),
    (ONE, LOOP, False),
    (SIX, SIX2, False),
    (ONE, SIX, False),
    (ONE, "::", False),
    ("::", ONE, False),
    (SIX, "0.0.0.0", False),
    ("0.0.0.0", SIX, False),
]


@pytest.fixture(scope="module")
def pair_host() -> Iterator[Host]:
    """One host for all pairs; each takes away again what it added."""
    host = Host()
    with contextlib.closing(host):
        host.neighbour()
        host.run("ip", "addr", "add", f"{OTHER}/32", "dev", "lo")
        host.run("ip", "addr", "add", f"{SIX2}/128", "dev", "lo")
        for name in ("keeper", "newcomer"):
            host.container(name)
        yield host


def can_bind_both(host: Host, held: str, asked: str) -> bool:
    """The kernel's own opinion: sockets on both addresses, each wildcard as the families it stands for."""
    sockets: list[socket.socket] = []
    try:
        for ip in (held, asked):
            for address in ("0.0.0.0", "::") if ip == "" else (ip,):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                sockets.append(open_socket(host, family, "tcp"))
                if family == socket.AF_INET6:
                    sockets[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sockets[-1].bind((address, 8080))
                sockets[-1].listen(1)
    except OSError:
        return False
    finally:
        for sock in sockets:
            sock.close()
    return True


@pytest.mark.parametrize(("held", "asked", "excluded"), PAIRS, ids=lambda value: str(value) or "any")
def test_pair(pair_host: Host, held: str, asked: str, excluded: bool) -> None:
    assert can_bind_both(pair_host, held, asked) is not excluded  # this table is what sockets do
    keeper = network("net0", *NETS["net0"], ports=[port(8080, 80, ip=held)])
    newcomer = network("net1", *NETS["net1"], ports=[port(8079, 80), port(8080, 80, ip=asked)])
    pair_host.add(keeper, "keeper")
    try:
        if excluded:
            names_the_holder(pair_host.refused("ADD", newcomer, "newcomer"))
            assert pair_host.place("newcomer").link("eth0") is None
        else:
            pair_host.add(newcomer, "newcomer")
    finally:
        pair_host.delete(newcomer, "newcomer")
        pair_host.delete(keeper, "keeper")
    assert pair_host.elements() == {}


def names_the_holder(answer: Answer, container: str = "keeper", ifname: str = "eth0") -> None:
    assert answer.code == 100
    assert all(word in answer.words for word in ("net0", container, ifname, "8080")), answer.words


@pytest.mark.parametrize("first", ["tcp", "udp", "sctp"])
@pytest.mark.parametrize("second", ["tcp", "udp", "sctp"])
def test_protocols_have_ports_of_their_own(pair_host: Host, first: str, second: str) -> None:
    keeper, newcomer = (network("net0", ports=[port(8080, 80, protocol)]) for protocol in (first, second))
    pair_host.add(keeper, "keeper")
    try:
        if first == second:
            names_the_holder(pair_host.refused("ADD", newcomer, "newcomer"))
        else:
            pair_host.add(newcomer, "newcomer")
    finally:
        for name in ("newcomer", "keeper"):
            pair_host.delete(keeper, name)


def test_one_taken_port_of_many_refuses_them_all_and_the_holder_goes_on(host: Host) -> None:
    lan = host.neighbour()
    host.add(network("net0", *NETS["net0"], ports=[port(8080, 80)]), "keeper", ifname="web0")
    host.container("c2")
    many: list[Any] = [port(8000 + number, 80) for number in range(100)]
    refusal = host.refused("ADD", network("net1", *NETS["net1"], ports=many), "c2")
    names_the_holder(refusal, ifname="web0")
    with Server(host.place("keeper"), 80):
        assert ask(lan, ONE, 8080) == "keeper 198.51.100.2"
        assert ask(lan, ONE, 8001) == "refused"


def test_the_same_container_asks_every_network_for_the_same_ports(host: Host) -> None:
    """go-cni and podman do, go-cni in parallel: the first interface has them, and keeps them when the other goes."""
    host.add(network("net0", *NETS["net0"], ports=[port(8080, 80)]), "keeper")
    before = host.elements()["dnat4"]
    second = network("net1", *NETS["net1"], ports=[port(8080, 80)], isDefaultGateway=False)
    host.add(second, "keeper", ifname="eth1")
    assert host.elements()["dnat4"] == before
    host.delete(second, "keeper", ifname="eth1")
    assert host.elements()["dnat4"] == before


@pytest.mark.parametrize("way", ["DEL", "GC"])
def test_ports_pass_to_the_containers_next_interface(host: Host, way: str) -> None:
    """podman network disconnect."""
    host.container("keeper")
    before = host.snapshot()
    first = network("net0", *NETS["net0"], ports=[port(8080, 80), port(53, 53, "udp")])
    second = network("net1", *NETS["net1"], ports=[port(8080, 80), port(53, 53, "udp")], isDefaultGateway=False)
    host.add(first, "keeper")
    result = host.add(second, "keeper", ifname="eth1")
    if way == "DEL":
        host.delete(first, "keeper")
    else:
        assert host.cni("GC", {**first, "cni.dev/valid-attachments": []}).status == 0
    comments = {key["elem"]["comment"] for name in ("dnat4", "dnat6") for key, _ in host.elements()[name]}
    assert comments == {"net1/keeper/eth1"} and len(host.elements()["dnat4"]) == 2
    check = host.cni("CHECK", {**second, "prevResult": result}, "keeper", ifname="eth1")
    assert check.status == 0, check.stdout
    host.delete(second, "keeper", ifname="eth1")
    host.delete(first, "keeper")
    assert host.snapshot() == before


def test_a_port_is_free_again_after_del_and_a_late_del_takes_nothing_from_its_new_holder(host: Host) -> None:
    lan = host.neighbour()
    config = network("net0", *NETS["net0"], ports=[port(8080, 80)])
    host.add(config, "keeper")
    host.delete(config, "keeper")
    host.add(config, "heir")
    host.delete(config, "keeper")
    with Server(host.place("heir"), 80):
        assert ask(lan, ONE, 8080) == "heir 198.51.100.2"


def test_of_many_at_the_same_time_one_gets_the_port(host: Host) -> None:
    names = [f"c{number}" for number in range(6)]
    config = network("net0", ports=[port(8080, 80)])
    answers: dict[str, Answer] = {}
    for name in names:
        host.container(name)
    threads = [
        threading.Thread(target=lambda name=name: answers.update({name: host.cni("ADD", config, name)}))  # type: ignore[misc]
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [name for name in names if answers[name].status == 0]
    for name in names:
        if name != winner:
            names_the_holder(answers[name], winner)
    with Server(host.place(winner), 80):
        assert ask(host, LOOP, 8080) == f"{winner} 10.88.0.1"
