"""Closed unless published: what comes from outside the network, by a route, by other networks, by the host itself.

The modes are Docker's words (gateway_mode): nat, nat-unprotected, routed, isolated; and open, for Kubernetes.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from typing import Any

import pytest
from support.frames import checksum, datagram, heard
from support.machines import NETFILTER
from support.scratch import Host, Json, Namespace, network, port
from support.traffic import Server, ask, open_socket, serving

NET = ("10.88.0.0/24", "fd00:88::/64")
OTHER = ("10.89.0.0/24", "fd00:89::/64")
INSIDE = ("10.88.0.2", "fd00:88::2")
HOST = ("198.51.100.1", "2001:db8:100::1")
LAN = ("198.51.100.2", "2001:db8:100::2")
SHORT = 0.4  # seconds of silence on a cable without delay


def with_routes(host: Host, *subnets: str) -> Namespace:
    """A neighbour that knows the way to the containers."""
    lan = host.neighbour()
    for subnet in subnets or NET:
        lan.run("ip", "route", "add", subnet, "via", HOST[":" in subnet])
    return lan


# mode: a LAN neighbour with a route reaches an unpublished port; ... a published one by the container's own address;
# the host's published port leads to the container; whom the LAN sees of it: "host", "own" or nobody
MODES: dict[str, tuple[bool, bool, bool, str]] = {
    "nat": (False, False, True, "host"),
    "nat-unprotected": (True, True, True, "host"),
    "routed": (False, True, False, "own"),
    "isolated": (False, False, False, ""),
    "open": (True, True, True, "host"),
}


def two_networks(host: Host, br_netfilter: str, mode: str, ports: list[Json]) -> Namespace:
    """Container a on a network of that mode, b on another one, and a LAN with routes to both."""
    lan = with_routes(host)
    host.bridge_netfilter(br_netfilter)
    host.add(network("net0", *NET, ports=ports, gatewayMode=mode), "a")
    host.add(network("net1", *OTHER), "b")
    return lan


@NETFILTER
@pytest.mark.parametrize("mode", MODES)
def test_modes(host: Host, br_netfilter: str, mode: str) -> None:
    unpublished, published, mapped, seen = MODES[mode]
    lan = two_networks(host, br_netfilter, mode, [port(8080, 80), port(8080, 80, "udp")])
    inside, other = host.place("a"), host.place("b")
    servers = [
        Server(place, number, protocol) for place in (inside, lan) for number in (80, 81) for protocol in ("tcp", "udp")
    ]
    with serving(*servers):
        for own, mine, theirs, addresses in zip(INSIDE, HOST, LAN, (("10.89.0.2",), ("fd00:89::2",))):
            for protocol in ("tcp", "udp"):
                assert (ask(lan, own, 81, protocol) == f"a {theirs}") is unpublished
                assert (ask(lan, own, 80, protocol) == f"a {theirs}") is published
                assert (ask(other, own, 81, protocol) == f"a {addresses[0]}") is unpublished
                assert (ask(other, own, 80, protocol) == f"a {addresses[0]}") is published
                assert (ask(lan, mine, 8080, protocol) == f"a {theirs}") is mapped
                assert ask(inside, theirs, 80, protocol) == {"host": f"lan {mine}", "own": f"lan {own}"}.get(
                    seen, "refused"
                )
    assert host.command("repair", "--check").returncode == 0
    host.delete(network("net0", *NET, gatewayMode=mode), "a")
    host.delete(network("net1", *OTHER), "b")
    assert host.elements() == {}


def echoes(place: Namespace, target: str, seconds: float = SHORT) -> bool:
    """Whether an ICMP echo request is answered."""
    six = ":" in target
    kind, answer = (128, 129) if six else (8, 0)
    request = struct.pack("!BBHHH", kind, 0, 0, 77, 1)
    request = request[:2] + struct.pack("!H", checksum(request)) + request[4:]  # of IPv6 the kernel's own counts
    with place.entered():
        sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 58 if six else 1)
    with sock:
        end = time.monotonic() + seconds
        try:
            sock.sendto(request, (target, 0))
        except OSError:  # no way there
            return False
        while (left := end - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                packet, sender = sock.recvfrom(2048)
            except OSError:
                return False
            reply = packet if six else packet[(packet[0] & 15) * 4 :]
            if reply[0] == answer and reply[4:6] == request[4:6] and sender[0] == target:
                return True
    return False


@NETFILTER
@pytest.mark.parametrize("mode", MODES)
def test_echo_requests_in_each_mode(host: Host, br_netfilter: str, mode: str) -> None:
    """As an unpublished port: a published one opens nothing but itself."""
    unpublished, _published, _mapped, seen = MODES[mode]
    lan = two_networks(host, br_netfilter, mode, [port(8080, 80)])
    host.add(network("net0", *NET, gatewayMode=mode), "sibling")
    for own, theirs in zip(INSIDE, LAN):
        assert echoes(host.place("sibling"), own, 3)
        assert echoes(host.place("a"), theirs, 3 if seen else SHORT) is bool(seen)
        assert echoes(host, own, 3 if mode != "isolated" else SHORT) is (mode != "isolated")
        for asker in (lan, host.place("b")):
            assert echoes(asker, own, 3 if unpublished else SHORT) is unpublished, (asker.name, own)


def test_ipv6_routed_with_ipv4_nat(host: Host) -> None:
    lan = with_routes(host)
    config = network("net0", *NET, ports=[port(8080, 80)], gatewayModeIPv6="routed")
    host.add(config, "a")
    with serving(Server(host.place("a"), 80), Server(lan, 80)):
        assert ask(lan, HOST[0], 8080) == f"a {LAN[0]}" and ask(lan, INSIDE[0], 80) == "silence"
        assert ask(lan, HOST[1], 8080) == "refused" and ask(lan, INSIDE[1], 80) == f"a {LAN[1]}"
        assert ask(host.place("a"), LAN[0], 80) == f"lan {HOST[0]}"
        assert ask(host.place("a"), LAN[1], 80) == f"lan {INSIDE[1]}"
    host.add(network("net0", *NET, ports=[port(8080, 80)], gatewayMode="routed"), "b")
    refused = host.refused("ADD", network("net0", *NET, gatewayModeIPv4="bridge"), "c")
    assert refused.code == 7 and "gatewayModeIPv4" in refused.words


def test_a_port_of_the_loopback_is_not_one_of_the_lan(host: Host) -> None:
    lan = with_routes(host)
    host.add(network("net0", *NET, ports=[port(8080, 80, ip="127.0.0.1")]), "a")
    with Server(host.place("a"), 80):
        assert ask(host, "127.0.0.1", 8080) == "a 10.88.0.1"
        assert ask(lan, INSIDE[0], 80) == "silence" and ask(lan, HOST[0], 8080) == "refused"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_nor_is_it_open_at_the_containers_own_address(host: Host, protocol: str) -> None:
    """Where nothing is translated, a published port is open there: but not to all, if the host alone was meant."""
    lan = with_routes(host)
    host.add(network("net1", *OTHER), "b")
    ports = [port(8080, 80, protocol, "127.0.0.1"), port(8081, 81, protocol, HOST[0]), port(8080, 82, protocol, "::")]
    host.add(network("net0", *NET, ports=ports, gatewayMode="routed"), "a")
    with serving(*(Server(host.place("a"), number, protocol) for number in (80, 81, 82))):
        for asker in (lan, host.place("b")):
            assert ask(asker, INSIDE[0], 80, protocol, SHORT) == "silence"
            assert ask(asker, INSIDE[0], 81, protocol).startswith("a ")
            assert ask(asker, INSIDE[1], 82, protocol).startswith("a ")
        assert ask(host, INSIDE[0], 80, protocol) == "a 10.88.0.1"


def test_route_localnet_only_while_a_port_needs_it(host: Host) -> None:
    key = "ipv4/conf/br-net0/route_localnet"
    plain, mapped = network("net0", *NET), network("net0", *NET, ports=[port(8080, 80)])
    host.add(plain, "a")
    assert host.sysctl(key) == "0"
    host.add(mapped, "b")
    assert host.sysctl(key) == "1"
    host.delete(mapped, "b")
    assert host.sysctl(key) == "0"


# The host is no router because of us


@pytest.mark.parametrize("version", [4, 6])
def test_the_host_becomes_no_router(host: Host, version: int) -> None:
    """Neither while it serves containers nor after, not after a rebuild, not with the state folder lost."""
    lan, far = host.neighbour("lan", 1), host.neighbour("far", 2)
    lan.run("ip", "route", "add", "198.51.101.0/24", "via", HOST[0])
    lan.run("ip", "route", "add", "2001:db8:101::/64", "via", HOST[1])
    far.run("ip", "route", "add", "198.51.100.0/24", "via", "198.51.101.1")
    far.run("ip", "route", "add", "2001:db8:100::/64", "via", "2001:db8:101::1")
    target = {4: "198.51.101.2", 6: "2001:db8:101::2"}[version]
    config = network("net0", *NET)
    with Server(far, 80):
        host.add(config, "a")
        assert ask(host.place("a"), target, 80).startswith("far ")
        assert ask(lan, target, 80) == "silence"
        host.run("nft", "flush", "ruleset")
        assert host.command("repair").returncode == 0
        assert ask(lan, target, 80) == "silence"
        host.run("rm", "-rf", "/run/nftcni")
        host.add(config, "b")
        assert ask(lan, target, 80) == "silence"
        for name in ("a", "b"):
            host.delete(config, name)
        assert ask(lan, target, 80) == "silence"
    assert host.sysctl({4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}[version]) == "0"
    assert host.elements() == {}


def test_a_host_that_was_a_router_stays_one(host: Host) -> None:
    lan, far = host.neighbour("lan", 1), host.neighbour("far", 2)
    lan.run("ip", "route", "add", "198.51.101.0/24", "via", HOST[0])
    far.run("ip", "route", "add", "198.51.100.0/24", "via", "198.51.101.1")
    host.set_sysctl("ipv4/ip_forward", "1")
    config = network("net0", NET[0])
    with Server(far, 80):
        host.add(config, "a")
        assert ask(lan, "198.51.101.2", 80) == "far 198.51.100.2"
        host.delete(config, "a")
        assert ask(lan, "198.51.101.2", 80) == "far 198.51.100.2"
    assert host.sysctl("ipv4/ip_forward") == "1"


# A link's own forwarding: what comes in by it is forwarded though the host is no router (systemd-networkd's
# IPv4Forwarding of one network). For IPv6 that is force_forwarding, from Linux 6.17 on.
OWN = {4: "ipv4/conf/{}/forwarding", 6: "ipv6/conf/{}/force_forwarding"}


@pytest.mark.parametrize("version", [4, 6])
def test_links_that_forward_on_their_own_go_on_and_the_others_do_not_begin(host: Host, version: int) -> None:
    """While there are containers, after a rebuild, with the state folder lost, and when the last one is gone."""
    places = [host.neighbour(name, number) for number, name in enumerate(("lan", "far", "third"), 1)]
    if not host.sysctl_exists(OWN[version].format("to-lan")):
        pytest.skip("NOT RUN: force_forwarding needs Linux 6.17")
    addresses = [("198.51.{}.2", "2001:db8:{}::2")[version == 6].format(99 + number) for number in (1, 2, 3)]
    for number, place in enumerate(places, 1):
        gateway = ("198.51.{}.1", "2001:db8:{}::1")[version == 6].format(99 + number)
        place.run("ip", "route", "add", "default", "via", gateway)
    for link in ("to-lan", "to-far"):
        host.set_sysctl(OWN[version].format(link), "1")
    links = ("to-lan", "to-far", "to-third")
    before = [host.sysctl(f"ipv{version}/conf/{link}/forwarding") for link in links]

    def holds(when: str) -> None:
        assert ask(places[0], addresses[1], 80).startswith("far "), when
        assert ask(places[1], addresses[0], 80).startswith("lan "), when
        assert ask(places[2], addresses[0], 80, timeout=SHORT) == "silence", f"{when}: third is no way in"

    config = network("net0", *NET)
    with serving(*(Server(place, 80) for place in places)):
        holds("before")
        host.add(config, "a")
        holds("with a container")
        assert host.command("repair", "--check").returncode == 0
        host.run("nft", "flush", "ruleset")
        assert host.command("repair").returncode == 0
        holds("after a rebuild")
        host.run("rm", "-rf", "/run/nftcni")
        host.add(config, "b")
        holds("with the state folder lost")
        for name in ("a", "b"):
            host.delete(config, name)
        holds("after the last one")
    assert host.sysctl({4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}[version]) == "0"
    assert [host.sysctl(f"ipv{version}/conf/{link}/forwarding") for link in links] == before
    assert host.elements() == {}


@pytest.mark.parametrize(("before", "lost", "after"), [("0", False, "0"), ("1", False, "1"), ("0", True, "0")])
def test_a_host_that_refuses_redirects_refuses_them_afterwards(host: Host, before: str, lost: bool, after: str) -> None:
    """The kernel accepts them whenever forwarding is switched off (inet_forward_change)."""
    host.neighbour()
    for link in ("all", "default", "to-lan"):
        host.set_sysctl(f"ipv4/conf/{link}/accept_redirects", before)
    sysctls = host.sysctls()
    host.add(network("net0", *NET), "a")
    assert host.sysctl("ipv4/conf/all/accept_redirects") == "0"
    if lost:
        host.run("rm", "-rf", "/run/nftcni")
        host.add(network("net0", *NET), "b")
        host.delete(network("net0", *NET), "b")
    host.delete(network("net0", *NET), "a")
    assert host.sysctl("ipv4/conf/all/accept_redirects") == after
    assert lost or host.sysctls() == sysctls, "that a link took router advertisements is lost as well"


def test_links_that_come_later_are_their_owners_affair(host: Host) -> None:
    """libvirt or Docker, which found that the host forwards. The last DEL does not stop that."""
    lan = host.neighbour("lan", 1)
    host.add(network("net0", NET[0]), "a")
    far = host.neighbour("far", 2)
    lan.run("ip", "route", "add", "198.51.101.0/24", "via", HOST[0])
    far.run("ip", "route", "add", "198.51.100.0/24", "via", "198.51.101.1")
    with Server(far, 80):
        assert ask(lan, "198.51.101.2", 80) == "far 198.51.100.2"
        host.delete(network("net0", NET[0]), "a")
        assert ask(lan, "198.51.101.2", 80) == "far 198.51.100.2"


FORWARD = """table {family} forward{port} {{
    chain pre {{
        type nat hook prerouting priority -90;
        {family} daddr {host} tcp dport {port} dnat to {target}
    }}
    chain post {{
        type nat hook postrouting priority 100;
        {family} daddr {target} masquerade
    }}
}}"""


@pytest.mark.parametrize("order", ["before us", "after us"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_port_forward_of_others_between_links_of_before_works(host: Host, version: int, order: str) -> None:
    """Who translates wants it forwarded, and cannot see that it is switched on for containers only: kube-proxy's node
    ports that lead to another node, a virtual machine on a bridge that has been there, a redirection to a neighbour."""
    lan, far = host.neighbour("lan", 1), host.neighbour("far", 2)
    six = version == 6
    family, target = ("ip", "ip6")[six], ("198.51.101.2", "2001:db8:101::2")[six]
    config = network("net0", *NET, ports=[port(8080, 80)])
    if order == "after us":
        host.add(config, "a")
    host.nft(FORWARD.format(family=family, host=HOST[six], port=80, target=target))
    host.nft(FORWARD.format(family=family, host=HOST[six], port=81, target=LAN[six]))
    if order == "before us":
        host.add(config, "a")
    lan.run("ip", "route", "add", target, "via", HOST[six])
    with serving(Server(far, 80), Server(lan, 81)):
        assert ask(lan, HOST[six], 80).startswith("far ")
        assert ask(lan, HOST[six], 81).startswith("lan "), "back by the link it came from"
        assert ask(lan, target, 80) == "silence", "what nobody translates"
        assert host.command("repair", "--check").returncode == 0
        host.delete(config, "a")
        assert ask(lan, HOST[six], 80).startswith("far "), "after the last container"
        assert ask(lan, target, 80) == "silence"
    for number in (80, 81):
        host.run("nft", "delete", "table", family, f"forward{number}")
    host.add(config, "b")
    host.delete(config, "b")
    assert host.sysctl({4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}[version]) == "0"
    assert host.elements() == {}


# What the connection tracker does not know


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def summed(source: str, target: str, segment: bytes) -> bytes:
    """With its checksum: the pseudo headers of both IP versions sum up to the same."""
    pseudo = packed(source) + packed(target) + struct.pack("!II", len(segment), 6)
    return segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]


def segment(source: str, target: str, flags: int) -> bytes:
    """A TCP segment of no connection."""
    return summed(source, target, struct.pack("!HHIIBBHHH", 80, 6000, 5, 77, 0x50, flags, 64240, 0, 0))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", [0x14, 0x11], ids=["RST", "FIN"])
def test_nothing_leaves_with_the_containers_address(host: Host, flags: int, version: int) -> None:
    """kubernetes#74839: INVALID packets are not translated."""
    six = version == 6
    own, mine, theirs = INSIDE[six], HOST[six], LAN[six]
    lan = with_routes(host)
    host.add(network("net0", *NET, ports=[port(8080, 80)]), "a")
    with lan.entered():
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86DD if six else 0x800))
    with host.place("a").entered():
        sender = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 6)
    protocol, source, target = (20, slice(22, 38), slice(38, 54)) if six else (23, slice(26, 30), slice(30, 34))
    with sniffer, sender:
        sender.sendto(segment(own, theirs, flags), (theirs, 0))
        sender.sendto(segment(own, theirs, 0x02), (theirs, 0))  # a SYN behind it passes, masqueraded
        sniffer.settimeout(3)
        seen: list[bytes] = []
        while not seen or seen[-1] != packed(mine):
            packet = sniffer.recv(2048)
            if packet[protocol] == 6 and packet[target] == packed(theirs):
                seen.append(packet[source])
    assert seen == [packed(mine)]


