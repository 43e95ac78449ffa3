"""Containers that send what they should not: forged sources, router advertisements, frames past a network's limits."""

from __future__ import annotations

import socket
import struct
import time

import pytest
from support.machines import NETFILTER
from support.scratch import Host, Namespace, network, port
from support.traffic import Server, ask

NET = ("10.88.0.0/24", "fd00:88::/64")
OTHER = ("10.89.0.0/24", "fd00:89::/64")
LAN = ("198.51.100.2", "2001:db8:100::2")


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def datagram(source: str, target: str, number: int, data: bytes) -> bytes:
    """A UDP packet, IPv4 or IPv6, with whatever source."""
    data += b"\0" * (len(data) % 2)
    udp = struct.pack("!HHHH", 4000, number, 8 + len(data), 0) + data
    if ":" not in source:
        addresses = socket.inet_aton(source) + socket.inet_aton(target)
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
        header = header[:10] + struct.pack("!H", checksum(header + addresses)) + addresses
        return b"\x08\x00" + header + udp
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    total = checksum(addresses + struct.pack("!II", len(udp), 17) + udp) or 0xFFFF
    return (
        b"\x86\xdd"
        + struct.pack("!IHBB", 0x60000000, len(udp), 17, 64)
        + addresses
        + udp[:6]
        + struct.pack("!H", total)
        + udp[8:]
    )


def mac(place: Namespace, link: str = "eth0") -> bytes:
    return bytes.fromhex(place.link(link)["address"].replace(":", ""))


def send(place: Namespace, to: bytes, *packets: bytes) -> None:
    with place.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sock:
        sock.bind(("eth0", 0))
        for packet in packets:
            sock.send(to + mac(place) + packet)


def heard(place: Namespace, number: int, *senders: tuple[Namespace, bytes, list[bytes]]) -> set[bytes]:
    """What arrives at the port until "last" does, which the last sender sends."""
    found: set[bytes] = set()
    with place.entered():
        receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with receiver:
        receiver.settimeout(3)
        receiver.bind(("::", number))
        for sender, to, packets in senders:
            send(sender, to, *packets)
        while b"last" not in found:
            found.add(receiver.recv(100).rstrip(b"\0"))
    return found


@NETFILTER
@pytest.mark.parametrize("rp_filter", ["0", "2"])
def test_sources_that_are_not_the_bridges(host: Host, br_netfilter: str, rp_filter: str) -> None:
    """The LAN neighbour's, another network's and anybody's: neither out, nor to a published port, nor to the host."""
    lan = host.neighbour()
    host.bridge_netfilter(br_netfilter)
    for key in ("all", "default"):
        host.set_sysctl(f"ipv4/conf/{key}/rp_filter", rp_filter)
    host.add(network("net0", *NET), "a")
    host.add(network("net1", *OTHER, ports=[port(5300, 53, "udp")]), "b")
    gate, inside = mac(host, "br-net0"), host.place("a")
    own = {4: ("10.88.0.2", "198.51.100.1", LAN[0]), 6: ("fd00:88::2", "2001:db8:100::1", LAN[1])}
    forged = {4: (LAN[0], "10.89.0.2", "203.0.113.9"), 6: (LAN[1], "fd00:89::2", "2001:db8:9::9")}
    for version in (4, 6):
        mine, hosts, far = own[version]
        for place, target, number, arrives in (
            (host.place("b"), hosts, 5300, 53),
            (host, hosts, 6000, 6000),
            (lan, far, 7000, 7000),
        ):
            packets = [datagram(source, target, number, b"forged") for source in forged[version] if source != target]
            packets.append(datagram(mine, target, number, b"last"))
            assert heard(place, arrives, (inside, gate, packets)) == {b"last"}, (place.name, version)


