"""Who reaches a published port from where, on what protocol: the rows of a functional matrix for one host.

A row's name says what is claimed; its questions say who asks what and must hear which server, and whom that server must
have seen. All of it holds with bridge-nf-call-iptables off and on. What runtimes ask for is `test_ports_runtimes`, SCTP
is `test_ports_sctp`, conflicts are `test_ports_conflicts`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.machines import NETFILTER
from support.scratch import Host, network, port
from support.traffic import Server, ask, serving

NETS = {"net0": ("10.88.0.0/24", "fd00:88::/64"), "net1": ("10.89.0.0/24", "fd00:89::/64")}
HOST4, HOST6, LAN4, LAN6 = "198.51.100.1", "2001:db8:100::1", "198.51.100.2", "2001:db8:100::2"
SECOND4, SECOND6 = "203.0.113.1", "2001:db8:200::1"
GATE4, GATE6 = "10.88.0.1", "fd00:88::1"
RUN = range(20000, 20050)
PORTS = [
    *[port(8080, 80, protocol) for protocol in ("tcp", "udp")],
    *[port(8081, 80, protocol, HOST4) for protocol in ("tcp", "udp")],
    *[port(8081, 80, protocol, HOST6) for protocol in ("tcp", "udp")],
    *[port(8082, 80, protocol, "127.0.0.1") for protocol in ("tcp", "udp")],
    port(8083, 80, ip="0.0.0.0"),
    port(8084, 80, ip="::"),
    port(8085, 81),
    *[port(number, number + 10000) for number in RUN],
]
BOTH = ("tcp", "udp")
TCP = ("tcp",)
# row: askers, (address, port) ..., protocols, answer (None: refused at once; {} is the asker's own address)
ROWS = {
    "external-v4": (["lan"], [(HOST4, 8080)], BOTH, f"c1 {LAN4}"),
    "external-v6": (["lan"], [(HOST6, 8080)], BOTH, f"c1 {LAN6}"),
    "second-host-address-v4": (["lan"], [(SECOND4, 8080)], BOTH, f"c1 {LAN4}"),
    "second-host-address-v6": (["lan"], [(SECOND6, 8080)], BOTH, f"c1 {LAN6}"),
    "hostip-bound-v4": (["lan"], [(HOST4, 8081)], BOTH, f"c1 {LAN4}"),
    "hostip-bound-v6": (["lan"], [(HOST6, 8081)], BOTH, f"c1 {LAN6}"),
    "hostip-any-v4": (["lan"], [(HOST4, 8083), (SECOND4, 8083)], TCP, f"c1 {LAN4}"),
    "hostip-any-v6": (["lan"], [(HOST6, 8084), (SECOND6, 8084)], TCP, f"c1 {LAN6}"),
    "host-to-own-v4": (["host"], [(HOST4, 8080), (HOST4, 8081)], BOTH, f"c1 {HOST4}"),
    "host-to-own-v6": (["host"], [(HOST6, 8080), (HOST6, 8081)], BOTH, f"c1 {HOST6}"),
    "host-to-gateway-v4": (["host"], [(GATE4, 8080)], BOTH, f"c1 {GATE4}"),
    "host-to-gateway-v6": (["host"], [(GATE6, 8080)], BOTH, f"c1 {GATE6}"),
    "host-to-127": (["host"], [("127.0.0.1", 8080), ("127.0.0.5", 8080)], BOTH, f"c1 {GATE4}"),
    "hostip-127": (["host"], [("127.0.0.1", 8082)], BOTH, f"c1 {GATE4}"),
    "hostip-any-v4-by-127": (["host"], [("127.0.0.1", 8083)], TCP, f"c1 {GATE4}"),
    "host-to-1": (["host"], [("::1", 8080), ("::1", 8084)], BOTH, None),
    "hairpin-v4": (["c1"], [(HOST4, 8080), (SECOND4, 8080), (GATE4, 8080)], BOTH, f"c1 {GATE4}"),
    "hairpin-v6": (["c1"], [(HOST6, 8080), (SECOND6, 8080), (GATE6, 8080)], BOTH, f"c1 {GATE6}"),
    "sibling-v4": (["c2"], [(HOST4, 8080), (HOST4, 8081), (GATE4, 8080)], BOTH, "c1 {sibling4}"),
    "sibling-v6": (["c2"], [(HOST6, 8080), (HOST6, 8081), (GATE6, 8080)], BOTH, "c1 {sibling6}"),
    "sibling-direct-v4": (["c2"], [("10.88.0.2", 80)], BOTH, "c1 10.88.0.3"),
    "sibling-direct-v6": (["c2"], [("fd00:88::2", 80)], BOTH, "c1 fd00:88::3"),
    "cross-network-v4": (["o1"], [(HOST4, 8080), (HOST4, 8081), ("10.89.0.1", 8080)], BOTH, "c1 10.89.0.2"),
    "cross-network-v6": (["o1"], [(HOST6, 8080), (HOST6, 8081), ("fd00:89::1", 8080)], BOTH, "c1 fd00:89::2"),
    "egress-masq-v4": (["c1", "o1"], [(LAN4, 80)], BOTH, f"lan {HOST4}"),
    "egress-masq-v6": (["c1", "o1"], [(LAN6, 80)], BOTH, f"lan {HOST6}"),
    "wrong-hostip": (["lan", "host", "c1", "c2", "o1"], [(SECOND4, 8081), (SECOND6, 8081)], BOTH, None),
    "wrong-family": (["lan", "host", "c2", "o1"], [(HOST6, 8083), (HOST4, 8084)], TCP, None),
    "unmapped": (["lan", "host", "c1", "c2", "o1"], [(HOST4, 80), (HOST6, 80), (HOST4, 8079)], BOTH, None),
    "nobody-listens": (["lan", "host", "c1", "c2", "o1"], [(HOST4, 8085), (HOST6, 8085)], TCP, None),
    "hostip-127-by-another-address": (["lan", "host", "c1", "c2", "o1"], [(HOST4, 8082)], BOTH, None),
    "cross-network-direct-v4": (["o1"], [("10.88.0.2", 80)], BOTH, "silence"),
    "cross-network-direct-v6": (["o1"], [("fd00:88::2", 80)], BOTH, "silence"),
}
QUESTIONS = [
    pytest.param(
        asker, address, number, protocol, answer or "refused", id=f"{row}:{asker}-{address}-{number}{protocol}"
    )
    for row, (askers, targets, protocols, answer) in ROWS.items()
    for asker in askers
    for address, number in targets
    for protocol in protocols
]


def build(host: Host, br_netfilter: str) -> list[Server]:
    """A LAN, c1 with the ports and c2 on one network, o1 on another, and everybody's servers."""
    lan = host.neighbour()
    host.bridge_netfilter(br_netfilter)
    # Refused UDP is an ICMP message, and the kernel sends only so many a second.
    host.set_sysctl("ipv4/icmp_ratemask", "0")
    host.set_sysctl("ipv6/icmp/ratelimit", "0")
    for second, via, length in ((SECOND4, HOST4, 32), (SECOND6, HOST6, 128)):
        host.run("ip", "addr", "add", f"{second}/{length}", "dev", "lo")
        lan.run("ip", "route", "add", second, "via", via)
    for name, net in (("c1", "net0"), ("c2", "net0"), ("o1", "net1")):
        host.add(network(net, *NETS[net], ports=PORTS if name == "c1" else ()), name)
    servers = [Server(host.place(name), 80, protocol) for name in ("lan", "c1", "c2", "o1") for protocol in BOTH]
    return servers + [Server(host.place("c1"), number + 10000, name=f"c1:{number}") for number in RUN]


