"""Every parser as a function of bytes, with the one exception that may come out: what both fuzzers call.

A target returns normally for input that is refused as documented; anything else that comes out is a finding.
"""

from __future__ import annotations

import contextlib
from struct import error as too_short
from typing import Callable

from cni import jsontext, wire
from cni.adopt import read_attachment
from cni.config import parse_network
from cni.errors import CniError
from cni.links import read_link
from cni.record import from_document
from cni.request import Request, _parse_args
from nft import conntrack
from nft import wire as nft_wire
from nft.elements import attachment_elements
from nft.names import SETS
from nft.wire import Element

IDENT = "net0/c1/eth0"


def configuration(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        document = jsontext.loads(data.decode())
        if isinstance(document, dict):
            request = Request("ADD", "", "c1", "/x", "eth0", {}, ("/x",), "1.1.0", "net0", "/run/nftcni", document)
            with contextlib.suppress(CniError):
                parse_network(request)


def record(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        from_document(jsontext.loads(data.decode()))


def json_text(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        jsontext.loads(data.decode())


def arguments(data: bytes) -> None:
    with contextlib.suppress(CniError):
        _parse_args(data.decode("utf-8", "surrogateescape"))


def netlink(data: bytes) -> None:
    """The kernel never sends less than a message's fixed head, so what is shorter is cut off here."""
    for _kind, _flags, _sequence, payload in wire.messages(data):
        wire.attributes(payload)
    with contextlib.suppress(too_short):
        read_link(data)
    nft_wire.read_elements(data)
    nft_wire.read_comment(data)
    nft_wire.read_table_name(data)
    nft_wire.read_table_comment(data)
    nft_wire.read_generation_process(data)
    nft_wire.read_rule(data)
    if len(data) >= 4:
        nft_wire.read_chain(data)
    conntrack._protocol(data)
    for version in (4, 6):
        conntrack._direction(version, data)


def table_elements(data: bytes) -> None:
    """Keys of the length that the set has, as the kernel sees to, and any content: what an administrator can add."""
    elements = []
    names = sorted(SETS)
    while data:
        name, data = names[data[0] % len(names)], data[1:]
        key, value = (sum(nft_wire._WIDTH[kind] for kind in kinds) for kinds in SETS[name])
        part, data = data[: key + value].ljust(key + value, b"\0"), data[key + value :]
        elements.append(Element(name, part[:key], part[key:], IDENT))
    item = read_attachment(IDENT, elements)
    if item is not None:
        attachment_elements(item)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (configuration, record, json_text, arguments, netlink, table_elements)
}