@NETFILTER
def test_isolated_ports_do_not_meet_by_the_gateway(host: Host, br_netfilter: str) -> None:
    host.bridge_netfilter(br_netfilter)
    ports = [port(8080, 80)]
    for name in "ab":
        host.add(network("net0", *NET, ports=ports if name == "a" else (), portIsolation=True), name)
    inside = host.place("b")
    for address, gateway in (("10.88.0.2/32", "10.88.0.1"), ("fd00:88::2/128", "fd00:88::1")):
        inside.run("ip", "route", "add", address, "via", gateway, "dev", "eth0")
    with Server(host.place("a"), 80):
        assert ask(inside, "10.88.0.2", 80) == ask(inside, "fd00:88::2", 80) == "silence"
        if br_netfilter == "0":  # otherwise the frame stays on the bridge, which parts the ports
            assert ask(inside, "10.88.0.1", 8080).startswith("a ")


@NETFILTER
@pytest.mark.parametrize("keys", [{"isGateway": False}, {"gatewayMode": "isolated"}], ids=["no-gateway", "isolated"])
def test_an_internal_network_leaks_nothing(host: Host, br_netfilter: str, keys: dict[str, object]) -> None:
    """Frames to the bridge's MAC address reach neither the LAN, nor other networks, nor the host. Siblings meet."""
    lan = host.neighbour()
    host.bridge_netfilter(br_netfilter)
    host.add(network("net1", *OTHER), "other")
    for name in "ab":
        host.add(network("inner", *NET, **keys), name)
    inside, honest = host.place("a"), host.place("other")
    to_bridge, to_other = mac(host, "br-inner"), mac(host, "br-net1")
    for place, target, source in (
        (lan, LAN[0], "10.88.0.2"),
        (lan, LAN[1], "fd00:88::2"),
        (host, "198.51.100.1", "10.88.0.2"),
    ):
        last = datagram("fd00:89::2" if ":" in target else "10.89.0.2", target, 7000, b"last")
        packets = [datagram(source, target, 7000, b"leaked")]
        assert heard(place, 7000, (inside, to_bridge, packets), (honest, to_other, [last])) == {b"last"}
    with Server(inside, 80):
        assert ask(host.place("b"), "10.88.0.2", 80) == "a 10.88.0.3"
        assert ask(host.place("b"), "fd00:88::2", 80) == "a fd00:88::3"


def link_locals(place: Namespace) -> list[str]:
    found = place.json("ip", "-j", "addr", "show", "dev", "eth0", "scope", "link")
    return [entry["local"] for item in found for entry in item.get("addr_info", []) if "local" in entry]


def arp(sender: bytes, says: str, to: bytes, target: str) -> bytes:
    addresses = (socket.inet_aton(text) for text in (says, target))
    return b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 2) + sender + next(addresses) + to + next(addresses)


