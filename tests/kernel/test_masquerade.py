"""Masquerade: whose address a connection from a container shows to others. Who may open one is `test_isolation`."""

from __future__ import annotations

import socket

import pytest
from support.scratch import Host, Namespace, network, port
from support.traffic import Server, ask, open_socket, serving

NETS = {"net0": ("10.88.0.0/24", "fd00:88::/64"), "net1": ("10.89.0.0/24", "fd00:89::/64")}


def attach(host: Host, name: str, net: str, **keys: object) -> Namespace:
    host.add(network(net, *NETS[net], **keys), name)
    return host.place(name)


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


@pytest.mark.parametrize("br_netfilter", ["0", "1"])
def test_only_those_who_ask_for_it_are_masqueraded(host: Host, br_netfilter: str) -> None:
    """Two containers of one network with different settings, and two neighbours: each sees the address on its cable."""
    neighbours = [host.neighbour("lan", 1), host.neighbour("far", 2)]
    host.bridge_netfilter(br_netfilter)
    for number, other in enumerate(neighbours):
        other.run("ip", "route", "add", "10.88.0.0/24", "via", f"198.51.{100 + number}.1")
    masked, bare = attach(host, "a", "net0"), attach(host, "b", "net0", ipMasq=False)
    with serving(*(Server(other, 80, protocol) for other in neighbours for protocol in ("tcp", "udp"))):
        for protocol in ("tcp", "udp"):
            assert ask(masked, "198.51.100.2", 80, protocol) == "lan 198.51.100.1"
            assert ask(masked, "198.51.101.2", 80, protocol) == "far 198.51.101.1"
            assert ask(bare, "198.51.100.2", 80, protocol) == "lan 10.88.0.3"
    host.delete(network("net0", *NETS["net0"]), "a")
    with Server(neighbours[0], 80):
        assert ask(bare, "198.51.100.2", 80) == "lan 10.88.0.3"


@pytest.mark.parametrize("br_netfilter", ["0", "1"])
def test_none_between_networks_that_are_open_to_each_other(host: Host, br_netfilter: str) -> None:
    host.bridge_netfilter(br_netfilter)
    one, other = (attach(host, name, net, isolation=False) for name, net in (("a", "net0"), ("b", "net1")))
    with Server(one, 80):
        assert ask(other, "10.88.0.2", 80, timeout=3) == "a 10.89.0.2"
        assert ask(other, "fd00:88::2", 80, timeout=3) == "a fd00:89::2"


def test_an_answer_of_a_published_port_comes_from_the_host(host: Host) -> None:
    """And does not turn into a connection of its own: the client's socket is connected, it hears no other sender."""
    lan = host.neighbour()
    container = attach(host, "a", "net0", ports=[port(5300, 53, "udp")])
    with Server(container, 53, "udp"):
        assert ask(lan, "198.51.100.1", 5300, "udp") == "a 198.51.100.2"
        assert ask(lan, "2001:db8:100::1", 5300, "udp") == "a 2001:db8:100::2"


def test_the_host_itself_is_never_masqueraded_into(host: Host) -> None:
    """A service of the host sees the container, by the gateway's address and by the host's other ones."""
    host.neighbour()
    container = attach(host, "a", "net0")
    with Server(host, 8000):
        for address, seen in (
            ("10.88.0.1", "10.88.0.2"),
            ("198.51.100.1", "10.88.0.2"),
            ("fd00:88::1", "fd00:88::2"),
            ("2001:db8:100::1", "fd00:88::2"),
        ):
            assert ask(container, address, 8000) == f"host {seen}"


def test_nothing_is_masqueraded_once_the_container_is_gone(host: Host) -> None:
    """Somebody else behind the host, a router, who has the address next keeps it."""
    host.set_sysctl("ipv4/ip_forward", "1")
    lan, far = host.neighbour("lan", 1), host.neighbour("far", 2)
    lan.run("ip", "route", "add", "10.88.0.0/24", "via", "198.51.100.1")
    attach(host, "a", "net0")
    host.delete(network("net0", *NETS["net0"]), "a")
    host.run("ip", "route", "add", "10.88.0.2", "via", "198.51.101.2")
    far.run("ip", "addr", "add", "10.88.0.2/32", "dev", "eth0")
    far.run("ip", "route", "add", "198.51.100.0/24", "via", "198.51.101.1", "src", "10.88.0.2")
    with Server(lan, 80):
        assert ask(far, "198.51.100.2", 80) == "lan 10.88.0.2"