@pytest.fixture(scope="module", params=["0", "1"], ids=["br_netfilter=0", "br_netfilter=1"])
def scene(request: pytest.FixtureRequest) -> Iterator[Host]:
    """One host for the whole table: questions change nothing."""
    host = Host()
    try:
        with serving(*build(host, request.param)):
            yield host
    finally:
        host.close()


@pytest.mark.parametrize(("asker", "address", "number", "protocol", "answer"), QUESTIONS)
def test_row(scene: Host, asker: str, address: str, number: int, protocol: str, answer: str) -> None:
    assert ask(scene.place(asker), address, number, protocol) == as_seen(scene, answer)


def as_seen(scene: Host, answer: str) -> str:
    """A sibling shows its own address where the bridge hands the answer to the connection tracker."""
    kept = scene.sysctl("bridge/bridge-nf-call-iptables") == "1"
    return answer.format(sibling4="10.88.0.3" if kept else GATE4, sibling6="fd00:88::3" if kept else GATE6)


@pytest.mark.parametrize(
    ("asker", "address", "seen"),
    [
        ("lan", HOST4, LAN4),
        ("lan", HOST6, LAN6),
        ("host", "127.0.0.1", GATE4),
        ("c1", HOST4, GATE4),
        ("c2", HOST6, "{sibling6}"),
        ("o1", HOST4, "10.89.0.2"),
    ],
)
def test_row_of_fifty_consecutive_ports(scene: Host, asker: str, address: str, seen: str) -> None:
    """Each of them leads to its own port in the container, and the run ends where it was said to end."""
    answers = {number: ask(scene.place(asker), address, number) for number in RUN}
    assert answers == {number: f"c1:{number} {as_seen(scene, seen)}" for number in RUN}
    assert {ask(scene.place(asker), address, number) for number in (RUN[0] - 1, RUN[-1] + 1)} == {"refused"}


