"""Containers that send what they should not: forged sources, router advertisements, frames past a network's limits."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
from support.frames import (
    PRIORITY_TAGS,
    advertisement,
    answers_arp,
    arp,
    datagram,
    heard,
    link_locals,
    mac,
    neighbour_advertisement,
    send,
    to_the_host,
)
from support.machines import NETFILTER
from support.scratch import Host, network, port
from support.traffic import Server, ask

NET = ("10.88.0.0/24", "fd00:88::/64")
OTHER = ("10.89.0.0/24", "fd00:89::/64")
LAN = ("198.51.100.2", "2001:db8:100::2")


WAYS = pytest.mark.parametrize("way", [0, 1, 2], ids=["bridge", "broadcast", "port"])


@NETFILTER
@pytest.mark.parametrize("way", [0, 1, 2, 3, 4], ids=["bridge", "broadcast", "port", "sibling", "unknown"])
@pytest.mark.parametrize("rp_filter", ["0", "2"])
def test_sources_that_are_not_the_bridges(host: Host, br_netfilter: str, rp_filter: str, way: int) -> None:
    """The LAN neighbour's, another network's and anybody's: neither out, nor to a published port, nor to the host. In
    frames to the port's own MAC address they passed as frames that stay on the bridge, and in those to a sibling's or
    to none, which br_netfilter gives to the host once they are translated."""
    lan = host.neighbour()
    host.bridge_netfilter(br_netfilter)
    for key in ("all", "default"):
        host.set_sysctl(f"ipv4/conf/{key}/rp_filter", rp_filter)
    for name in ("a", "sibling"):
        host.add(network("net0", *NET), name)
    host.add(network("net1", *OTHER, ports=[port(5300, 53, "udp")]), "b")
    gate, inside = mac(host, "br-net0"), host.place("a")
    by = [*to_the_host(host, "br-net0", "a"), mac(host.place("sibling")), bytes.fromhex("020000000099")][way]
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
            last = [datagram(mine, target, number, b"last")]
            assert heard(place, arrives, (inside, by, packets), (inside, gate, last)) == {b"last"}, (
                place.name,
                version,
            )


@NETFILTER
def test_a_source_behind_another_bridges_vlan(host: Host, br_netfilter: str) -> None:
    """Only what comes from a bridge of VLANs may have one. The VLAN is the LAN's link here: not every kernel has
    VLANs of bridges."""
    host.neighbour()
    host.bridge_netfilter(br_netfilter)
    for key in ("all", "default"):
        host.set_sysctl(f"ipv4/conf/{key}/rp_filter", "0")
    host.add(network("net0", *NET), "a")
    inside, gate = host.place("a"), mac(host, "br-net0")
    forged, last = (
        [datagram(source, "10.88.0.1", 7000, data)] for source, data in ((LAN[0], b"vlan"), ("10.88.0.2", b"last"))
    )
    host.nft("add element inet nftcni vlans { to-lan }")
    assert heard(host, 7000, (inside, gate, forged), (inside, gate, last)) == {b"last"}
    host.nft("add element inet nftcni vlan_bridges { br-net0 }")
    assert heard(host, 7000, (inside, gate, forged), (inside, gate, last)) == {b"vlan", b"last"}


@NETFILTER
def test_sources_that_nobody_on_the_bridge_has(host: Host, br_netfilter: str) -> None:
    """None at all, the bridge's own link-local address, and a forged one to an anycast address, in a multicast's frame;
    the container's own link-local address is heard."""
    host.neighbour()
    host.bridge_netfilter(br_netfilter)
    host.add(network("net0", *NET), "a")
    inside, gate = host.place("a"), mac(host, "br-net0")
    (bridges,) = link_locals(host, "br-net0")
    forged = [datagram(source, "fd00:88::1", 7000, b"forged") for source in ("::", bridges)]
    anycasts = [datagram(LAN[1], target, 7000, b"anycast") for target in ("fd00:88::", "2001:db8:100::")]
    last = [datagram(link_locals(inside)[0], "fd00:88::1", 7000, b"last")]
    to_all = bytes.fromhex("333300000001")
    assert heard(host, 7000, (inside, gate, forged), (inside, to_all, anycasts), (inside, gate, last)) == {b"last"}


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
@WAYS
@pytest.mark.parametrize("keys", [{"isGateway": False}, {"gatewayMode": "isolated"}], ids=["no-gateway", "isolated"])
def test_an_internal_network_leaks_nothing(host: Host, br_netfilter: str, keys: dict[str, object], way: int) -> None:
    """Frames to the bridge, to all or to the port reach neither the LAN, nor other networks, nor the host. Siblings
    meet."""
    lan = host.neighbour()
    host.bridge_netfilter(br_netfilter)
    host.add(network("net1", *OTHER), "other")
    for name in "ab":
        host.add(network("inner", *NET, **keys), name)
    inside, honest = host.place("a"), host.place("other")
    to_bridge, to_other = to_the_host(host, "br-inner", "a")[way], mac(host, "br-net1")
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


