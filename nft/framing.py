"""Netlink's framing: messages, and the attributes inside them, as bytes. Pure; sockets are `netlink`.

Numbers and layouts are from include/uapi/linux/netlink.h.
"""

from __future__ import annotations

from .stdlib import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

NLM_F_REQUEST, NLM_F_ACK, NLM_F_ECHO, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x4, 0x8, 0x10, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF

NLMSG = Struct("=IHHII")  # length, type, flags, sequence, port
NLA = Struct("=HH")  # length, type
_U32 = Struct("=I")


def message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    return NLMSG.pack(NLMSG.size + len(payload), kind, flags, sequence, 0) + payload


def attr(kind: int, data: bytes) -> bytes:
    """One attribute, padded to four bytes; its length field does not count the padding."""
    return NLA.pack(4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def attr_u32(kind: int, value: int) -> bytes:
    return attr(kind, _U32.pack(value))


def attr_name(kind: int, name: str) -> bytes:
    return attr(kind, name.encode("utf-8", "surrogateescape") + b"\0")


def walk(data: bytes, header: Struct, start: int = 0) -> Iterator[tuple[Any, bytes]]:
    """Yields (header's fields, payload) of each record from offset `start` on. The first field of every header is the
    record's length; records are padded to four bytes. A malformed rest is dropped."""
    size, end, unpack = header.size, len(data), header.unpack_from
    while start + size <= end:
        fields = unpack(data, start)
        length = fields[0]
        if length < size or start + length > end:
            return
        yield fields, data[start + size : start + length]
        start += (length + 3) & ~3


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, payload) of each message in one datagram."""
    for (_length, kind, flags, sequence, _port), payload in walk(data, NLMSG):
        yield kind, flags, sequence, payload


def last_message(data: bytes) -> tuple[int, int, int, bytes]:
    """(type, flags, sequence, payload) of the datagram's last message, the only one that may end a listing
    (netlink_dump), with the flags of all: each may say that the listing was interrupted."""
    kind = flags = sequence = start = begin = end = 0
    while start + NLMSG.size <= len(data):
        length, kind, own, sequence, _port = NLMSG.unpack_from(data, start)
        flags |= own
        begin, end = start + NLMSG.size, start + length
        start += max(NLMSG.size, (length + 3) & ~3)
    return kind, flags, sequence, data[begin:end]


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """The attributes from offset `start` on, by type; of several with one type, the last wins."""
    found, end, unpack = {}, len(data), NLA.unpack_from
    while start + 4 <= end:  # as `walk`, in a quarter less time: a link has some forty attributes, and an ADD asks nine
        length, kind = unpack(data, start)
        if length < 4 or start + length > end:
            break
        found[kind & NLA_TYPE_MASK] = data[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def items(data: bytes) -> list[bytes]:
    """The payloads of a list's attributes, whose types are all the same or count up."""
    return [payload for _fields, payload in walk(data, NLA)]


def text(raw: bytes) -> str:
    """A name that ends with a NUL. Bytes that are not UTF-8 survive the way back to the kernel."""
    return raw.rstrip(b"\0").decode("utf-8", "surrogateescape")
