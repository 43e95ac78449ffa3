"""Published SCTP ports, by INIT chunks made by hand, so that they are shown on kernels without SCTP sockets too.

A raw socket in the container sees what arrives: port, sender, and the CRC32c that address translation must have kept
right (RFC 9260). Where the kernel has SCTP, an association is made as well.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct
from collections.abc import Iterator

import pytest
from support.scratch import Host, Namespace, network, port
from support.traffic import Server, ask

SCTP = 132
NETS = {"net0": ("10.88.0.0/24", "fd00:88::/64"), "net1": ("10.89.0.0/24", "fd00:89::/64")}
HOST4, HOST6 = "198.51.100.1", "2001:db8:100::1"
PORTS = [port(7777, 77, "sctp"), port(7778, 77, "sctp", "127.0.0.1"), port(7779, 77, "sctp", HOST4)]
source_ports = itertools.count(41000)


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def init(source: int, target: int) -> bytes:
    """A packet with one INIT chunk (RFC 9260, 3.3.2)."""
    chunk = struct.pack(">BBHIIHHI", 1, 0, 20, 0x1234, 65536, 10, 10, 1)
    bare = struct.pack(">HHII", source, target, 0, 0) + chunk
    return bare[:8] + struct.pack("<I", crc32c(bare)) + bare[12:]


def raw(namespace: Namespace, family: int) -> socket.socket:
    with namespace.entered():
        return socket.socket(family, socket.SOCK_RAW, SCTP)


def arrived(listener: socket.socket, source_port: int) -> tuple[str, int] | None:
    """Sender and port of the packet that began at `source_port`, None if none came."""
    while select.select([listener], [], [], 0.4)[0]:
        data, peer = listener.recvfrom(2048)
        packet = data[(data[0] & 15) * 4 :] if listener.family == socket.AF_INET else data
        if struct.unpack(">H", packet[:2])[0] == source_port:
            assert packet[8:12] == struct.pack("<I", crc32c(packet[:8] + bytes(4) + packet[12:])), "checksum"
            return peer[0], struct.unpack(">H", packet[2:4])[0]
    return None


@pytest.fixture(scope="module", params=["0", "1"], ids=["br_netfilter=0", "br_netfilter=1"])
def scene(request: pytest.FixtureRequest) -> Iterator[Host]:
    host = Host()
    with contextlib.closing(host):
        host.neighbour()
        host.bridge_netfilter(request.param)
        for name, net in (("c1", "net0"), ("c2", "net0"), ("o1", "net1")):
            host.add(network(net, *NETS[net], ports=PORTS if name == "c1" else ()), name)
        yield host


@pytest.mark.parametrize(
    ("asker", "address", "number", "seen"),
    [
        ("lan", HOST4, 7777, "198.51.100.2"),
        ("lan", HOST6, 7777, "2001:db8:100::2"),
        ("lan", HOST4, 7779, "198.51.100.2"),
        ("lan", HOST6, 7779, None),
        ("lan", HOST4, 7778, None),
        ("lan", HOST4, 7776, None),
        ("host", HOST4, 7777, HOST4),
        ("host", HOST6, 7777, HOST6),
        ("host", "127.0.0.1", 7777, "10.88.0.1"),
        ("host", "127.0.0.1", 7778, "10.88.0.1"),
        ("host", HOST4, 7778, None),
        ("c1", HOST4, 7777, "10.88.0.1"),
        ("c1", HOST6, 7777, "fd00:88::1"),
        ("c2", HOST4, 7777, "10.88.0.3"),  # or the gateway's, without br_netfilter
        ("c2", HOST6, 7777, "fd00:88::3"),
        ("o1", HOST4, 7777, "10.89.0.2"),
        ("o1", HOST6, 7777, "fd00:89::2"),
        ("o1", "10.88.0.2", 77, None),
    ],
)
def test_an_init_arrives(scene: Host, asker: str, address: str, number: int, seen: str | None) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    source_port = next(source_ports)
    with raw(scene.place("c1"), family) as listener, raw(scene.place(asker), family) as sender:
        sender.sendto(init(source_port, number), (address, 0))
        if asker == "c2" and scene.sysctl("bridge/bridge-nf-call-iptables") == "0":
            seen = f"{str(seen)[:-1]}1"
        expected = None if seen is None else (seen, 77)
        assert arrived(listener, source_port) == expected


def test_an_association(host: Host) -> None:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP).close()
    except OSError:
        pytest.skip(
            "NOT RUN: SCTP sockets need the kernel module sctp, which is not here; INIT chunks by hand are tested"
        )
    host.neighbour()
    host.add(network("net0", ports=PORTS))
    with Server(host.place("c1"), 77, "sctp", address="10.88.0.2"):
        assert ask(host.place("lan"), HOST4, 7777, "sctp") == "c1 198.51.100.2"
