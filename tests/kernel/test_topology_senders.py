"""A published port answers whoever asks, and whose address the container sees: other machines and second addresses on
its bridge, containers on several networks, what somebody else has translated. Plain senders are `test_ports_matrix`.
"""

from __future__ import annotations

import errno
import socket
import sys
import time

import pytest
from support.machines import NETFILTER, machine
from support.scratch import Host, Namespace, network, port
from support.traffic import Server, ask, ask_on, open_socket, serving

NET = ("10.88.0.0/24", "fd00:88::/64")
OTHER = ("10.89.0.0/24", "fd00:89::/64")
HOST = ("198.51.100.1", "2001:db8:100::1")
LAN = ("198.51.100.2", "2001:db8:100::2")
PORTS = [port(8080, 80), port(8080, 80, "udp")]


@NETFILTER
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_any_machine_on_the_containers_bridge(host: Host, br_netfilter: str, protocol: str) -> None:
    """plugins#469: the answer went to it directly, from an address that it had not asked."""
    host.neighbour()
    host.bridge_netfilter(br_netfilter)
    host.add(network("net0", *NET, ports=PORTS), "web")
    gateways = ("10.88.0.1", "fd00:88::1")
    vm = machine(host, "br-net0", "10.88.0.50/24", "fd00:88::50/64", gateways=gateways)
    with Server(host.place("web"), 80, protocol):
        for address in HOST:
            assert ask(vm, address, 8080, protocol, timeout=3).startswith("web ")


@NETFILTER
def test_a_second_address_of_a_sibling(host: Host, br_netfilter: str) -> None:
    """One that keepalived gave it: a published port answers it, and it gets out with the host's address."""
    lan = host.neighbour()
    host.bridge_netfilter(br_netfilter)
    host.add(network("net0", *NET, ports=PORTS), "web")
    host.add(network("net0", *NET), "sibling")
    sibling = host.place("sibling")
    second = {4: "10.88.0.100", 6: "fd00:88::100"}
    sibling.run("ip", "addr", "add", f"{second[4]}/24", "dev", "eth0")
    sibling.run("ip", "addr", "add", f"{second[6]}/64", "dev", "eth0", "nodad")
    with serving(Server(host.place("web"), 80), Server(lan, 80)):
        for target, number, answer in ((HOST, 8080, "web "), (LAN, 80, "lan 198.51.100.1 lan 2001:db8:100::1")):
            for address in target:
                version = 6 if ":" in address else 4
                with open_socket(sibling, 10 if version == 6 else 2, "tcp") as sock:
                    sock.bind((second[version], 0))
                    got = ask_on(sock, address, number, 3)
                assert got.startswith(answer) if number == 8080 else got in answer and got != "silence"


@NETFILTER
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_container_that_asks_itself_from_its_second_address(host: Host, br_netfilter: str, protocol: str) -> None:
    """Two range sets of one family. Its own address as a sender is one that it would drop."""
    host.neighbour()
    host.bridge_netfilter(br_netfilter)
    subnets = (NET[0], "10.99.0.0/24", NET[1], "fd00:99::/64")
    host.add(network("net0", *subnets, ports=PORTS), "web")
    with Server(host.place("web"), 80, protocol):
        for source in ("10.88.0.2", "10.99.0.2", "fd00:88::2", "fd00:99::2"):
            six = ":" in source
            with open_socket(host.place("web"), socket.AF_INET6 if six else socket.AF_INET, protocol) as sock:
                sock.bind((source, 0))
                assert ask_on(sock, HOST[six], 8080).startswith("web "), source
    host.delete(network("net0", *subnets), "web")
    assert host.elements() == {}


@NETFILTER
@pytest.mark.parametrize("rp_filter", ["0", "1", "2"])
def test_a_container_on_two_networks(host: Host, br_netfilter: str, rp_filter: str) -> None:
    """moby#38784: a client on the second network got its answer by the wrong interface."""
    lan = host.neighbour()
    host.bridge_netfilter(br_netfilter)
    for key in ("all", "default"):
        host.set_sysctl(f"ipv4/conf/{key}/rp_filter", rp_filter)
    host.add(network("net0", *NET, ports=PORTS), "web")
    host.add(network("net1", *OTHER, ports=PORTS), "web", ifname="eth1")
    for net, subnets, name in (("net0", NET, "a"), ("net1", OTHER, "b")):
        host.add(network(net, *subnets), name)
    with Server(host.place("web"), 80):
        for name in ("a", "b", "web"):
            for address in HOST:
                assert ask(host.place(name), address, 8080, timeout=3).startswith("web "), (name, address)
        for address, seen in zip(HOST, LAN):
            assert ask(lan, address, 8080, timeout=3) == f"web {seen}"
    host.delete(network("net1", *OTHER), "web", ifname="eth1")
    assert not [name for name in host.elements() if name.startswith("cross")]
    assert host.command("repair", "--check").returncode == 0


