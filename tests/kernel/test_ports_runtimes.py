"""The port tests of nerdctl's own suite, as the plugin sees them: mapping, question, expected answer.

Rows are named by the `-p` of nerdctl's table (container_run_network_base_test.go and its neighbours). What it does
in nerdctl and never reaches a plugin is not here: choosing a free host port, refusing ranges of different lengths,
`--expose`, the `port` command.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from support.scratch import Host, network, port
from support.traffic import Server, ask, serving

H = "198.51.100.1"
NET = "10.88.0.0/24"
Row = tuple[str, list[Any], str, int, bool]


def run(ip: str, first: int, last: int, inside: int) -> list[Any]:
    """A range as runtimes hand it over: one entry for each port."""
    return [port(number, inside + number - first, ip=ip) for number in range(first, last + 1)]


# name, portMappings, address, port, answered
ROWS: list[Row] = [
    ("1:127.0.0.1:8080:80", [port(8080, 80, ip="127.0.0.1")], "127.0.0.1", 8080, True),
    ("2:H:8080:80", [port(8080, 80, ip=H)], H, 8080, True),
    ("3:H:8080:80", [port(8080, 80, ip=H)], "127.0.0.1", 8080, False),
    ("4:127.0.0.1:8080:80", [port(8080, 80, ip="127.0.0.1")], H, 8080, False),
    ("5:0.0.0.0:8080:80", [port(8080, 80, ip="0.0.0.0")], "127.0.0.1", 8080, True),
    ("6:0.0.0.0:8080:80", [port(8080, 80, ip="0.0.0.0")], H, 8080, True),
    ("7:127.0.0.1:7000-7005:79-84", run("127.0.0.1", 7000, 7005, 79), "127.0.0.1", 7001, True),
    ("8:H:7000-7005:79-84", run(H, 7000, 7005, 79), H, 7001, True),
    ("9:H:7000-7005:79-84", run(H, 7000, 7005, 79), "127.0.0.1", 7001, False),
    ("10:127.0.0.1:7000-7005:79-84", run("127.0.0.1", 7000, 7005, 79), H, 7001, False),
    ("11:0.0.0.0:7000-7005:79-84", run("0.0.0.0", 7000, 7005, 79), H, 7001, True),
    ("12:0.0.0.0:7000-7005:80-85", run("0.0.0.0", 7000, 7005, 80), "127.0.0.1", 7001, False),
    ("13:0.0.0.0:7000-7005:80", run("0.0.0.0", 7000, 7000, 80), "127.0.0.1", 7000, True),
    ("14:0.0.0.0:7000-7005:80", run("0.0.0.0", 7000, 7000, 80), "127.0.0.1", 7005, False),
    ("TestParseFlagP [::0]:8080:80", [port(8080, 80, ip="::0")], "2001:db8:100::1", 8080, True),
    ("TestParseFlagP [::0]:8080:80", [port(8080, 80, ip="::0")], H, 8080, False),
    ("TestRunPortWithNoHostPort 80-81", run("0.0.0.0", 49153, 49154, 80), "127.0.0.1", 49153, True),
]


@pytest.fixture(scope="module", params=["0", "1"], ids=["br_netfilter=0", "br_netfilter=1"])
def scene(request: pytest.FixtureRequest) -> Iterator[Host]:
    """One host: each row adds its container and takes it away."""
    host = Host()
    with contextlib.closing(host):
        host.neighbour()
        host.bridge_netfilter(request.param)
        host.container("c1")
        yield host


@pytest.mark.parametrize(("mappings", "address", "number", "answered"), [pytest.param(*r[1:], id=r[0]) for r in ROWS])
def test_row(scene: Host, mappings: list[Any], address: str, number: int, answered: bool) -> None:
    config = network("net0", NET, "fd00:88::/64", ports=mappings)
    scene.add(config)
    with Server(scene.place("c1"), 80):
        said = ask(scene, address, number)
    scene.delete(config)
    assert said.startswith("c1 ") if answered else said == "refused"
    assert ask(scene, address, number) == "refused"


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [("tcp", "tcp", True), ("udp", "udp", True), ("sctp", "sctp", True), ("tcp", "udp", False)],
)
def test_host_port_already_in_use(host: Host, first: str, second: str, taken: bool) -> None:
    """TestHostPortAlreadyInUse: nerdctl cannot see this for SCTP, and for nothing without iptables' rules."""
    host.add(network("net0", ports=[port(5000, 80, first, "0.0.0.0")]), "c1")
    host.container("c2")
    config = network("net0", ports=[port(5000, 80, second, "0.0.0.0")])
    if taken:
        assert host.refused("ADD", config, "c2").code == 100
    else:
        host.add(config, "c2")


