"""nerdctl's published ports with the packaged network, on a host without iptables and without reference plugins.

The first table is nerdctl's own acceptance test (baseTestRunPort of its repository), asked by the host and by a
neighbour. After every test the host is what it was before. (nerdctl 2.3.5 has no -P yet.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import programs
import pytest
import readme
from machine import Machine
from nerdctl import HERE, HERE6, NEIGHBOUR, NEIGHBOUR6, Nerdctl
from support.traffic import Server, ask

LOOP = "127.0.0.1"
MATRIX = [
    ("127.0.0.1:8080:80", LOOP, 8080, True),
    (f"{HERE}:8080:80", HERE, 8080, True),
    (f"{HERE}:8080:80", LOOP, 8080, False),
    ("127.0.0.1:8080:80", HERE, 8080, False),
    ("0.0.0.0:8080:80", LOOP, 8080, True),
    ("0.0.0.0:8080:80", HERE, 8080, True),
    ("127.0.0.1:7000-7005:79-84", LOOP, 7001, True),
    (f"{HERE}:7000-7005:79-84", HERE, 7001, True),
    (f"{HERE}:7000-7005:79-84", LOOP, 7001, False),
    ("127.0.0.1:7000-7005:79-84", HERE, 7001, False),
    ("0.0.0.0:7000-7005:79-84", HERE, 7001, True),
    ("0.0.0.0:7000-7005:80-85", LOOP, 7001, False),
    ("0.0.0.0:7000-7005:80", LOOP, 7000, True),
    ("0.0.0.0:7000-7005:80", LOOP, 7005, False),
]


@pytest.fixture(scope="module")
def nerdctl(containerd: Machine) -> Nerdctl:
    programs.require("nerdctl")
    containerd.shell(readme.commands("nerdctl")[0])
    return Nerdctl(containerd)


@pytest.fixture(autouse=True)
def unchanged(nerdctl: Nerdctl) -> Iterator[None]:
    before = nerdctl.machine.state()
    yield
    nerdctl.clear()
    nerdctl.machine.check_unchanged(before)


def test_there_is_no_iptables_and_no_reference_plugin(nerdctl: Nerdctl) -> None:
    machine = nerdctl.machine
    assert machine.foreign() == []
    assert machine.run("ls", "/opt/cni/bin").split() == ["nftcni"]
    assert machine.call("iptables", "-t", "nat", "-A", "PREROUTING", "-j", "ACCEPT").returncode != 0


@pytest.mark.parametrize(("flag", "address", "port", "answers"), MATRIX)
def test_the_port_matrix_of_nerdctl(nerdctl: Nerdctl, flag: str, address: str, port: int, answers: bool) -> None:
    nerdctl.run("web", f"-p {flag}")
    said = nerdctl.ask(address, port)
    assert said.split()[0] == ("web" if answers else "refused")
    if address == HERE:
        assert nerdctl.ask_from_outside(address, port) == (f"web {NEIGHBOUR}" if answers else "refused")


def test_ranges_of_different_length_are_refused(nerdctl: Nerdctl) -> None:
    assert "invalid" in nerdctl.fails("run -d --pull=never -p 0.0.0.0:7000-7005:79-85 who")


def test_ipv6_is_published_by_its_own_flag(nerdctl: Nerdctl) -> None:
    nerdctl.run("web", "-p [::]:8080:80 -p 8081:80")
    assert nerdctl.ask_from_outside(HERE6, 8080) == f"web {NEIGHBOUR6}"
    assert nerdctl.ask_from_outside(HERE, 8080) == "silence", (
        "nerdctl holds the IPv4 port with a socket that is not served"
    )
    assert nerdctl.ask_from_outside(HERE, 8081) == f"web {NEIGHBOUR}"
    assert nerdctl.ask_from_outside(HERE6, 8081) == "refused"


@pytest.mark.parametrize("flag", ["80", "80-81", "80-81/tcp"])
def test_a_random_port_is_another_one_for_each_container(nerdctl: Nerdctl, flag: str) -> None:
    numbers = set()
    for name in ("one", "two"):
        nerdctl.run(name, f"-p {flag}")
        found = re.search(r"80/tcp -> 0\.0\.0\.0:(\d+)", nerdctl(f"port {name}"))
        assert found
        numbers.add(found[1])
        assert nerdctl.ask(LOOP, int(found[1])).startswith(f"{name} ")
    assert len(numbers) == 2


def test_udp(nerdctl: Nerdctl) -> None:
    nerdctl.run("dns", "-p 5353:53/udp")
    with Server(nerdctl.inside("dns"), 53, "udp"):
        assert ask(nerdctl.machine.lan, HERE, 5353, "udp") == f"dns {NEIGHBOUR}"
        assert ask(nerdctl.machine, LOOP, 5353, "udp").startswith("dns ")
    assert nerdctl("port dns") == "53/udp -> 0.0.0.0:5353"


def test_sctp_is_in_the_table_and_taken_for_others(nerdctl: Nerdctl) -> None:
    nerdctl.run("phone", "-p 7000:70/sctp")
    elements = nerdctl.machine.elements()
    assert [element[0]["elem"]["val"] for element in elements["dnat4"]] == [{"concat": ["sctp", 7000]}]
    nerdctl.fails("run -d --pull=never -p 7000:70/sctp who")


@pytest.mark.parametrize("second", ["5000:80", "5000:80/tcp", "127.0.0.1:5000:80", f"{HERE}:5000:80"])
def test_a_taken_port_is_refused(nerdctl: Nerdctl, second: str) -> None:
    nerdctl.run("first", "-p 5000:80")
    nerdctl.fails(f"run -d --pull=never --name second -p {second} who")
    assert nerdctl.ask_from_outside(HERE, 5000) == f"first {NEIGHBOUR}"


def test_a_hundred_ports_in_one_flag(nerdctl: Nerdctl) -> None:
    assert nerdctl("run --rm --pull=never -p 22200-22299:22200-22299 who echo done") == "done"


def test_the_host_holds_the_port_meanwhile(nerdctl: Nerdctl) -> None:
    """nerdctl keeps a socket on it; without our table clients would be accepted and never served."""
    nerdctl.run("web", "-p 60080:80")
    listening = nerdctl.machine.run("ss", "-Hltn", "sport", "=", "60080")
    assert len(listening.splitlines()) == 1
    assert nerdctl.ask_from_outside(HERE, 60080) == f"web {NEIGHBOUR}"