@pytest.mark.parametrize("mode", ["bridge", "ptp"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_host_by_its_addresses_on_either_network(host: Host, mode: str, protocol: str) -> None:
    """It asks with that very address, and a UDP server's answer is sent from the interface that leads there."""
    keys = {"mode": "ptp", "bridge": None} if mode == "ptp" else {}
    host.add(network("net0", *NET, ports=PORTS, **keys), "web")
    host.add(network("net1", *OTHER, **keys), "web", ifname="eth1")
    gateways = ("10.88.0.1", "fd00:88::1", "10.89.0.1", "fd00:89::1")
    with Server(host.place("web"), 80, protocol):
        for address in gateways:
            assert ask(host, address, 8080, protocol).startswith("web "), address
    assert host.command("repair", "--check").returncode == 0
    host.delete(network("net1", *OTHER, **keys), "web", ifname="eth1")
    assert len(host.elements()["self4"]) == len(host.elements()["self6"]) == 1
    host.delete(network("net0", *NET, **keys), "web")
    assert host.elements() == {}


@pytest.mark.parametrize("mode", ["bridge", "ptp"])
@pytest.mark.parametrize("rp_filter", ["0", "1", "2"])
def test_a_port_of_the_second_network(host: Host, rp_filter: str, mode: str) -> None:
    """The container answers by its first one, where a strict rp_filter would drop it."""
    lan = host.neighbour()
    for key in ("all", "default"):
        host.set_sysctl(f"ipv4/conf/{key}/rp_filter", rp_filter)
    keys = {"mode": "ptp", "bridge": None} if mode == "ptp" else {}
    host.add(network("net0", *NET, **keys), "web")
    host.add(network("net1", *OTHER, ports=PORTS, **keys), "web", ifname="eth1")
    for net, subnets, name in (("net0", NET, "a"), ("net1", OTHER, "b")):
        host.add(network(net, *subnets, **keys), name)
    with Server(host.place("web"), 80):
        for place in (lan, host.place("a"), host.place("b"), host):
            for address in HOST:
                assert ask(place, address, 8080, timeout=3).startswith("web "), (place.name, address)


@NETFILTER
def test_what_somebody_else_has_translated_keeps_the_pods_address(host: Host, br_netfilter: str) -> None:
    """kube-proxy's ClusterIP. Without br_netfilter the answer would not pass the host unless it is masqueraded."""
    host.bridge_netfilter(br_netfilter)
    for name in ("a", "b"):
        host.add(network("net0", *NET), name)
    host.nft(
        """table ip services { chain c { type nat hook prerouting priority -90;
           ip daddr 10.96.0.10 tcp dport 80 dnat to 10.88.0.3:8000; }; }"""
    )
    with Server(host.place("b"), 8000):
        got = ask(host.place("a"), "10.96.0.10", 80, timeout=3)
        assert got == ("b 10.88.0.2" if br_netfilter == "1" else "b 10.88.0.1")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_of_all_addresses_is_not_one_of_127_0_0_53(host: Host, protocol: str) -> None:
    host.add(network("net0", *NET, ports=[port(53, 5353, protocol)]), "dns")
    with serving(Server(host.place("dns"), 5353, protocol), Server(host, 53, protocol, "stub", "127.0.0.53")):
        assert ask(host, "127.0.0.53", 53, protocol) == "stub 127.0.0.1"
        assert ask(host, "127.0.0.1", 53, protocol) == "dns 10.88.0.1"
    host.add(network("net0", *NET, ports=[port(54, 5353, protocol, "127.0.0.54")]), "dns2")
    with Server(host.place("dns2"), 5353, protocol):
        assert ask(host, "127.0.0.54", 54, protocol) == "dns2 10.88.0.1", "asked for by its address"


def connected(sock: socket.socket, place: tuple[str, int, int, int]) -> bool:
    """False while the client's own address is tentative."""
    try:
        sock.connect(place)
    except OSError as error:
        if error.errno != errno.ENETUNREACH:
            raise
        return False
    return True


def test_a_link_local_client_is_refused_at_once(host: Host) -> None:
    lan = host.neighbour()
    host.add(network("net0", *NET, ports=PORTS), "web")
    (address,) = [
        entry["local"]
        for entry in host.json("ip", "-j", "-6", "addr", "show", "dev", "to-lan")[0]["addr_info"]
        if entry["scope"] == "link"
    ]
    with Server(host.place("web"), 80), open_socket(lan, 10, "tcp") as sock:
        sock.settimeout(3)
        place = (address, 8080, 0, lan.link("eth0")["ifindex"])
        with pytest.raises(ConnectionRefusedError):
            for _ in range(50):
                if connected(sock, place):
                    break
                time.sleep(0.1)


@pytest.mark.parametrize("masq", [True, False])
def test_prefixes_that_are_never_masqueraded(host: Host, masq: bool) -> None:
    """Pods of other nodes, a VPN. The next container is asked for others, around the first one's."""
    lan, far = host.neighbour(), host.neighbour("far", 2)
    for other, via in ((lan, ("198.51.100.1", "2001:db8:100::1")), (far, ("198.51.101.1", "2001:db8:101::1"))):
        for subnet, gateway in zip(NET, via):
            other.run("ip", "route", "add", subnet, "via", gateway)
    keys = {"nonMasqueradeCIDRs": ["198.51.100.0/24", "2001:db8:100::/64", "198.51.100.0/25"], "ipMasq": masq}
    config = network("net0", *NET, **keys)
    host.add(config, "a")
    with serving(Server(lan, 80), Server(far, 80)):
        assert ask(host.place("a"), "198.51.100.2", 80) == "lan 10.88.0.2"
        assert ask(host.place("a"), "2001:db8:100::2", 80) == "lan fd00:88::2"
        assert ask(host.place("a"), "198.51.101.2", 80) == ("far 198.51.101.1" if masq else "far 10.88.0.2")
        wider = network("net0", *NET, nonMasqueradeCIDRs=["198.51.0.0/16"])
        host.add(wider, "b")
        assert host.command("repair", "--check").returncode == 0
        host.nft("flush ruleset")
        assert host.command("repair").returncode == 0, "now the wider one alone is in the table"
        assert ask(host.place("b"), "198.51.101.2", 80) == "far 10.88.0.3"
    host.delete(wider, "b")
    assert host.command("repair", "--check").returncode == 0
    with Server(lan, 80):
        assert ask(host.place("a"), "198.51.100.2", 80) == "lan 10.88.0.2"
    host.delete(config, "a")
    assert host.elements() == {}


@pytest.mark.parametrize("value", ["x", "10.0.0.0/33", 5, "10.0.0.0/8/8"])
def test_prefixes_that_are_none_are_refused(host: Host, value: object) -> None:
    assert host.refused("ADD", network("net0", nonMasqueradeCIDRs=[value])).code == 7


@NETFILTER
def test_siblings_with_addresses_of_their_own(host: Host, br_netfilter: str) -> None:
    """Outside of the bridge's subnets: unicast, multicast and broadcast, and IPv6, which begins with a multicast."""
    host.bridge_netfilter(br_netfilter)
    for name in ("one", "two"):
        host.add(network("net0", *NET), name)
    one, two = host.place("one"), host.place("two")
    for number, place in enumerate((one, two), 1):
        place.run("ip", "addr", "add", f"192.168.77.{number}/24", "brd", "+", "dev", "eth0")
        place.run("ip", "addr", "add", f"fd77::{number}/64", "dev", "eth0", "nodad")
    with Server(two, 80):
        assert ask(one, "192.168.77.2", 80) == "two 192.168.77.1"
        assert ask(one, "fd77::2", 80) == "two fd77::1"
    for target, source in (
        ("224.0.0.251", "192.168.77.1"),
        ("192.168.77.255", "192.168.77.1"),
        ("255.255.255.255", "192.168.77.1"),
        ("ff02::fb", "fd77::1"),
    ):
        assert multicast(one, source, two, target) == source, target


def multicast(sender: Namespace, source: str, receiver: Namespace, target: str) -> str:
    """The source that the receiver sees, "silence" if nothing comes."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with receiver.entered():
        ear = socket.socket(family, socket.SOCK_DGRAM)
        ear.bind(("", 5353))
        index = socket.if_nametoindex("eth0").to_bytes(4, sys.byteorder)
        group = socket.inet_pton(family, target)
        if family == socket.AF_INET6:
            ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + index)
        elif target.startswith("224."):
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + bytes(4) + index)
    with sender.entered():
        mouth = socket.socket(family, socket.SOCK_DGRAM)
        mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        mouth.bind((source, 0))
    with ear, mouth:
        ear.settimeout(1)
        mouth.sendto(b"?", (target, 5353))
        try:
            return str(ear.recvfrom(100)[1][0]).partition("%")[0]
        except socket.timeout:
            return "silence"
