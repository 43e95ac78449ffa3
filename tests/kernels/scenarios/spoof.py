"""`antiSpoof` and `macspoofchk`: what a container's port lets through, by the table of family bridge.

Its rules look at ARP, at the fields of neighbour advertisements and at MAC addresses: parts of nf_tables that nothing
else here needs, and that nft wrote otherwise in almost each of its versions.
"""

from __future__ import annotations

import time

import pytest
from kernels.scenarios.scene import GATE4, GATE6, NETS, PATIENCE
from support.frames import advertisement, arp, datagram, heard, link_locals, mac, neighbour_advertisement, send
from support.scratch import Host, Json, Namespace, network
from support.traffic import Server, ask

VICTIM4, VICTIM6, ROGUE4 = "10.88.0.2", "fd00:88::2", "10.88.0.3"
NOBODYS_MAC = "02:de:ad:be:ef:01"


def build(host: Host, **keys: Json) -> tuple[Namespace, Namespace]:
    """The victim and the rogue, on one bridge; both know the gateway and each other."""
    host.bridge_netfilter("0")
    for name in ("victim", "rogue"):
        host.add(network("net0", *NETS["net0"], **keys), name)
    victim, rogue = host.place("victim"), host.place("rogue")
    with Server(host, 8000), Server(victim, 80):
        for address in (GATE4, GATE6):
            assert ask(victim, address, 8000, timeout=PATIENCE).startswith("host ")
        for address in (VICTIM4, VICTIM6):
            assert ask(rogue, address, 80, timeout=PATIENCE).startswith("victim ")
    return victim, rogue


def believed(place: Namespace, address: str) -> bytes:
    """The MAC address that a place has for another one's address."""
    entries = place.json("ip", "-j", "neigh", "show", "to", address)
    return next((bytes.fromhex(entry["lladdr"].replace(":", "")) for entry in entries if "lladdr" in entry), b"")


@pytest.mark.parametrize("keys", [{}, {"antiSpoof": False}], ids=["default", "off"])
def test_claims_on_an_address(host: Host, keys: Json) -> None:
    """A sibling's and the gateway's, by ARP and by neighbour advertisements; where it is off all of them are believed,
    which shows that they are made as they should be."""
    victim, rogue = build(host, **keys)
    gate, theirs, own = mac(host, "br-net0"), mac(victim), mac(rogue)
    claims = [(victim, GATE4, gate), (victim, GATE6, gate), (host, VICTIM4, theirs), (host, VICTIM6, theirs)]
    until = time.monotonic() + (PATIENCE if keys else 2)  # an entry is not replaced in its first second (arp locktime)
    while time.monotonic() < until and any(believed(place, address) != own for place, address, _ in claims):
        send(rogue, theirs, arp(own, GATE4, theirs, VICTIM4), neighbour_advertisement(own, GATE6, VICTIM6))
        send(rogue, gate, arp(own, VICTIM4, gate, GATE4), neighbour_advertisement(own, VICTIM6, GATE6))
        time.sleep(0.2)
    for place, address, right in claims:
        assert believed(place, address) == (own if keys else right), (place.name, address)


@pytest.mark.parametrize("keys", [{}, {"antiSpoof": False}], ids=["default", "off"])
def test_sources(host: Host, keys: Json) -> None:
    """Packets with the gateway's address as their source, straight to the sibling."""
    victim, rogue = build(host, **keys)
    forged = [datagram(GATE4, VICTIM4, 53, b"gate4"), datagram(GATE6, VICTIM6, 53, b"gate6")]
    last = datagram(ROGUE4, VICTIM4, 53, b"last")
    arrived = heard(victim, 53, (rogue, mac(victim), [*forged, last]), timeout=PATIENCE)
    assert arrived == ({b"gate4", b"gate6", b"last"} if keys else {b"last"})


def test_a_siblings_mac_address(host: Host) -> None:
    """The bridge would learn it at the wrong port, and send the victim's packets there."""
    victim, rogue = build(host)
    rogue.run("ip", "link", "set", "eth0", "address", victim.link("eth0")["address"])
    with Server(victim, 80), Server(host, 8000):
        assert ask(rogue, GATE4, 8000) == "silence"
        for address in (VICTIM4, VICTIM6):
            assert ask(host, address, 80, timeout=PATIENCE).startswith("victim ")


def test_router_advertisements(host: Host) -> None:
    victim, rogue = build(host)
    while not link_locals(rogue):
        time.sleep(0.1)
    send(rogue, b"\x33\x33\0\0\0\x01", advertisement(rogue))
    last = datagram(ROGUE4, VICTIM4, 53, b"last")
    assert heard(victim, 53, (rogue, mac(victim), [last]), timeout=PATIENCE) == {b"last"}
    for place in (victim, host):
        assert "2001:db8:bad" not in place.run("ip", "-6", "addr") + place.run("ip", "-6", "route")


def test_addresses_that_are_nobodys_pass(host: Host) -> None:
    victim, rogue = build(host)
    rogue.run("ip", "addr", "add", "10.88.0.100/24", "dev", "eth0")
    rogue.run("ip", "addr", "add", "fd00:88::100/64", "dev", "eth0", "nodad")
    with Server(rogue, 80):
        for address in ("10.88.0.100", "fd00:88::100"):
            for asker in (victim, host):
                assert ask(asker, address, 80, timeout=PATIENCE).startswith("rogue ")


def test_macspoofchk(host: Host) -> None:
    """No other MAC address than its own passes the port, nobody's either; with it back all does."""
    config = network("net0", *NETS["net0"], macspoofchk=True, antiSpoof=False)
    host.bridge_netfilter("0")
    for name in ("one", "two"):
        host.add(config, name)
    one, two = host.place("one"), host.place("two")
    own = one.link("eth0")["address"]
    targets = ((two, "10.88.0.3", 80), (two, "fd00:88::3", 80), (host, "10.88.0.1", 8000))
    with Server(two, 80), Server(host, 8000):
        for place, address, number in targets:
            assert ask(one, address, number, timeout=PATIENCE).startswith(f"{place.name} ")
        one.run("ip", "link", "set", "eth0", "address", NOBODYS_MAC)
        for _, address, number in targets:
            assert ask(one, address, number) in ("silence", "refused")
        one.run("ip", "link", "set", "eth0", "address", own)
        for place, address, number in targets:
            assert ask(one, address, number, timeout=PATIENCE).startswith(f"{place.name} ")


def test_flush_and_repair(host: Host) -> None:
    victim, rogue = build(host, macspoofchk=True)
    before = host.run("nft", "list", "table", "bridge", "nftcni")
    host.nft("flush ruleset")
    assert host.command("repair").returncode == 0
    assert host.run("nft", "list", "table", "bridge", "nftcni") == before
    forged = [datagram(GATE4, VICTIM4, 53, b"gate4"), datagram(GATE6, VICTIM6, 53, b"gate6")]
    last = datagram(ROGUE4, VICTIM4, 53, b"last")
    assert heard(victim, 53, (rogue, mac(victim), [*forged, last]), timeout=PATIENCE) == {b"last"}
    config = network("net0", *NETS["net0"], macspoofchk=True)
    for name in ("victim", "rogue"):
        host.delete(config, name)
    assert "elements" not in host.run("nft", "list", "table", "bridge", "nftcni")
