"""Asks a bridge's machines who has an address, by one ARP probe (RFC 5227), or by one neighbour solicitation as in
duplicate address detection (RFC 4862).

Both are sent from no address, so that no neighbour table changes and the bridge needs no address. `cni.adoption`
decides whether to ask.
"""

from __future__ import annotations

import time

from nft.addresses import Address, format_mac, parse_prefix
from nft.stdlib import SOCK_CLOEXEC, SOCK_RAW, Struct, socket

SECONDS = 0.1  # a machine that is awake answers sooner, on a wired LAN and on Wi-Fi
AF_PACKET, ETH_P_ARP, ETH_P_IPV6 = 17, 0x0806, 0x86DD  # include/linux/socket.h, include/uapi/linux/if_ether.h
ARP = Struct(">HHBBH6s4s6s4s")  # hardware, protocol, lengths, operation, sender's and target's MAC and address
IPV6 = Struct(">IHBB16s16s")  # version and class, length, next header, hop limit, source, destination
ICMP = Struct(">BBHI16s")  # type, code, checksum, flags, target
ETHERNET, ICMPV6, SOLICITATION, ADVERTISEMENT = 14, 58, 135, 136
SOLICITED_NODE = parse_prefix("ff02::1:ff00:0/104")


def who_has(link: str, mac: bytes, address: Address) -> str:
    """The MAC address of whoever answers for the address within SECONDS, "" if nobody does or the link cannot be
    used."""
    kind = ETH_P_ARP if address.version == 4 else ETH_P_IPV6
    frame = arp_probe(mac, address) if address.version == 4 else solicitation(mac, address)
    end = time.monotonic() + SECONDS
    sock = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)
    try:
        sock.bind((link, kind))
        sock.send(frame)
        while (left := end - time.monotonic()) > 0:
            sock.settimeout(left)
            answer = sock.recv(2048)
            if is_answer(answer, address) and answer[6:12] != mac:
                return format_mac(answer[6:12])
    except OSError:  # the link is down, has no carrier, or the time is over
        return ""
    finally:
        sock.close()
    return ""


def arp_probe(mac: bytes, address: Address) -> bytes:
    """The Ethernet frame of an ARP probe for the address."""
    request = ARP.pack(1, 0x0800, 6, 4, 1, mac, bytes(4), bytes(6), address.packed)
    return b"\xff" * 6 + mac + ETH_P_ARP.to_bytes(2, "big") + request


def solicitation(mac: bytes, address: Address) -> bytes:
    """The Ethernet frame of a neighbour solicitation for the address."""
    group = Address(6, SOLICITED_NODE.first | address.number & 0xFFFFFF).packed
    size = ICMP.size
    pseudo = bytes(16) + group + size.to_bytes(4, "big") + bytes([0, 0, 0, ICMPV6])
    checksum = _checksum(pseudo + ICMP.pack(SOLICITATION, 0, 0, 0, address.packed))
    body = ICMP.pack(SOLICITATION, 0, checksum, 0, address.packed)
    header = IPV6.pack(6 << 28, size, ICMPV6, 255, bytes(16), group)
    return b"\x33\x33" + group[12:] + mac + ETH_P_IPV6.to_bytes(2, "big") + header + body


def is_answer(frame: bytes, address: Address) -> bool:
    """Whether the frame's sender has the address: any ARP packet from it, or an advertisement of it."""
    if address.version == 4:
        if len(frame) < ETHERNET + ARP.size:
            return False
        return bool(ARP.unpack_from(frame, ETHERNET)[6] == address.packed)
    if len(frame) < ETHERNET + IPV6.size + ICMP.size or frame[ETHERNET + 6] != ICMPV6:
        return False
    kind, _code, _checksum, _flags, target = ICMP.unpack_from(frame, ETHERNET + IPV6.size)
    return bool(kind == ADVERTISEMENT and target == address.packed)


def _checksum(data: bytes) -> int:
    """The checksum of RFC 1071 over an even number of bytes."""
    total = sum(int.from_bytes(data[start : start + 2], "big") for start in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
