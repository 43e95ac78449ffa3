"""Frames as no honest container sends them, made byte by byte, and who hears what of them.

Honest traffic is `traffic`.
"""

from __future__ import annotations

import socket
import struct

from .scratch import Host, Namespace

# In front of a packet: VLAN 0 is none, and the kernel takes such tags off, however many there are.
PRIORITY_TAGS = {"802.1Q": b"\x81\0\0\0", "802.1ad": b"\x88\xa8\0\0", "both": b"\x88\xa8\0\0\x81\0\0\0"}
PRIORITY_TAGS["three"] = 3 * PRIORITY_TAGS["802.1Q"]
HEARD = 3.0  # seconds for the last packet to arrive


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
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


def to_the_host(host: Host, bridge: str, container: str) -> list[bytes]:
    """The MAC addresses by which a container's frames reach the host: the bridge's, everybody's, and that of its own
    port, which a bridge takes for its own as well."""
    inside = host.place(container).json("ip", "-j", "link", "show", "dev", "eth0")
    port = next(item for item in host.json("ip", "-j", "link") if item["ifindex"] == inside[0]["link_index"])
    return [mac(host, bridge), b"\xff" * 6, bytes.fromhex(port["address"].replace(":", ""))]


def send(place: Namespace, to: bytes, *packets: bytes) -> None:
    with place.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sock:
        sock.bind(("eth0", 0))
        for packet in packets:
            sock.send(to + mac(place) + packet)


def heard(
    place: Namespace, number: int, *senders: tuple[Namespace, bytes, list[bytes]], timeout: float = HEARD
) -> set[bytes]:
    """What arrives at the port until "last" does, which the last sender sends."""
    found: set[bytes] = set()
    with place.entered():
        receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with receiver:
        receiver.settimeout(timeout)
        receiver.bind(("::", number))
        for sender, to, packets in senders:
            send(sender, to, *packets)
        while b"last" not in found:
            found.add(receiver.recv(100).rstrip(b"\0"))
    return found


def link_locals(place: Namespace, link: str = "eth0") -> list[str]:
    found = place.json("ip", "-j", "addr", "show", "dev", link, "scope", "link")
    return [entry["local"] for item in found for entry in item.get("addr_info", []) if "local" in entry]


def arp(sender: bytes, says: str, to: bytes, target: str) -> bytes:
    addresses = (socket.inet_aton(text) for text in (says, target))
    return b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 2) + sender + next(addresses) + to + next(addresses)


def answers_arp(place: Namespace, target: str, seconds: float = 0.5) -> bool:
    """Whether anybody on the link of the place's eth0 answers a request for the address."""
    with place.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x806))
    request = arp(mac(place), "0.0.0.0", b"\0" * 6, target)
    with sock:
        sock.bind(("eth0", 0x806))
        sock.settimeout(seconds)
        sock.send(b"\xff" * 6 + mac(place) + request[:9] + b"\x01" + request[10:])
        try:
            while True:
                frame = sock.recv(100)
                if frame[20:22] == b"\0\2" and frame[28:32] == socket.inet_aton(target):
                    return True
        except (TimeoutError, socket.timeout):
            return False


def neighbour_advertisement(sender: bytes, says: str, target: str) -> bytes:
    packed = b"".join(socket.inet_pton(socket.AF_INET6, text) for text in (says, target))
    body = struct.pack("!BBHI", 136, 0, 0, 0x60000000) + packed[:16] + b"\x02\x01" + sender
    total = checksum(packed + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    return b"\x86\xdd" + struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + packed + body


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
