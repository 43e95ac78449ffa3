"""Who reaches what: one host with three containers on two networks, and a table of every question asked of it.

The rows come from netavark's and nerdctl's own port tests, and from what br_netfilter is known to break: everything is
asked with `bridge-nf-call-iptables` off and on. An answer is `name of the server` and `whom it saw`.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest
from support.scratch import Host, Namespace, network, port
from support.traffic import Server, ask, serving

NET0 = ("10.88.0.0/24", "fd00:88::/64")
NET1 = ("10.89.0.0/24", "fd00:89::/64")
HOST4, HOST6, OTHER4 = "198.51.100.1", "2001:db8:100::1", "203.0.113.1"
PORTS = [
    port(8080, 80),
    port(8081, 80, ip="127.0.0.1"),
    port(8082, 80, ip=HOST4),
    port(8083, 80, ip=HOST6),
    port(8084, 80, ip="0.0.0.0"),
    port(8085, 80, ip="::"),
    port(8086, 99),
    port(5300, 53, "udp"),
    port(5301, 53, "udp", "127.0.0.1"),
    *[port(7000 + n, 79 + n) for n in range(6)],
]
# asker, address, port, protocol, answer
QUESTIONS = [
    # From the LAN: the client's own address arrives, wrong addresses and unpublished ports are refused.
    ("lan", HOST4, 8080, "tcp", "c1 198.51.100.2"),
    ("lan", HOST6, 8080, "tcp", "c1 2001:db8:100::2"),
    ("lan", OTHER4, 8080, "tcp", "c1 198.51.100.2"),
    ("lan", HOST4, 5300, "udp", "c1 198.51.100.2"),
    ("lan", HOST6, 5300, "udp", "c1 2001:db8:100::2"),
    ("lan", HOST4, 8081, "tcp", "refused"),
    ("lan", HOST4, 8082, "tcp", "c1 198.51.100.2"),
    ("lan", OTHER4, 8082, "tcp", "refused"),
    ("lan", HOST6, 8082, "tcp", "refused"),
    ("lan", HOST6, 8083, "tcp", "c1 2001:db8:100::2"),
    ("lan", HOST4, 8083, "tcp", "refused"),
    ("lan", HOST4, 8084, "tcp", "c1 198.51.100.2"),
    ("lan", HOST6, 8084, "tcp", "refused"),
    ("lan", HOST6, 8085, "tcp", "c1 2001:db8:100::2"),
    ("lan", HOST4, 8085, "tcp", "refused"),
    ("lan", HOST4, 8086, "tcp", "refused"),  # published, but nobody listens there: an answer, not a hang
    ("lan", HOST4, 7001, "tcp", "c1 198.51.100.2"),
    ("lan", HOST4, 7002, "tcp", "refused"),
    ("lan", HOST4, 9999, "tcp", "refused"),
    # From the host itself, by every address it has.
    ("host", HOST4, 8080, "tcp", f"c1 {HOST4}"),
    ("host", HOST6, 8080, "tcp", f"c1 {HOST6}"),
    ("host", "10.88.0.1", 8080, "tcp", "c1 10.88.0.1"),
    ("host", "fd00:88::1", 8080, "tcp", "c1 fd00:88::1"),
    ("host", "127.0.0.1", 8080, "tcp", "c1 10.88.0.1"),
    ("host", "127.0.0.5", 8080, "tcp", "c1 10.88.0.1"),
    ("host", "127.0.0.1", 8081, "tcp", "c1 10.88.0.1"),
    ("host", "127.0.0.1", 5300, "udp", "c1 10.88.0.1"),
    ("host", "127.0.0.1", 5301, "udp", "c1 10.88.0.1"),
    ("host", "127.0.0.1", 7001, "tcp", "c1 10.88.0.1"),
    ("host", "127.0.0.1", 8082, "tcp", "refused"),
    ("host", HOST4, 8081, "tcp", "refused"),
    ("host", "::1", 8080, "tcp", "refused"),  # impossible in the kernel; at once, not after a time-out
    ("host", "10.88.0.2", 80, "tcp", "c1 10.88.0.1"),
    # The container reaches itself through its published port (hairpin), by the host's addresses and the gateway's.
    ("c1", HOST4, 8080, "tcp", "c1 10.88.0.1"),
    ("c1", HOST6, 8080, "tcp", "c1 fd00:88::1"),
    ("c1", "10.88.0.1", 8080, "tcp", "c1 10.88.0.1"),
    ("c1", HOST4, 5300, "udp", "c1 10.88.0.1"),
    ("c1", HOST4, 8081, "tcp", "refused"),
    ("c1", "10.88.0.3", 80, "tcp", "c2 10.88.0.2"),
    ("c1", "fd00:88::3", 80, "tcp", "c2 fd00:88::2"),
    # A sibling on the same network: directly, and through the published port.
    ("c2", "10.88.0.2", 80, "tcp", "c1 10.88.0.3"),
    ("c2", "fd00:88::2", 80, "tcp", "c1 fd00:88::3"),
    ("c2", HOST4, 8080, "tcp", "c1 10.88.0.1"),
    ("c2", HOST6, 8080, "tcp", "c1 fd00:88::1"),
    ("c2", HOST4, 8082, "tcp", "c1 10.88.0.1"),
    ("c2", HOST4, 5300, "udp", "c1 10.88.0.1"),
    ("c2", HOST4, 8081, "tcp", "refused"),
    # Another network: never directly, through the published port with its own address.
    ("o1", "10.88.0.2", 80, "tcp", "silence"),
    ("o1", "fd00:88::2", 80, "tcp", "silence"),
    ("o1", HOST4, 8080, "tcp", "c1 10.89.0.2"),
    ("o1", HOST6, 8080, "tcp", "c1 fd00:89::2"),
    ("o1", "10.89.0.1", 8080, "tcp", "c1 10.89.0.2"),
    ("o1", HOST4, 5300, "udp", "c1 10.89.0.2"),
    ("o1", HOST4, 8081, "tcp", "refused"),
    ("c1", "10.89.0.2", 80, "tcp", "silence"),
]


class Scene:
    """One host for the whole table: the questions change nothing."""

    def __init__(self, br_netfilter: str) -> None:
        self.host = Host()
        self.places: dict[str, Namespace] = {"host": self.host, "lan": self.host.neighbour()}
        for key in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
            self.host.set_sysctl(f"bridge/{key}", br_netfilter)
        self.host.run("ip", "addr", "add", f"{OTHER4}/32", "dev", "lo")
        self.places["lan"].run("ip", "route", "add", OTHER4, "via", HOST4)
        for name, config in (
            ("c1", network("net0", *NET0, ports=PORTS)),
            ("c2", network("net0", *NET0)),
            ("o1", network("net1", *NET1)),
        ):
            self.host.add(config, name)
            self.places[name] = self.host.namespaces[-1]
        self.servers = [
            Server(self.places["c1"], 80),
            Server(self.places["c1"], 53, "udp"),
            Server(self.places["c2"], 80),
            Server(self.places["o1"], 80),
        ]


@pytest.fixture(scope="module", params=["0", "1"], ids=["br_netfilter=0", "br_netfilter=1"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    made = Scene(request.param)
    with serving(*made.servers):
        yield made
    made.host.close()


@pytest.mark.parametrize(
    ("asker", "address", "number", "protocol", "answer"), QUESTIONS, ids=lambda value: str(value).replace(" ", "~")
)
def test_question(scene: Scene, asker: str, address: str, number: int, protocol: str, answer: str) -> None:
    assert ask(scene.places[asker], address, number, protocol) == answer


@pytest.mark.parametrize("family", [4, 6])
def test_sctp_is_mapped_like_the_others(host: Host, family: int) -> None:
    """Whether the kernel can speak SCTP itself or not: the element is what DNAT looks up by `th dport`."""
    host.add(network("net0", *NET0, ports=[port(7777, 77, "sctp")]))
    assert [item[0]["elem"]["val"]["concat"] for item in host.elements()[f"dnat{family}"]] == [["sctp", 7777]]


def test_sctp_traffic(host: Host) -> None:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).close()
    except OSError as error:
        assert error.errno == errno.EPROTONOSUPPORT
        pytest.skip("NOT RUN: this kernel has no SCTP (module sctp)")
    lan = host.neighbour()
    host.add(network("net0", ports=[port(7777, 77, "sctp")]))
    with Server(host.namespaces[-1], 77, "sctp", address="10.88.0.2"):
        assert ask(lan, HOST4, 7777, "sctp") == "c1 198.51.100.2"


def test_a_port_of_a_packet_that_only_passes_is_not_hijacked(host: Host) -> None:
    """CVE GHSA-jv3w-x3r3-g6rm of the reference portmap: without a look at the address every port 8080 was ours."""
    lan, far = host.neighbour("lan", 1), host.neighbour("far", 2)
    lan.run("ip", "route", "add", "default", "via", HOST4)
    far.run("ip", "route", "add", "default", "via", "198.51.101.1")
    host.add(network("net0", *NET0, ports=PORTS))
    with Server(far, 8080), Server(host.namespaces[-1], 80):
        assert ask(lan, "198.51.101.2", 8080) == "far 198.51.100.2"
        assert ask(host, "198.51.101.2", 8080) == "far 198.51.101.1"