def data_segment(source: tuple[str, int], target: tuple[str, int], seq: int, ack: int) -> bytes:
    header = struct.pack("!HHIIBBHHH", source[1], target[1], seq & 0xFFFFFFFF, ack, 0x50, 0x18, 64240, 0, 0)
    return summed(source[0], target[0], header + b"stray!")


@pytest.mark.parametrize("way", ["out", "in"])
def test_a_segment_out_of_window_ends_no_connection(host: Host, way: str) -> None:
    """It is not translated, so it is the host that gets it, which knows no such connection and would reset it."""
    lan = host.neighbour()
    host.add(network("net0", *NET, ports=[port(8080, 80)]), "a")
    inside = host.place("a")
    client, server = (inside, lan) if way == "out" else (lan, inside)
    with lan.entered():
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        mouth = socket.socket(socket.AF_INET, socket.SOCK_RAW, 6)
    with sniffer, mouth, open_socket(server, socket.AF_INET, "tcp") as listener:
        sniffer.settimeout(3)
        listener.bind(("0.0.0.0", 80))
        listener.listen(1)
        with open_socket(client, socket.AF_INET, "tcp") as one:
            one.settimeout(3)
            one.connect((LAN[0], 80) if way == "out" else (HOST[0], 8080))
            other, _ = listener.accept()
            with other:
                other.settimeout(3)
                near = other if way == "out" else one  # the end that the neighbour has
                me, host_end = near.getsockname(), near.getpeername()
                near.sendall(b"mine")
                while True:  # its number in the stream, and the answer's
                    packet = sniffer.recv(2048)
                    ports = struct.unpack("!HH", packet[34:38])
                    if packet[12:14] == b"\x08\x00" and ports == (me[1], host_end[1]) and packet.endswith(b"mine"):
                        break
                seq, ack = struct.unpack("!II", packet[38:46])
                mouth.sendto(data_segment(me, host_end, seq + 3_000_000, ack), (host_end[0], 0))
                mouth.sendto(segment(LAN[0], HOST[0], 0x02), (HOST[0], 0))  # behind it a SYN, which is answered
                while (
                    packet[12:14] != b"\x08\x00"
                    or packet[23] != 6
                    or not packet[47] & 0x04
                    or packet[36:38] != b"\0\x50"
                ):
                    packet = sniffer.recv(2048)
                far = one if way == "out" else other
                assert far.recv(16) == b"mine"
                far.sendall(b"yours")
                assert near.recv(16) == b"yours"


