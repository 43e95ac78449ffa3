"""Elements of sets and maps as values: packed as the kernel holds them, and as text for libnftables and for people.

The caller knows which elements there should be; the sets and their types are in `schema`.
"""

from __future__ import annotations

from .addresses import from_packed
from .schema import ADDR4, ADDR6, FAMILY, IFNAME, LAYER2, MAC, PORT, PROTO, SETS, TABLE, TARGET, VERDICT
from .value import Value

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}  # IANA protocol numbers, with nft's names for them
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
NFPROTO = {4: 2, 6: 10}  # include/uapi/linux/netfilter.h
_FAMILY_NAMES = {2: "ipv4", 10: "ipv6"}
_WIDTH = {PROTO: 4, PORT: 4, ADDR4: 4, ADDR6: 16, IFNAME: 16, FAMILY: 4, MAC: 8, TARGET: 16}
_LENGTH = {PROTO: 1, PORT: 2, FAMILY: 1}


class Element(Value):
    """One element of a set or map: `key` and `data` are the kernel's own bytes, `comment` names its owner. `end` is the
    last key of an interval. In a verdict map, `data` is the name of the chain to go to."""

    set: str
    key: bytes
    data: bytes = b""
    comment: str = ""
    end: bytes = b""

    def covers(self, other: Element) -> bool:
        """Whether this element holds every key of the other one."""
        return self.key <= other.key and (self.end or self.key) >= (other.end or other.key)


def pack(kinds: tuple[str, ...], values: tuple[int | bytes | str, ...]) -> bytes:
    """Field values as the kernel holds them: network byte order, each field of a concatenation padded to four bytes."""
    packed = b""
    for kind, value in zip(kinds, values):
        if isinstance(value, int):
            raw = value.to_bytes(_LENGTH[kind], "big")
        else:
            raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        packed += raw.ljust(_WIDTH[kind], b"\0")
    return packed


def unpack(kinds: tuple[str, ...], packed: bytes) -> tuple[int | bytes | str, ...]:
    """The inverse of `pack`: numbers, address bytes and names, one for each kind. Raises ValueError for a wrong
    length."""
    if kinds == (VERDICT,):
        return (packed.decode("utf-8", "surrogateescape"),)
    if kinds == (MAC,) and len(packed) == 6:  # a key of one field is not padded
        return (packed,)
    if len(packed) != sum(_WIDTH[kind] for kind in kinds):
        raise ValueError(f"{len(packed)} bytes are not {' . '.join(kinds)}")
    values: list[int | bytes | str] = []
    start = 0
    for kind in kinds:
        raw = packed[start : start + _WIDTH[kind]]
        start += _WIDTH[kind]
        if kind in _LENGTH:
            values.append(int.from_bytes(raw[: _LENGTH[kind]], "big"))
        elif kind == IFNAME:
            values.append(raw.rstrip(b"\0").decode("utf-8", "surrogateescape"))
        elif kind == MAC:
            values.append(raw[:6])
        else:
            values.append(raw)
    return tuple(values)


def elements_text(elements: list[Element]) -> str:
    """Commands for libnftables that add the elements, one line for each set."""
    by_set: dict[str, list[str]] = {}
    for element in elements:
        by_set.setdefault(element.set, []).append(element_text(element))
    return "".join(
        f"add element {'bridge' if name in LAYER2 else 'inet'} {TABLE} {name} {{ {', '.join(texts)} }}\n"
        for name, texts in by_set.items()
    )


def element_text(element: Element) -> str:
    """One element as nft prints it, with its comment."""
    key, data = SETS[element.set]
    text = _fields_text(key, element.key)
    if element.end:
        text += f"-{_fields_text(key[-1:], element.end[-_WIDTH[key[-1]] :])}"
    if element.comment:
        text += f' comment "{element.comment}"'
    return f"{text} : {_fields_text(data, element.data)}" if data else text


def _fields_text(kinds: tuple[str, ...], packed: bytes) -> str:
    texts = []
    for kind, value in zip(kinds, unpack(kinds, packed)):
        if isinstance(value, bytes) and kind == TARGET:
            texts.append(f"0x{value.hex()}")
        elif isinstance(value, bytes):
            texts.append(value.hex(":") if kind == MAC else str(from_packed(value)))
        elif kind == VERDICT:
            texts.append(f"goto {value}")
        elif kind == IFNAME:
            texts.append(f'"{value}"')
        elif kind == PROTO and isinstance(value, int):
            texts.append(PROTOCOL_NAMES.get(value, str(value)))
        elif kind == FAMILY and isinstance(value, int):
            texts.append(_FAMILY_NAMES.get(value, str(value)))
        else:
            texts.append(str(value))
    return " . ".join(texts)
