"""Isolation between networks, and masquerading towards everybody else: who may open a connection, and whom it shows."""

from __future__ import annotations

import socket

import pytest
from support.scratch import Host, Namespace, network
from support.traffic import Server, ask, open_socket

NETS = {"net0": ("10.88.0.0/24", "fd00:88::/64"), "net1": ("10.89.0.0/24", "fd00:89::/64")}


def attach(host: Host, name: str, net: str, **keys: object) -> Namespace:
    host.add(network(net, *NETS[net], **keys), name)
    return host.namespaces[-1]


@pytest.mark.parametrize(
    ("keys0", "keys1", "allowed"),
    [
        ({}, {}, False),
        ({"isolation": False}, {}, False),
        ({}, {"isolation": False}, False),
        ({"isolation": False}, {"isolation": False}, True),
        ({"ingressPolicy": "open"}, {"ingressPolicy": "open"}, True),
        ({"ingressPolicy": "same-bridge"}, {"ingressPolicy": "same-bridge"}, False),
    ],
    ids=["default", "one-off", "other-off", "both-off", "policy-open", "policy-same-bridge"],
)
def test_networks_meet_only_if_both_allow_it(
    host: Host, keys0: dict[str, object], keys1: dict[str, object], allowed: bool
) -> None:
    one, other = attach(host, "a", "net0", **keys0), attach(host, "b", "net1", **keys1)
    with Server(one, 80), Server(other, 80):
        for asker, target, name in ((one, "10.89.0.2", "b"), (other, "10.88.0.2", "a"), (one, "fd00:89::2", "b")):
            answer = ask(asker, target, 80)
            assert answer.startswith(name) if allowed else answer == "silence"


def test_isolation_says_nothing_about_other_links_of_the_host(host: Host) -> None:
    """The LAN reaches containers directly where it has a route: that is what firewalls are for."""
    lan = host.neighbour()
    lan.run("ip", "route", "add", "10.88.0.0/24", "via", "198.51.100.1")
    container = attach(host, "a", "net0")
    with Server(container, 80):
        assert ask(lan, "10.88.0.2", 80) == "a 198.51.100.2"


def test_port_isolation_keeps_siblings_apart(host: Host) -> None:
    one, other = (attach(host, name, "net0", ingressPolicy="isolated") for name in "ab")
    with Server(one, 80):
        assert ask(other, "10.88.0.2", 80) == "refused" or ask(other, "10.88.0.2", 80) == "silence"
        assert ask(host, "10.88.0.2", 80) == "a 10.88.0.1"


@pytest.mark.parametrize(
    ("address", "seen_masked", "seen_bare"),
    [
        ("198.51.100.2", "198.51.100.1", "10.88.0.2"),
        ("2001:db8:100::2", "2001:db8:100::1", "fd00:88::2"),
    ],
)
@pytest.mark.parametrize("masq", [True, False])
def test_masquerade_towards_the_lan(host: Host, masq: bool, address: str, seen_masked: str, seen_bare: str) -> None:
    lan = host.neighbour()
    for subnet, via in (("10.88.0.0/24", "198.51.100.1"), ("fd00:88::/64", "2001:db8:100::1")):
        lan.run("ip", "route", "add", subnet, "via", via)
    container = attach(host, "a", "net0", ipMasq=masq)
    with Server(lan, 80), Server(lan, 53, "udp"):
        seen = seen_masked if masq else seen_bare
        assert ask(container, address, 80) == f"lan {seen}"
        assert ask(container, address, 53, "udp") == f"lan {seen}"


def test_no_masquerade_inside_the_network(host: Host) -> None:
    one, other = attach(host, "a", "net0"), attach(host, "b", "net0")
    with Server(one, 80), Server(host, 8000):
        assert ask(other, "10.88.0.2", 80) == "a 10.88.0.3"
        assert ask(other, "10.88.0.1", 8000) == "host 10.88.0.3"


@pytest.mark.parametrize("version", [4, 6])
def test_no_masquerade_of_multicast(host: Host, version: int) -> None:
    """The oracle is what a neighbour sees of a forwarded multicast packet: the source it was sent with."""
    group = "239.1.2.3" if version == 4 else "ff0e::1:2:3"
    container = attach(host, "a", "net0")
    sets = {4: ("10.88.0.2", "ip"), 6: ("fd00:88::2", "ip6")}
    source, family = sets[version]
    # A counting rule just behind the table's own postrouting chain sees what was masqueraded and what was not.
    host.nft(
        f"""table inet probe {{
            counter kept {{ }}
            counter every {{ }}
            chain c {{
                type filter hook postrouting priority 110;
                {family} daddr {group} {family} saddr {source} counter name kept
                {family} daddr {group} counter name every
            }}
        }}"""
    )
    host.neighbour()
    _route_multicast(host, container, group, version)
    counters = {
        item["counter"]["name"]: item["counter"]["packets"]
        for item in host.json("nft", "-j", "list", "counters", "table", "inet", "probe")["nftables"]
        if "counter" in item
    }
    assert counters["every"] == counters["kept"] == 1


def _route_multicast(host: Host, container: Namespace, group: str, version: int) -> None:
    """Sends to the group from the container's address through the host's stack, as a multicast router would."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    source = "10.88.0.2" if version == 4 else "fd00:88::2"
    if version == 4:
        host.run("ip", "route", "add", "239.0.0.0/8", "dev", "to-lan")
    else:
        host.run("ip", "-6", "route", "add", "ff0e::/16", "dev", "to-lan", "table", "local")
    with open_socket(host, family, "udp") as sock:
        level, option = (socket.SOL_IP, 19) if version == 4 else (socket.IPPROTO_IPV6, 75)  # IP*_TRANSPARENT
        sock.setsockopt(level, option, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"to-lan")
        sock.bind((source, 0))
        sock.sendto(b"x", (group, 9))
