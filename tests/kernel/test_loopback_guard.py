"""127.0.0.0/8 of the host is the host's alone: neither a neighbour nor a container gets in by crafted frames.

moby#45610 and CVE-2020-8558: DNAT comes before the kernel's martian check, and route_localnet on the bridge, which
published ports on 127.0.0.1 need, would let containers reach every service on the host's loopback.
"""

from __future__ import annotations

import select
import socket
import struct
import time

import pytest
from support.scratch import Host, Namespace, network, port
from support.traffic import Server, ask


def checksum(data: bytes) -> int:
    words = struct.unpack(f">{len(data) // 2}H", data)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def syn(source: str, target: str, number: int) -> bytes:
    """An IPv4 packet with a TCP SYN (RFC 791, RFC 9293)."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    bare = struct.pack(">HHIIBBHHH", 40000, number, 1, 0, 5 << 4, 2, 1024, 0, 0)
    pseudo = addresses + struct.pack(">BBH", 0, socket.IPPROTO_TCP, len(bare))
    segment = bare[:16] + struct.pack(">H", checksum(pseudo + bare)) + bare[18:]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0, 64, socket.IPPROTO_TCP, 0) + addresses
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + segment


def answered(sender: Namespace, mac: str, source: str, number: int, target: str = "127.0.0.1") -> bool:
    """Whether a SYN to the host's `target`, sent as a frame to the MAC address, brings a SYN/ACK back."""
    own = bytes.fromhex(sender.link("eth0")["address"].replace(":", ""))
    with sender.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    with sock:
        sock.bind(("eth0", 0x0800))
        sock.send(bytes.fromhex(mac.replace(":", "")) + own + b"\x08\x00" + syn(source, target, number))
        end = time.monotonic() + 0.5
        while select.select([sock], [], [], max(0, end - time.monotonic()))[0]:
            frame = sock.recv(2048)
            segment = frame[14 + (frame[14] & 15) * 4 :]
            from_host = frame[6:12] != own and frame[14 + 9] == socket.IPPROTO_TCP
            if from_host and struct.unpack(">HH", segment[:4]) == (number, 40000):
                return segment[13] & 0x12 == 0x12
    return False


@pytest.fixture
def guarded(host: Host) -> Host:
    host.neighbour()
    host.add(network("net0", ports=[port(8080, 80), port(8081, 80, ip="127.0.0.1")]))
    host.add(network("net0"), "c2")
    return host


def named(host: Host, name: str) -> Namespace:
    return next(item for item in host.namespaces if item.name == name)


def test_the_frames_of_this_test_do_reach_a_published_port(guarded: Host) -> None:
    """Otherwise the silence below would prove nothing."""
    with Server(named(guarded, "c1"), 80):
        mac = guarded.link("to-lan")["address"]
        assert answered(named(guarded, "lan"), mac, "198.51.100.2", 8080, "198.51.100.1")
        mac = guarded.link("br-net0")["address"]
        assert answered(named(guarded, "c2"), mac, "10.88.0.3", 8080, "10.88.0.1")


@pytest.mark.parametrize("number", [8080, 8081, 9999], ids=["wildcard", "on-127.0.0.1", "service-of-the-host"])
@pytest.mark.parametrize("sender", ["lan", "c2"])
def test_neither_neighbours_nor_containers_reach_the_hosts_loopback(guarded: Host, sender: str, number: int) -> None:
    link, source = ("to-lan", "198.51.100.2") if sender == "lan" else ("br-net0", "10.88.0.3")
    with Server(named(guarded, "c1"), 80), Server(guarded, 9999, address="127.0.0.1"):
        assert ask(guarded, "127.0.0.1", number) in ("c1 10.88.0.1", "host 127.0.0.1")
        assert not answered(named(guarded, sender), guarded.link(link)["address"], source, number)
