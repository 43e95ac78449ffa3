"""An attachment's projection into the table: which elements it has, as values. Pure.

ADD adds these, CHECK compares them, DEL and GC delete them, repair and list print them. An attachment's element in
`attachments` is added and deleted in one transaction with all its others, so where it is missing, none is the
attachment's: that is what keeps a late DEL away from what another one holds now.
"""

from __future__ import annotations

from cni.model.attachment import Attachment
from nft.elements import PROTOCOLS, Element, pack
from nft.schema import IFNAME, SETS


def marker(key: bytes, ident: str = "") -> Element:
    return Element("attachments", key, b"", ident)


def attachment_elements(item: Attachment) -> list[Element]:
    """The elements that are this attachment's alone; `attachments` comes first, so that a conflict is told apart."""
    if not item.in_table:
        return []
    ident = item.ident
    elements = [marker(item.key, ident)]
    for lease in item.leases:
        version, packed = lease.address.version, lease.address.address.packed
        own = f"own{version}"
        if item.bridge:
            elements.append(Element(own, pack(SETS[own][0], (packed, item.bridge)), b"", ident))
        if item.ip_masq:
            elements.append(Element(f"masq{version}", packed, b"", ident))
    if item.mappings and (item.masq_all or not item.snat):
        name = "shown" if not item.snat else "hidden"
        elements += [Element(f"{name}{address.version}", address.packed, b"", ident) for address in item.addresses]
    for mapping in item.mappings:
        assert mapping.host_ip is not None, "records hold concrete host addresses only"
        version = mapping.host_ip.version
        target = item.address_of(version)
        assert target is not None, "ports.for_families lets no other family through"
        name, fields = f"dnat{version}", (PROTOCOLS[mapping.protocol], mapping.host_port)
        if mapping.host_ip.is_unspecified:
            key = pack(SETS[name][0], fields)
        else:
            name += "_ip"
            key = pack(SETS[name][0], (mapping.host_ip.packed, *fields))
        elements.append(Element(name, key, pack(SETS[name][1], (target.packed, mapping.container_port)), ident))
    return elements


def bridge_elements(item: Attachment) -> list[Element]:
    """The elements that every attachment of a bridge shares; they go with the bridge's last attachment. An uplink of
    the host has none: what is forwarded by it is neither isolated nor spared the masquerade."""
    if not item.bridge or item.uplink or not item.in_table:
        return []
    name = pack((IFNAME,), (item.bridge,))
    elements = [Element("bridges", name), Element("same_net", name + name)]
    return [*elements, Element("isolated", name)] if item.isolation else elements


def projection(items: list[Attachment]) -> dict[tuple[str, bytes], Element]:
    """All that the table should hold, by set and key."""
    elements = (element for item in items for element in (*attachment_elements(item), *bridge_elements(item)))
    return {(element.set, element.key): element for element in elements}