def test_nobody_outside_comes_with_a_containers_address(host: Host) -> None:
    """A datagram is enough for an attack that needs no answer. rp_filter may be off."""
    lan = host.neighbour()
    for key in ("all", "to-lan"):
        host.set_sysctl(f"ipv4/conf/{key}/rp_filter", "0")
    host.add(network("net0", *NET, ports=[port(5300, 53, "udp")]), "a")
    host.add(network("net0", *NET), "b")
    for address in ("10.88.0.3/32", "fd00:88::3/128"):
        lan.run("ip", "addr", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
    for family, source, target in ((socket.AF_INET, "10.88.0.3", HOST[0]), (socket.AF_INET6, "fd00:88::3", HOST[1])):
        with host.place("a").entered():
            receiver = socket.socket(family, socket.SOCK_DGRAM)
        with receiver, open_socket(lan, family, "udp") as forged, open_socket(lan, family, "udp") as honest:
            receiver.settimeout(3)
            receiver.bind(("", 53))
            forged.bind((source, 0))
            forged.sendto(b"forged", (target, 5300))
            honest.sendto(b"honest", (target, 5300))
            assert receiver.recv(100) == b"honest"


@pytest.mark.parametrize("mode", ["nat", "open"])
def test_nor_with_an_address_of_the_host(host: Host, mode: str) -> None:
    """By the published port or by a route: the container would take it for the host, or for its gateway."""
    lan = with_routes(host)
    for key in ("all", "to-lan"):
        host.set_sysctl(f"ipv4/conf/{key}/rp_filter", "0")
    host.add(network("net0", *NET, ports=[port(53, 53, "udp")], gatewayMode=mode), "a")
    cable = bytes.fromhex(host.link("to-lan")["address"].replace(":", ""))
    forged = [
        datagram(source, target, 53, b"forged")
        for own, mine, gateway in zip(INSIDE, HOST, ("10.88.0.1", "fd00:88::1"))
        for target in (own, mine)
        for source in (gateway, mine)
        if source != target
    ]
    last = [datagram(theirs, mine, 53, b"last") for theirs, mine in zip(LAN, HOST)]
    for packet in last:
        assert heard(host.place("a"), 53, (lan, cable, [*forged, packet])) == {b"last"}


# No moment is open


@pytest.mark.parametrize("how", ["DEL", "GC"])
def test_isolation_holds_while_a_container_goes(host: Host, how: str) -> None:
    """Its link is down before its elements go: between the two it could reach other networks' unpublished ports."""
    host.add(network("net1", *OTHER), "victim")
    for number in range(4):
        name, config = f"w{number}", network("net0", *NET)
        host.add(config, name)
        got: list[str] = []
        stop = threading.Event()

        def flood(place: Namespace, got: list[str], stop: threading.Event) -> None:
            while not stop.is_set():
                got.append(ask(place, "10.89.0.2", 80, timeout=0.02))

        with Server(host.place("victim"), 80):
            threads = [threading.Thread(target=flood, args=(host.place(name), got, stop)) for _ in range(3)]
            for thread in threads:
                thread.start()
            time.sleep(0.05)
            if how == "DEL":
                host.delete(config, name)
            else:
                assert host.cni("GC", {**config, "cni.dev/valid-attachments": []}).status == 0
            stop.set()
            for thread in threads:
                thread.join()
        assert not [answer for answer in got if answer.startswith("victim")]


@pytest.mark.parametrize("how", ["DEL", "GC"])
def test_all_flows_of_a_container_end_with_it(host: Host, how: str) -> None:
    """Also those that it began: what a server says late would reach who has its address next. The sibling's stay."""
    lan = host.neighbour()
    config: Any = network("net0", *NET, ports=[port(8080, 80), port(8080, 80, "udp")])
    host.add(config, "a")
    host.add(network("net0", *NET), "b")
    inside, sibling = host.place("a"), host.place("b")
    servers = [Server(place, 80, protocol) for place in (lan, inside) for protocol in ("tcp", "udp")]
    with serving(*servers):
        for mine, theirs in zip(HOST, LAN):
            for protocol in ("tcp", "udp"):
                assert ask(inside, theirs, 80, protocol) == f"lan {mine}"
                assert ask(lan, mine, 8080, protocol) == f"a {theirs}"
                assert ask(sibling, theirs, 80, protocol) == f"lan {mine}"

    def flows(*addresses: str) -> list[str]:
        listed = host.run("sh", "-c", "conntrack -L -f ipv4; conntrack -L -f ipv6")
        return [line for line in listed.splitlines() if any(f"={address} " in line for address in addresses)]

    assert len(flows(*INSIDE)) == 8
    kept = len(flows("10.88.0.3", "fd00:88::3"))
    if how == "DEL":
        host.delete(config, "a")
    else:
        valid = [{"containerID": "b", "ifname": "eth0"}]
        assert host.cni("GC", {**config, "cni.dev/valid-attachments": valid}).status == 0
    assert flows(*INSIDE) == []
    assert len(flows("10.88.0.3", "fd00:88::3")) == kept >= 4
