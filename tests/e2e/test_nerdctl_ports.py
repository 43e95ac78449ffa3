"""nerdctl's published ports with the packaged network, on a host without iptables and without reference plugins.

The first table is nerdctl's own acceptance test (baseTestRunPort of its repository), asked by the host and by a
neighbour. After every test the host is what it was before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import programs
import pytest
import readme
from machine import Machine, wait_for
from nerdctl import HERE, HERE6, NEIGHBOUR, NEIGHBOUR6, Nerdctl
from support.scratch import port
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
    assert machine.run("ls", "/opt/cni/bin").split() == ["loopback", "nftcni"]
    assert machine.call("iptables", "-t", "nat", "-A", "PREROUTING", "-j", "ACCEPT").returncode != 0


@pytest.mark.parametrize(("flag", "address", "number", "answers"), MATRIX)
def test_the_port_matrix_of_nerdctl(nerdctl: Nerdctl, flag: str, address: str, number: int, answers: bool) -> None:
    nerdctl.run("web", f"-p {flag}")
    said = nerdctl.ask(address, number)
    assert said.split()[0] == ("web" if answers else "refused")
    if address == HERE:
        assert nerdctl.ask_from_outside(address, number) == (f"web {NEIGHBOUR}" if answers else "refused")


def test_ranges_of_different_length_are_refused(nerdctl: Nerdctl) -> None:
    nerdctl.fails("run -d --pull=never -p 0.0.0.0:7000-7005:79-85 who", "invalid ranges")


def test_publishing_all_is_not_there_yet(nerdctl: Nerdctl) -> None:
    """When nerdctl has -P, it is for this file to try it."""
    nerdctl.fails("run -d --pull=never -P who", "unknown shorthand flag: 'P'")


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


def test_udp_and_tcp_are_two_ports_for_one_container(nerdctl: Nerdctl) -> None:
    nerdctl.run("dns", "-p 5353:53/udp -p 5353:80/tcp")
    with Server(nerdctl.inside("dns"), 53, "udp"):
        assert ask(nerdctl.machine.lan, HERE, 5353, "udp") == f"dns {NEIGHBOUR}"
    assert nerdctl.ask_from_outside(HERE, 5353) == f"dns {NEIGHBOUR}"


def test_sctp_is_in_the_table_and_taken_for_others(nerdctl: Nerdctl) -> None:
    nerdctl.run("phone", "-p 7000:70/sctp")
    elements = nerdctl.machine.elements()
    assert [element[0]["elem"]["val"] for element in elements["dnat4"]] == [{"concat": ["sctp", 7000]}]
    nerdctl.fails("run -d --pull=never -p 7000:70/sctp who", ALLOCATED.format(7000))


ALLOCATED = "bind for :{} failed: port is already allocated"  # nerdctl's own words, before it calls any plugin


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("5000:80", "5000:80", ALLOCATED.format(5000)),
        ("5000:80", "5000:80/tcp", ALLOCATED.format(5000)),
        ("5000:53/udp", "5000:53/udp", ALLOCATED.format(5000)),
        ("5000:80", "127.0.0.1:5000:80", "bind for 127.0.0.1:5000 failed: port is already allocated"),
        ("5000:80", f"{HERE}:5000:80", f"bind for {HERE}:5000 failed: port is already allocated"),
        ("127.0.0.1:5000:80", "5000:80", ALLOCATED.format(5000)),
        ("[::]:5000:80", "[::]:5000:80", "host port [::]:5000/tcp is taken by network bridge"),
    ],
)
def test_a_taken_port_is_refused(nerdctl: Nerdctl, first: str, second: str, reason: str) -> None:
    nerdctl.run("first", f"-p {first} -p 5001:80")
    before = nerdctl.machine.elements()
    nerdctl.fails(f"run -d --pull=never --name second -p {second} who", reason)
    assert nerdctl.machine.elements() == before
    assert nerdctl.ask_from_outside(HERE, 5001) == f"first {NEIGHBOUR}"


@pytest.fixture
def quiet(nerdctl: Nerdctl) -> Iterator[Nerdctl]:
    """A container of another runtime publishes ports in nerdctl's network; no socket on the host tells of them, only
    what we answer for iptables."""
    machine = nerdctl.machine
    conflist = json.loads(machine.file("/etc/cni/net.d/nerdctl-bridge.conflist").read_text())
    config = {**conflist["plugins"][0], "name": conflist["name"], "cniVersion": conflist["cniVersion"]}
    config.pop("capabilities")
    ports = [port(number, 80, ip="0.0.0.0") for number in (49153, 49154, 49155, 7000)]
    config["runtimeConfig"] = {"portMappings": [*ports, port(7700, 70, "sctp", "0.0.0.0")]}
    machine.run("ip", "netns", "add", "quiet")
    added = machine.cni("ADD", config, "quiet", plugin="/opt/cni/bin/nftcni")
    assert added.status == 0, added.stdout
    with Server(machine.opened("quiet", "/run/netns/quiet"), 80):
        yield nerdctl
        nerdctl.clear()
        for number in (49153, 49154, 49155, 7000):
            assert ask(machine.lan, HERE, number) == f"quiet {NEIGHBOUR}", "still its own"
    machine.delete(config, "quiet", plugin="/opt/cni/bin/nftcni")
    machine.run("ip", "netns", "delete", "quiet")


def test_ports_that_only_our_answer_tells_of_are_not_chosen(quiet: Nerdctl) -> None:
    for name in ("one", "two"):
        quiet.run(name, "-p 80")
    chosen = sorted(published(quiet, name) for name in ("one", "two"))
    assert chosen[0] >= 49156 and chosen[0] < chosen[1]


def test_ports_that_only_our_answer_tells_of_are_refused(quiet: Nerdctl) -> None:
    assert quiet.machine.run("ss", "-Hltn", "sport", "=", "49153") == ""
    quiet.fails("run -d --pull=never -p 49153:80 who", ALLOCATED.format(49153))
    quiet.fails("run -d --pull=never -p 7700:70/sctp who", ALLOCATED.format(7700))


def test_a_pool_with_a_port_that_only_our_answer_tells_of(quiet: Nerdctl) -> None:
    """nerdctl 2.3.5 takes the first port of a pool if all of them are free."""
    quiet.fails("run -d --pull=never -p 6998-7005:80 who", ALLOCATED.format(7000))
    quiet.run("web", "-p 7001-7005:80")
    assert published(quiet, "web") == 7001
    assert quiet.ask_from_outside(HERE, 7001) == f"web {NEIGHBOUR}"


def test_random_ports_of_sctp_differ(nerdctl: Nerdctl) -> None:
    """No socket is held for them either: nerdctl's port reserver has no SCTP."""
    for name in ("one", "two"):
        nerdctl.run(name, "-p 70/sctp")
    assert published(nerdctl, "one") != published(nerdctl, "two")
    found = sorted(element[0]["elem"]["val"]["concat"][1] for element in nerdctl.machine.elements()["dnat4"])
    assert found == sorted(published(nerdctl, name) for name in ("one", "two"))