def test_run_with_many_ports_then_clean_up(host: Host) -> None:
    """TestRunWithManyPortsThenCleanUp: a hundred mappings in one ADD, and nothing of them afterwards."""
    config = network("net0", ports=run("0.0.0.0", 22200, 22299, 22200))
    before = host.snapshot()
    host.add(config)
    assert len(host.elements()["dnat4"]) == 100
    with serving(*(Server(host.place("c1"), number, name=f"at-{number}") for number in (22200, 22250, 22299))):
        for number in (22200, 22250, 22299):
            assert ask(host, "127.0.0.1", number) == f"at-{number} 10.88.0.1"
    host.delete(config, netns="")
    assert host.snapshot() == before


@contextlib.contextmanager
def inherited_by_sleep(host: Host, server: Server) -> Iterator[None]:
    """nerdctl's reserver."""
    with host.popen("sleep", "infinity", pass_fds=tuple(sock.fileno() for sock in server._sockets)) as process:
        yield
        process.kill()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_reserve_ports(host: Host, protocol: str) -> None:
    """TestReservePorts: a socket of the runtime's that holds the port is no conflict, and gets none of its traffic."""
    lan = host.neighbour()
    with Server(host, 60080, protocol, name="reserver") as server, inherited_by_sleep(host, server):
        host.add(network("net0", ports=[port(60080, 80, protocol, "0.0.0.0")]))
        with Server(host.place("c1"), 80, protocol):
            assert ask(lan, H, 60080, protocol) == "c1 198.51.100.2"
            assert ask(host, "127.0.0.1", 60080, protocol) == "c1 10.88.0.1"


def test_stop_and_start(host: Host) -> None:
    """TestStopStart, TestStopCleanupForwards: answered, refused after stop, answered after start; nerdctl's order."""
    config = network("net0", ports=[port(8080, 80, ip="127.0.0.1")])
    for _ in range(2):
        host.delete(config, netns="")
        host.add(config)
        with Server(host.place("c1"), 80):
            assert ask(host, "127.0.0.1", 8080) == "c1 10.88.0.1"
            host.delete(config, netns="")
            assert ask(host, "127.0.0.1", 8080) == "refused"
        assert host.elements() == {}


def test_a_reload_in_the_living_namespace(host: Host) -> None:
    """`podman network reload`: DEL and ADD in the same namespace, with the MAC and the address of before."""
    config = network("net0", ports=[port(8080, 80)])
    first = host.add(config)
    address, mac = first["ips"][0]["address"], first["interfaces"][2]["mac"]
    with Server(host.place("c1"), 80):
        host.delete(config)
        again = host.add(config, args=f"IgnoreUnknown=1;MAC={mac};IP={address.split('/')[0]}")
        assert (again["ips"][0]["address"], again["interfaces"][2]["mac"]) == (address, mac)
        assert ask(host, "127.0.0.1", 8080) == "c1 10.88.0.1"


def test_two_containers_of_one_inside_port(host: Host) -> None:
    """TestUniqueHostPortAssignement: the same container port under different host ports."""
    for name, number in (("c1", 49153), ("c2", 49154)):
        host.add(network("net0", ports=[port(number, 80, ip="0.0.0.0")]), name)
    with serving(Server(host.place("c1"), 80), Server(host.place("c2"), 80)):
        assert [ask(host, "127.0.0.1", number) for number in (49153, 49154)] == ["c1 10.88.0.1", "c2 10.88.0.1"]