@pytest.mark.parametrize("protocol", BOTH)
def test_row_passing_through_to_somebody_elses_port(host: Host, protocol: str) -> None:
    """Published is the host's port; a packet on its way to another machine's port of that number goes there."""
    lan, far = host.neighbour("lan", 1), host.neighbour("far", 2)
    for other, via4, via6 in ((lan, HOST4, HOST6), (far, "198.51.101.1", "2001:db8:101::1")):
        other.run("ip", "route", "add", "default", "via", via4)
        other.run("ip", "-6", "route", "add", "default", "via", via6)
    for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        host.set_sysctl(key, "1")  # a router before there was a container
    host.add(network("net0", *NETS["net0"], ports=PORTS))
    with serving(Server(far, 8080, protocol), Server(host.place("c1"), 80, protocol)):
        assert ask(lan, "198.51.101.2", 8080, protocol) == f"far {LAN4}"
        assert ask(lan, "2001:db8:101::2", 8080, protocol) == f"far {LAN6}"
        assert ask(host, "198.51.101.2", 8080, protocol) == "far 198.51.101.1"
        assert ask(host.place("c1"), "198.51.101.2", 8080, protocol) == "far 198.51.101.1"
        assert ask(lan, HOST4, 8080, protocol) == f"c1 {LAN4}"


TWO_RANGES = [
    ("fd00:88::/64", "2001:db8:70::/64"),
    ("2001:db8:70::/64", "fd00:88::/64"),
    ("2001:db8:7000::/64", "2001:db8:101::/64"),  # the second one is nearer to the client
]


@NETFILTER
@pytest.mark.parametrize("ranges", TWO_RANGES, ids=["local first", "global first", "two global"])
@pytest.mark.parametrize("mode", ["bridge", "ptp"])
def test_udp_to_a_container_with_two_ipv6_addresses(
    host: Host, br_netfilter: str, ranges: tuple[str, str], mode: str
) -> None:
    """The kernel would choose the answer's source by the client (RFC 6724), and the port leads to one of the two."""
    lan = host.neighbour()
    host.bridge_netfilter(br_netfilter)
    config = network("net0", *ranges, ports=[port(5300, 53, "udp")], mode=mode)
    config["ipam"]["ranges"] = [[{"subnet": one}] for one in ranges]
    if mode == "ptp":
        del config["bridge"]
    host.add(config)
    host.add({**config, "runtimeConfig": {}}, "sibling")
    inside, sibling = host.place("c1"), host.place("sibling")
    with Server(inside, 53, "udp"), Server(lan, 7, "udp"):
        # Other siblings are not masqueraded, and reach the second address directly (README, "Whom a container sees").
        for client in (lan, host, *([sibling] if (mode, br_netfilter) == ("bridge", "0") else [])):
            assert ask(client, "2001:db8:100::1", 5300, "udp").startswith("c1 "), client.name
        assert ask(inside, "2001:db8:100::2", 7, "udp") == "lan 2001:db8:100::1"
        for address in host.place("c1").addresses("eth0"):
            if not address.startswith("fe80") and "." not in address:
                assert ask(sibling, address.partition("/")[0], 53, "udp").startswith("c1 "), address
    answer = host.cni("CHECK", {**config, "prevResult": host.add(config)})
    assert answer.status == 0, answer.words
