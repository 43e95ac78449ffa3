"""Somebody else's bridge: who is its router, by what the host knows; probes as bytes; the reference plugins' names."""

from __future__ import annotations

import pytest

from cni.adoption import Surroundings, router_of
from cni.kernel.probe import arp_probe, is_answer, solicitation
from cni.model.reference import Traces
from nft.addresses import parse_address, parse_prefix

MAC = bytes.fromhex("0200000000aa")
OTHER = bytes.fromhex("0200000000bb")
LAN, LAN6 = parse_prefix("198.51.100.0/24"), parse_prefix("2001:db8::/64")


def decide(gateway: str, given: bool = False, own: str = "", routers: str = "", answering: str = "") -> str:
    around = Surroundings(tuple(map(parse_prefix, own.split())), tuple(map(parse_address, routers.split())))
    subnet = LAN6 if ":" in gateway else LAN
    found = router_of(subnet, parse_address(gateway), given, around, lambda one: "it" * (str(one) in answering.split()))
    return str(found or "")


@pytest.mark.parametrize(
    ("keys", "router"),
    [
        ({}, ""),
        ({"own": "198.51.100.1/24"}, ""),
        ({"own": "198.51.100.1/24", "routers": "198.51.100.254"}, ""),
        ({"own": "198.51.100.10/24", "routers": "198.51.100.1"}, "198.51.100.1"),
        ({"own": "198.51.100.10/24", "routers": "198.51.100.254"}, "198.51.100.254"),
        ({"given": True, "routers": "198.51.100.254"}, ""),
        ({"given": True, "routers": "198.51.100.254", "answering": "198.51.100.1"}, "198.51.100.1"),
        ({"answering": "198.51.100.1"}, "198.51.100.1"),
        ({"routers": "203.0.113.1"}, ""),
        ({"routers": "fe80::1"}, ""),
    ],
)
def test_the_router(keys: dict[str, str], router: str) -> None:
    assert decide("198.51.100.1", **keys) == router  # type: ignore[arg-type]


def test_a_link_local_router_is_the_subnets_where_the_host_is_in_it() -> None:
    assert decide("2001:db8::1", own="2001:db8::10/64", routers="fe80::1") == "fe80::1"
    assert decide("2001:db8::1", own="2001:db8:5::10/64", routers="fe80::1") == ""


def test_probes_change_nobodys_memory() -> None:
    """From no address: RFC 5227 for ARP, RFC 4862 for neighbour solicitations, whose checksum must hold."""
    frame = arp_probe(MAC, parse_address("198.51.100.7"))
    assert frame.hex() == ("ffffffffffff0200000000aa080600010800060400010200000000aa00000000000000000000c6336407")
    frame = solicitation(MAC, parse_address("2001:db8::1:2:3"))
    assert frame[:6].hex() == "3333ff020003" and frame[22:38] == bytes(16)
    assert frame[38:54] == parse_address("ff02::1:ff02:3").packed
    pseudo = frame[22:54] + len(frame[54:]).to_bytes(4, "big") + bytes([0, 0, 0, 58]) + frame[54:]
    total = sum(int.from_bytes(pseudo[start : start + 2], "big") for start in range(0, len(pseudo), 2))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF


def test_answers() -> None:
    """Any ARP packet from the address is one: another host's probe for the same address is not."""
    address = parse_address("198.51.100.7")
    reply = bytearray(arp_probe(OTHER, address))
    assert not is_answer(bytes(reply), address)
    reply[28:32] = address.packed
    assert is_answer(bytes(reply), address) and not is_answer(bytes(reply), parse_address("198.51.100.8"))
    for length in range(len(reply)):
        assert not is_answer(bytes(reply[:length]), address)
    wanted = parse_address("2001:db8::1")
    advertisement = bytearray(solicitation(OTHER, wanted))
    assert not is_answer(bytes(advertisement), wanted)
    advertisement[54] = 136
    assert is_answer(bytes(advertisement), wanted)
    for length in range(len(advertisement)):
        assert not is_answer(bytes(advertisement[:length]), wanted)


def test_the_reference_plugins_names() -> None:
    """As 1.1.1 and 1.10 made them for the container c1 of the network bridge."""
    traces = Traces("bridge", "c1", "eth0")
    assert traces.chains == ("CNI-DN-c0f01d097728718fbc10f", "CNI-c0f01d097728718fbc10fe72")
    assert traces.comment == "7d24d33e39064c8a-f4d01f2ef4b92245"
    assert traces.has_legacy(["-A", "CNI-HOSTPORT-DNAT", "-p", "tcp", "-j", "CNI-DN-c0f01d097728718fbc10f"])
    assert not traces.has_legacy(["-A", "CNI-HOSTPORT-DNAT", "-p", "tcp", "-j", "CNI-DN-0000000000000000000"])
    assert not traces.has_legacy(["-A", "OUTPUT", "-j"])
