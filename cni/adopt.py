"""Records for attachments that only the kernel's table still knows: state lost or damaged.

The table's comments and elements say who has which address and port; the container's MAC, routes and the rest are not
known any more, so such a record can be deleted, collected and protected from others, but CHECK will ask for an ADD.
"""

from __future__ import annotations

import sys

from nft.elements import PROTOCOL_NAMES, projection
from nft.names import SETS
from nft.table import Table
from nft.wire import Element, unpack

from .ip import BITS, Address, Prefix
from .names import derived_mac
from .ports import ANY, PortMapping, collide
from .record import Attachment, Lease
from .spec import is_name
from .state import State


def adopt_all(state: State, table: Table) -> None:
    """Fills an empty state folder from the table, if there is one."""
    by_owner: dict[str, list[Element]] = {}
    for element in table.elements():
        if element.comment:
            by_owner.setdefault(element.comment, []).append(element)
    for ident, elements in by_owner.items():
        item = read_attachment(ident, elements)
        if item is not None:
            say(f"the record of {ident} was lost; its addresses and ports are kept from the table")
            state.begin(item)


def adopt_one(state: State, table: Table, ident: str, message: str) -> Attachment | None:
    """In place of a record that was damaged or deleted: what the table says of it, but for what another one has by now.

    A ruleset that was saved and loaded again may say such a thing; those elements are taken away.
    """
    say(message)
    elements = [element for element in table.elements() if element.comment == ident]
    item = read_attachment(ident, elements)
    if item is None:
        return None
    item = _without_others(state, item)
    kept = projection([item])
    others = [element for element in elements if (element.set, element.key) not in kept]
    if others:
        table.delete(others)
    state.begin(item)
    return item


def _without_others(state: State, item: Attachment) -> Attachment:
    leases = tuple(lease for lease in item.leases if state.lease_holder(lease.address.address) in ("", item.ident))

    def is_others(mapping: PortMapping) -> bool:
        holders = state.port_holders(mapping.claim)
        return any(
            holder != item.ident and mapping.host_ip and collide(host_ip, mapping.host_ip)
            for host_ip, holder in holders
        )

    item = item.replace(leases=leases)
    return item.replace(
        mappings=tuple(
            mapping
            for mapping in item.mappings
            if not is_others(mapping) and mapping.host_ip and item.address_of(mapping.host_ip.version)
        )
    )


def read_attachment(ident: str, elements: list[Element]) -> Attachment | None:
    """None for a comment that is not an attachment's identity."""
    parts = ident.split("/")
    if len(parts) != 3 or not is_name(parts[0]) or not is_name(parts[1].lstrip("~")) or not parts[2]:
        return None
    addresses: dict[Address, None] = {}
    mappings: list[PortMapping] = []
    bridge = ""
    masq = False
    for element in elements:
        try:
            key, data = SETS[element.set]
            fields, values = unpack(key, element.key), unpack(data, element.data)
        except (KeyError, ValueError):
            continue  # nothing of ours looks like that; somebody wrote into the table by hand
        if element.set in ("own4", "own6"):
            addresses[_address(fields[0])] = None
            bridge = str(fields[1])
        elif element.set.startswith("masq"):
            addresses[_address(fields[0])] = None
            masq = True
        elif element.set.startswith("dnat") and fields[-2] in PROTOCOL_NAMES:
            host_ip = _address(fields[0]) if element.set.endswith("_ip") else ANY[int(element.set[4])]
            numbers = fields[-2], fields[-1], values[1]
            protocol, host_port, container_port = (int(str(number)) for number in numbers)
            mappings.append(PortMapping(PROTOCOL_NAMES[protocol], host_ip, host_port, container_port))
            addresses[_address(values[0])] = None
    return Attachment(
        network=parts[0],
        container=parts[1],
        ifname=parts[2],
        sandbox="",
        bridge=bridge or "nftcni0",
        mac=derived_mac("container", ident),
        leases=tuple(Lease(Prefix(address, BITS[address.version])) for address in addresses),
        mappings=tuple(mappings),
        ip_masq=masq,
        is_gateway=False,
    )


def _address(packed: object) -> Address:
    assert isinstance(packed, bytes), "addresses are unpacked as bytes"
    return Address(4 if len(packed) == 4 else 6, int.from_bytes(packed, "big"))


def say(message: str) -> None:
    sys.stderr.write(f"nftcni: {message}\n")
