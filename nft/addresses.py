"""IP addresses and prefixes as small values: their text forms, their arithmetic, the classes of addresses we need.

`ipaddress` would cost 4 ms of start-up, so `inet_pton` of the C library parses.
"""

from __future__ import annotations

from .stdlib import AF_INET, AF_INET6, inet_ntop, inet_pton
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

BITS = {4: 32, 6: 128}
FAMILY = {4: int(AF_INET), 6: int(AF_INET6)}
VERSION = {number: version for version, number in FAMILY.items()}


class Address(Value):
    """One IPv4 or IPv6 address: `version` is 4 or 6, `number` its value as an integer."""

    version: int
    number: int

    def __str__(self) -> str:
        return inet_ntop(FAMILY[self.version], self.packed)

    def __lt__(self, other: Address) -> bool:
        return (self.version, self.number) < (other.version, other.number)

    @property
    def packed(self) -> bytes:
        return self.number.to_bytes(BITS[self.version] // 8, "big")

    @property
    def is_unspecified(self) -> bool:
        return self.number == 0

    @property
    def is_loopback(self) -> bool:
        return self.number >> 24 == 127 if self.version == 4 else self.number == 1

    @property
    def is_link_local(self) -> bool:
        """True for IPv6 only, where several links may have the same one. To the kernel, 169.254/16 is nothing
        special."""
        return self.version == 6 and self.number >> 118 == 0xFE80 >> 6

    @property
    def is_multicast(self) -> bool:
        return self.number >> 28 == 0xE if self.version == 4 else self.number >> 120 == 0xFF


def from_packed(raw: bytes) -> Address:
    """The address in 4 or 16 bytes in network order."""
    return Address(4 if len(raw) == 4 else 6, int.from_bytes(raw, "big"))


class Prefix(Value):
    """An address with a prefix length. It may be a network (no host bits) or an interface's address."""

    address: Address
    length: int

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"

    @property
    def version(self) -> int:
        return self.address.version

    @property
    def size(self) -> int:
        return int(1 << (BITS[self.version] - self.length))

    @property
    def first(self) -> int:
        """The network's own number, which is also the address part of a network without host bits."""
        return self.address.number & ~(self.size - 1)

    @property
    def last(self) -> int:
        return self.first + self.size - 1

    @property
    def network(self) -> Prefix:
        return Prefix(Address(self.version, self.first), self.length)

    def __contains__(self, address: Address) -> bool:
        return address.version == self.version and self.first <= address.number <= self.last


def host_prefix(address: Address) -> Prefix:
    """The prefix that holds this address alone: /32 or /128."""
    return Prefix(address, BITS[address.version])


def parse_address(text: str) -> Address:
    """Raises ValueError. An IPv4-mapped IPv6 address becomes the IPv4 address, as in Go's net.ParseIP."""
    version = 6 if ":" in text else 4
    try:
        number = int.from_bytes(inet_pton(FAMILY[version], text), "big")
    except (OSError, ValueError, UnicodeError):
        raise ValueError("not an IP address") from None
    if version == 6 and number >> 32 == 0xFFFF:
        return Address(4, number & 0xFFFFFFFF)
    return Address(version, number)


def parse_prefix(text: str) -> Prefix:
    """Parses `ADDRESS/LENGTH`; host bits are allowed. Raises ValueError."""
    head, slash, tail = text.partition("/")
    address = parse_address(head)
    if not slash or not (tail.isascii() and tail.isdigit()) or len(tail) > 3 or int(tail) > BITS[address.version]:
        raise ValueError(f"not an address with a prefix length of 0 to {BITS[address.version]}")
    if ":" in head and address.version == 4:
        raise ValueError("an IPv4-mapped IPv6 prefix has no use here; write it as IPv4")
    return Prefix(address, int(tail))


def span_of(text: str) -> tuple[int, int, int]:
    """(version, first, last) of a prefix; an address alone is a prefix of one. Raises ValueError.

    It returns a tuple and no `Prefix`, because a configuration may list thousands.
    """
    head, slash, tail = text.partition("/")
    version = 6 if ":" in head else 4
    try:
        number = int.from_bytes(inet_pton(FAMILY[version], head), "big")
    except (OSError, ValueError, UnicodeError):
        raise ValueError("not an IP address or prefix") from None
    bits = BITS[version]
    if slash and not (tail.isascii() and tail.isdigit() and len(tail) < 4 and int(tail) <= bits):
        raise ValueError(f"not an address with a prefix length of 0 to {bits}")
    if version == 6 and number >> 32 == 0xFFFF:
        raise ValueError("an IPv4-mapped IPv6 prefix has no use here; write it as IPv4")
    free = bits - int(tail) if slash else 0
    first = number >> free << free
    return version, first, first + (1 << free) - 1


def merged(prefixes: Iterable[str]) -> list[tuple[int, int, int]]:
    """The prefixes' spans as (version, first, last), sorted, without those that lie inside others."""
    kept: list[tuple[int, int, int]] = []
    for span in sorted(map(span_of, prefixes), key=lambda span: (span[0], span[1], -span[2])):
        if not kept or kept[-1][0] != span[0] or kept[-1][2] < span[2]:
            kept.append(span)
    return kept


def read_mac(text: str) -> bytes:
    """Any MAC address: six bytes from `xx:xx:xx:xx:xx:xx`, or with `-`. Raises ValueError."""
    parts = text.replace("-", ":").split(":")
    try:
        mac = bytes.fromhex("".join(part for part in parts if len(part) == 2))
    except ValueError:
        mac = b""
    if len(mac) != 6 or len(parts) != 6:
        raise ValueError("not a MAC address of six hexadecimal pairs")
    return mac


def parse_mac(text: str) -> bytes:
    """A MAC address for one of our interfaces. Also raises ValueError for those that the kernel refuses to set."""
    mac = read_mac(text)
    if mac[0] & 1:
        raise ValueError("a multicast MAC address, which no interface can have")
    if not any(mac):
        raise ValueError("the all-zero MAC address, which no interface can have")
    return mac


def link_local(mac: bytes) -> Prefix:
    """The IPv6 address that the kernel derives from a MAC address (RFC 4291, appendix A)."""
    interface = bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return Prefix(Address(6, 0xFE80 << 112 | int.from_bytes(interface, "big")), 64)


def format_mac(mac: bytes) -> str:
    return mac.hex(":")