def published(nerdctl: Nerdctl, name: str) -> int:
    return int(nerdctl(f"port {name}").rsplit(":", 1)[1])


def test_a_hundred_ports_in_one_flag(nerdctl: Nerdctl) -> None:
    server = "httpd -f -p 22250 -h /www"
    nerdctl(f"run -d --pull=never --name many --hostname many -p 22200-22299:22200-22299 who {server}")
    wait_for(lambda: nerdctl.ask_from_outside(HERE, 22250) == f"many {NEIGHBOUR}", "one of them")
    elements = nerdctl.machine.elements()["dnat4"]
    assert {element[0]["elem"]["val"]["concat"][1] for element in elements} == set(range(22200, 22300))
    assert nerdctl.ask_from_outside(HERE, 22251) == "refused", "nobody listens there in the container"
    nerdctl("rm -f many")
    assert "dnat4" not in nerdctl.machine.elements()
    assert nerdctl("run --rm --pull=never -p 22200-22299:22200-22299 who echo done") == "done"


def test_the_host_holds_the_port_meanwhile(nerdctl: Nerdctl) -> None:
    """nerdctl keeps a socket on it; without our table clients would be accepted and never served."""
    nerdctl.run("web", "-p 60080:80")
    listening = nerdctl.machine.run("ss", "-Hltn", "sport", "=", "60080")
    assert len(listening.splitlines()) == 1
    assert nerdctl.ask_from_outside(HERE, 60080) == f"web {NEIGHBOUR}"
