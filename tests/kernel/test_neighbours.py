"""What the others on a network hear when a container arrives: unsolicited ARP and neighbour advertisements.

Without them a sibling that knew an address by an earlier container's MAC sends into the void until its entry expires.
The oracle is a packet socket in a sibling, and the sibling's own neighbour table.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.scratch import Host, Namespace, network
from support.traffic import Server, ask

NET = ("10.88.0.0/24", "fd00:88::/64")
MAC = ["02:00:00:00:00:0a", "02:00:00:00:00:0b"]
ETH_P_ALL, ETH_P_ARP, ETH_P_IPV6 = 0x0003, 0x0806, 0x86DD
NEIGHBOUR_ADVERTISEMENT, TARGET_LINK_ADDRESS, OVERRIDE = 136, 2, 0x20000000
Claim = tuple[str, str]  # address, MAC


def arp_claim(frame: bytes) -> Claim | None:
    """The claim of a gratuitous ARP packet (RFC 5227): somebody asks for, or tells, its own address to all."""
    if frame[:6] != b"\xff" * 6 or frame[12:14] != struct.pack(">H", ETH_P_ARP):
        return None
    mac, sender, target = frame[22:28], frame[28:32], frame[38:42]
    return (socket.inet_ntoa(sender), mac.hex(":")) if sender == target else None


def advertised_claim(frame: bytes) -> Claim | None:
    """The claim of an unsolicited neighbour advertisement to all nodes (RFC 4861, 7.2.6)."""
    if frame[12:14] != struct.pack(">H", ETH_P_IPV6) or frame[20] != socket.IPPROTO_ICMPV6:
        return None
    message = frame[54:]
    if message[0] != NEIGHBOUR_ADVERTISEMENT or frame[38:54] != socket.inet_pton(socket.AF_INET6, "ff02::1"):
        return None
    flags = struct.unpack(">I", message[4:8])[0]
    assert flags & OVERRIDE, "an old entry must give way"
    assert frame[21] == 255, "receivers drop any other hop limit"
    assert message[24] == TARGET_LINK_ADDRESS
    return socket.inet_ntop(socket.AF_INET6, message[8:24]), message[26:32].hex(":")


class Ear:
    """Hears every frame that reaches eth0 of a namespace, until it is asked what it heard."""

    def __init__(self, namespace: Namespace) -> None:
        with namespace.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.bind(("eth0", ETH_P_ALL))
        self.socket.settimeout(0.1)

    def claims(self, wanted: set[Claim], seconds: float = 3.0) -> set[Claim]:
        """All claims of addresses heard so far, at the latest when the wanted ones are among them."""
        heard: set[Claim] = set()
        end = time.monotonic() + seconds
        while not wanted <= heard and time.monotonic() < end:
            with contextlib.suppress(TimeoutError, socket.timeout):
                frame = self.socket.recv(2048)
                heard |= {claim for claim in (arp_claim(frame), advertised_claim(frame)) if claim}
        return {claim for claim in heard if not claim[0].startswith("fe80:")}

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@pytest.fixture
def sibling(host: Host) -> Iterator[Namespace]:
    host.add(network("net0", *NET), "sibling")
    yield host.place("sibling")


def config(mac: str, *subnets: str, **keys: Any) -> Any:
    """A container that asks for .9 of the network, by a MAC of its own."""
    addresses = ["10.88.0.9/24"] + (["fd00:88::9/64"] if len(subnets) != 1 else [])
    return network("net0", *(subnets or NET), runtimeConfig={"mac": mac, "ips": addresses}, **keys)


WANTED = {("10.88.0.9", MAC[0]), ("fd00:88::9", MAC[0])}


@pytest.mark.parametrize("enabledad", [False, True])
def test_a_sibling_hears_of_both_addresses(host: Host, sibling: Namespace, enabledad: bool) -> None:
    with Ear(sibling) as ear:
        host.add(config(MAC[0], enabledad=enabledad))
        assert ear.claims(WANTED) == WANTED


def test_ipv4_alone(host: Host, sibling: Namespace) -> None:
    with Ear(sibling) as ear:
        host.add(config(MAC[0], NET[0]))
        assert ear.claims({("10.88.0.9", MAC[0])}) == {("10.88.0.9", MAC[0])}


def test_nothing_is_heard_on_another_network(host: Host) -> None:
    host.add(network("net1", "10.89.0.0/24"), "stranger")
    with Ear(host.place("stranger")) as ear:
        host.add(config(MAC[0]))
        assert ear.claims(WANTED, seconds=0.5) == set()


@pytest.mark.parametrize("address", ["10.88.0.9", "fd00:88::9"])
def test_a_sibling_reaches_the_new_holder_of_an_address_at_once(host: Host, sibling: Namespace, address: str) -> None:
    """The address moves to a container with another MAC while the sibling's entry of it is still good."""
    host.add(config(MAC[0]), "c1")
    with Server(host.place("c1"), 80):
        assert ask(sibling, address, 80, timeout=3).startswith("c1 ")
    (entry,) = sibling.json("ip", "-j", "neigh", "show", address)
    assert entry["lladdr"] == MAC[0]
    host.delete(config(MAC[0]), "c1")
    host.add(config(MAC[1]), "c2")
    for _ in range(50):  # nobody sends meanwhile, so that nothing but an announcement can change it
        (entry,) = sibling.json("ip", "-j", "neigh", "show", address)
        if entry["lladdr"] == MAC[1]:
            break
        time.sleep(0.05)
    assert entry["lladdr"] == MAC[1]
    with Server(host.place("c2"), 80):
        assert ask(sibling, address, 80).startswith("c2 ")


def test_many_arrivals_are_all_heard(host: Host, sibling: Namespace) -> None:
    names = [f"c{number}" for number in range(4)]
    results: dict[str, Any] = {}
    for name in names:
        host.container(name)
    with Ear(sibling) as ear:
        threads = [
            threading.Thread(target=lambda name=name: results.update({name: host.add(network("net0", *NET), name)}))  # type: ignore[misc]
            for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wanted = {
            (item["address"].split("/")[0], result["interfaces"][2]["mac"])
            for result in results.values()
            for item in result["ips"]
        }
        assert len(wanted) == 2 * len(names)
        assert ear.claims(wanted) == wanted