@NETFILTER
@pytest.mark.parametrize("keys", [{"isGateway": False}, {"gatewayMode": "isolated"}], ids=["no-gateway", "isolated"])
def test_an_internal_networks_multicasts_do_not_reach_the_host(
    host: Host, br_netfilter: str, keys: dict[str, object]
) -> None:
    """A DHCP server or an mDNS responder of the host heard them, and the host answered ARP for its LAN's address.
    Siblings hear them, and so does the host on a network that is not internal."""
    host.neighbour()
    host.bridge_netfilter(br_netfilter)
    for name, where in (("a", "inner"), ("b", "inner"), ("other", "net1")):
        host.add(network(where, *(NET if where == "inner" else OTHER), **(keys if where == "inner" else {})), name)
    inside, honest, sibling = host.place("a"), host.place("other"), host.place("b")
    to_all = {4: b"\xff" * 6, 6: bytes.fromhex("333300000001")}
    for version, target in ((4, "255.255.255.255"), (6, "ff02::1")):
        source = "10.88.0.2" if version == 4 else link_locals(inside)[0]
        frames = (inside, to_all[version], [datagram(source, target, 7000, b"inner")])
        theirs = "10.89.0.2" if version == 4 else link_locals(honest)[0]
        last = (honest, to_all[version], [datagram(theirs, target, 7000, b"last")])
        assert heard(host, 7000, frames, last) == {b"last"}, target
        end = (inside, to_all[version], [datagram(source, target, 7000, b"last")])
        assert heard(sibling, 7000, frames, end) == {b"inner", b"last"}, target
    assert answers_arp(honest, "198.51.100.1") and answers_arp(honest, "10.89.0.1")
    assert not answers_arp(inside, "198.51.100.1") and answers_arp(inside, "10.88.0.3")


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


def as_the_gateway(own: bytes, theirs: bytes) -> list[bytes]:
    """What somebody sends to the victim who claims the gateway's addresses."""
    return [
        arp(own, "10.88.0.1", theirs, "10.88.0.2"),
        neighbour_advertisement(own, "fd00:88::1", "fd00:88::2"),
        datagram("10.88.0.1", "10.88.0.2", 53, b"gate"),
        datagram("fd00:88::1", "fd00:88::2", 53, b"gate6"),
    ]


@NETFILTER
@pytest.mark.parametrize("tags", PRIORITY_TAGS.values(), ids=PRIORITY_TAGS)
def test_tags_of_vlan_0_hide_nothing(host: Host, br_netfilter: str, tags: bytes) -> None:
    """A sibling and the host take a frame with them for one without, so it is judged as one, or dropped."""
    host.bridge_netfilter(br_netfilter)
    for name in ("victim", "rogue"):
        host.add(network("net0", *NET), name)
    victim, rogue = host.place("victim"), host.place("rogue")
    gate, theirs, own = mac(host, "br-net0"), mac(victim), mac(rogue)
    with Server(host, 8000):
        for address in ("10.88.0.1", "fd00:88::1"):
            assert ask(victim, address, 8000).startswith("host ")
    while not link_locals(rogue):
        time.sleep(0.01)
    forged = as_the_gateway(own, theirs)
    send(rogue, b"\x33\x33\0\0\0\x01", tags + advertisement(rogue))
    send(rogue, gate, tags + arp(own, "10.88.0.2", gate, "10.88.0.1"))
    last = datagram("10.88.0.3", "10.88.0.2", 53, b"last")
    with victim.entered():
        ear = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    with ear:
        send(rogue, b"\x33\x33\0\0\0\x01", tags + advertisement(rogue))
        assert heard(victim, 53, (rogue, theirs, [*(tags + packet for packet in forged), last])) == {b"last"}
        ear.setblocking(False)
        types = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                types.add(ear.recv(2048)[0])
    assert 134 not in types, "a router advertisement"
    known = {
        entry["lladdr"]
        for place in (victim, host)
        for entry in place.json("ip", "-j", "neigh", "show")
        if entry["dst"] in ("10.88.0.1", "10.88.0.2", "fd00:88::1", "fd00:88::2") and "lladdr" in entry
    }
    assert own.hex(":") not in known


VLAN_TAGS = {"one": "8100000a", "then VLAN 0": "8100000a81000000", "then 802.1ad 0": "8100000a88a80000"}


@NETFILTER
@pytest.mark.parametrize("tags", [bytes.fromhex(text) for text in VLAN_TAGS.values()], ids=[*VLAN_TAGS])
def test_a_vlans_tag_hides_nothing(host: Host, br_netfilter: str, tags: bytes) -> None:
    """A bridge that filters VLANs would take it off. What is the container's own passes, if nothing follows that means
    no tag at all."""
    host.bridge_netfilter(br_netfilter)
    for name in ("victim", "rogue"):
        host.add(network("net0", *NET), name)
    victim, rogue = host.place("victim"), host.place("rogue")
    theirs, own = mac(victim), mac(rogue)
    while not link_locals(rogue):
        time.sleep(0.01)
    honest = [
        arp(own, "10.88.0.3", theirs, "10.88.0.2"),
        neighbour_advertisement(own, "fd00:88::3", "fd00:88::2"),
        datagram("10.88.0.3", "10.88.0.2", 53, b"mine"),
        datagram("fd00:88::3", "fd00:88::2", 53, b"mine6"),
    ]
    forged = [*as_the_gateway(own, theirs), advertisement(rogue)]
    with victim.entered():
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL; without the first tag
    with ear:
        ear.bind(("eth0", 3))
        ear.settimeout(3)
        send(rogue, theirs, *(tags + packet for packet in (*forged, *honest)), b"\x88\xb5last" + bytes(40))
        seen = []
        while not seen or b"last" not in seen[-1]:
            frame = ear.recv(2048)
            if frame[6:12] == own:
                seen.append(frame[12:])
    assert [packet for packet in seen[:-1] if packet in honest] == (honest if len(tags) == 4 else [])
    assert not [packet for packet in seen for one in forged if one in packet]


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
