"""Records for attachments whose own ones are lost or damaged: from the table, the host's links and the leases.

The table's comments and elements say who has which address and port, the port of the bridge says what was asked of it;
the container's MAC, routes and the rest are not known any more. Such a record can be deleted, collected and protected
from others, but CHECK will ask for an ADD.
"""

from __future__ import annotations

import sys

from cni.kernel.links import get_link, link_name
from cni.model.attachment import Attachment, Lease
from cni.model.names import derived_mac
from cni.model.ports import ANY, PortMapping, collide
from cni.protocol.spec import is_name
from nft.addresses import BITS, Address, Prefix, from_packed, parse_address
from nft.elements import PROTOCOL_NAMES, bridge_elements, projection
from nft.messages import Element, unpack
from nft.schema import SETS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.host import Host


def adopt_all(host: Host) -> None:
    """A record for everybody in the table who has none: fills a fresh state folder."""
    by_owner: dict[str, list[Element]] = {}
    for element in host.table.elements():
        if element.comment:
            by_owner.setdefault(element.comment, []).append(element)
    known = set(host.state.identities())
    for ident in by_owner.keys() - known:
        _adopt(host, ident, by_owner[ident], f"the record of {ident} was lost")


def adopt_one(host: Host, ident: str, message: str) -> Attachment | None:
    """In place of a record that was damaged or deleted. None for what is no attachment's identity."""
    return _adopt(host, ident, [element for element in host.table.elements() if element.comment == ident], message)


def _adopt(host: Host, ident: str, elements: list[Element], message: str) -> Attachment | None:
    found = read_attachment(ident, elements)
    if found is None:
        return None
    sys.stderr.write(f"nftcni: {message}; what the table, the links and the leases say of it is kept\n")
    leases, ports = host.state.claimed_by(ident)
    item = _without_others(host, _as_on_the_host(host, found, leases))
    kept = projection([item])
    # Of a ruleset that was saved and loaded again: what another one has by now, and what is not in the table any more.
    others = [element for element in elements if (element.set, element.key) not in kept]
    if others:
        host.table.delete(others)
    for claim, line in ports:
        if (claim, line) not in [(mapping.claim, f"{mapping.host_ip}={ident}") for mapping in item.mappings]:
            host.state.unclaim(claim, line.lstrip("?"))
    host.state.begin(item)
    return item


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
        bridge=bridge,
        mac=derived_mac("container", ident),
        leases=_bare_leases(addresses),
        mappings=tuple(mappings),
        ip_masq=masq,
        is_gateway=False,
    )


def _address(packed: object) -> Address:
    assert isinstance(packed, bytes), "addresses are unpacked as bytes"
    return from_packed(packed)


def _as_on_the_host(host: Host, item: Attachment, leases: list[str]) -> Attachment:
    """With what its link, its bridge and its leases tell."""
    port = get_link(host.rtnl, item.link)
    bridge = item.bridge or host.state.bridge_of(item.link) or (link_name(host.rtnl, port.master) if port else "")
    shared = {
        element.set
        for element in bridge_elements(item.replace(bridge=bridge, isolation=True))
        if host.table.get(element) is not None
    }
    addresses = dict.fromkeys((*item.addresses, *filter(None, map(_leased_address, leases))))
    return item.replace(
        bridge=bridge,
        leases=_bare_leases(addresses),
        isolation="isolated" in shared,
        uplink=bool(bridge) and item.bridge == bridge and "bridges" not in shared,
        hairpin=port.hairpin if port else False,
        port_isolation=port.isolated if port else False,
        own_link=port is not None or any("@" not in name for name in leases),
        own_leases=port is not None or bool(leases),
    )


def _leased_address(name: str) -> Address | None:
    try:
        return parse_address(name.partition("@")[0])
    except ValueError:
        return None


def _bare_leases(addresses: dict[Address, None]) -> tuple[Lease, ...]:
    """The subnets' lengths are not known."""
    return tuple(Lease(Prefix(address, BITS[address.version])) for address in addresses)


def _without_others(host: Host, item: Attachment) -> Attachment:
    def is_free(lease: Lease) -> bool:
        name = item.replace(leases=(lease,)).leased
        return not name or host.state.lease_holder(name[0]) in ("", item.ident)

    def is_others(mapping: PortMapping) -> bool:
        holders = host.state.port_holders(mapping.claim)
        return any(who != item.ident and mapping.host_ip and collide(ip, mapping.host_ip) for ip, who in holders)

    item = item.replace(leases=tuple(filter(is_free, item.leases)))
    return item.replace(
        mappings=tuple(
            mapping
            for mapping in item.mappings
            if not is_others(mapping) and mapping.host_ip and item.address_of(mapping.host_ip.version)
        )
    )