def neighbour_advertisement(sender: bytes, says: str, target: str) -> bytes:
    packed = b"".join(socket.inet_pton(socket.AF_INET6, text) for text in (says, target))
    body = struct.pack("!BBHI", 136, 0, 0, 0x60000000) + packed[:16] + b"\x02\x01" + sender
    total = checksum(packed + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    return b"\x86\xdd" + struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + packed + body


@pytest.mark.parametrize("keys", [{}, {"antiSpoof": False}], ids=["default", "off"])
def test_a_siblings_and_the_gateways_addresses(host: Host, keys: dict[str, object]) -> None:
    """Neither in ARP, nor in neighbour advertisements, nor as a source, nor the MAC address in a frame."""
    for name in ("victim", "rogue"):
        host.add(network("net0", *NET, **keys), name)
    victim, rogue = host.place("victim"), host.place("rogue")
    gate, theirs, own = mac(host, "br-net0"), mac(victim), mac(rogue)
    with Server(host, 8000):
        for address in ("10.88.0.1", "fd00:88::1"):
            assert ask(victim, address, 8000).startswith("host ")
    send(
        rogue,
        theirs,
        arp(own, "10.88.0.1", theirs, "10.88.0.2"),
        neighbour_advertisement(own, "fd00:88::1", "fd00:88::2"),
    )
    send(
        rogue, gate, arp(own, "10.88.0.2", gate, "10.88.0.1"), neighbour_advertisement(own, "fd00:88::2", "fd00:88::1")
    )
    forged = [datagram("10.88.0.1", "10.88.0.2", 53, b"gate"), datagram("fd00:88::1", "fd00:88::2", 53, b"gate6")]
    last = datagram("10.88.0.3", "10.88.0.2", 53, b"last")
    arrived = heard(victim, 53, (rogue, theirs, [*forged, last]))
    assert arrived == ({b"gate", b"gate6", b"last"} if keys else {b"last"})
    known = {
        bytes.fromhex(entry["lladdr"].replace(":", ""))
        for place in (victim, host)
        for entry in place.json("ip", "-j", "neigh", "show")
        if entry["dst"] in ("10.88.0.1", "10.88.0.2", "fd00:88::1", "fd00:88::2") and "lladdr" in entry
    }
    assert (own in known) is bool(keys)
    assert host.command("repair", "--check").returncode == 0


@pytest.mark.parametrize("kind", ["second-address", "macvlan"])
def test_addresses_that_are_nobodys_pass(host: Host, kind: str) -> None:
    """keepalived's, and those of interfaces inside the container with MAC addresses of their own."""
    for name in ("a", "b"):
        host.add(network("net0", *NET), name)
    inside, link = host.place("a"), "eth0"
    if kind == "macvlan":
        inside.run("ip", "link", "add", "sub", "link", "eth0", "type", "macvlan", "mode", "bridge")
        inside.set_sysctl("ipv6/conf/sub/accept_dad", "0")
        inside.run("ip", "link", "set", "sub", "up")
        link = "sub"
    inside.run("ip", "addr", "add", "10.88.0.100/24", "dev", link)
    inside.run("ip", "addr", "add", "fd00:88::100/64", "dev", link, "nodad")
    with Server(inside, 80):
        for address in ("10.88.0.100", "fd00:88::100"):
            assert ask(host.place("b"), address, 80, timeout=3).startswith("a ")
            assert ask(host, address, 80, timeout=3).startswith("a ")


def advertisement(sender: Namespace) -> bytes:
    """A router advertisement: the sender is a router, and there is a prefix."""
    (source,) = link_locals(sender)
    packed = socket.inet_pton(socket.AF_INET6, source), socket.inet_pton(socket.AF_INET6, "ff02::1")
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 86400, 0) + socket.inet_pton(
        socket.AF_INET6, "2001:db8:bad::"
    )
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix
    total = checksum(b"".join(packed) + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    return b"\x86\xdd" + struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + b"".join(packed) + body


@pytest.mark.parametrize("adopted", [False, True], ids=["ours", "adopted"])
@pytest.mark.parametrize("subnets", [NET, NET[:1]], ids=["dual", "ipv4"])
def test_router_advertisements_of_a_container(host: Host, adopted: bool, subnets: tuple[str, ...]) -> None:
    """CVE-2020-10749. In a network without IPv6 containers have none; here the attacker gives himself one."""
    if adopted:
        host.run("ip", "link", "add", "br-net0", "up", "type", "bridge")
        assert host.sysctl("ipv6/conf/br-net0/accept_ra") == "1"
    for name in ("victim", "rogue"):
        host.add(network("net0", *subnets), name)
    rogue = host.place("rogue")
    assert rogue.sysctl("ipv6/conf/eth0/disable_ipv6") == ("0" if subnets == NET else "1")
    rogue.set_sysctl("ipv6/conf/eth0/disable_ipv6", "0")
    rogue.set_sysctl("ipv6/conf/eth0/accept_dad", "0")
    while not link_locals(rogue):
        time.sleep(0.01)
    send(rogue, b"\x33\x33\0\0\0\x01", advertisement(rogue))
    with Server(host.place("victim"), 80):
        assert ask(rogue, "10.88.0.2", 80) == "victim 10.88.0.3", "what was sent before has arrived"
    for place in (host.place("victim"), host):
        assert "2001:db8:bad" not in place.run("ip", "-6", "addr") + place.run("ip", "-6", "route")
        assert "proto ra" not in place.run("ip", "-6", "route")
