"""An attachment's projection into the table: which elements it has, as values. Pure.

ADD adds these, CHECK compares them, DEL and GC delete them, repair and list print them. An attachment's element in
`attachments` is added and deleted in one transaction with all its others: where it is missing, the attachment has none.
That keeps a late DEL away from what another attachment holds by now.

`nft.schema` says what an element means, `nft.ruleset` which rules look it up.
"""

from __future__ import annotations

from cni.model.attachment import Attachment
from cni.model.names import bridge_mac, derived_mac
from cni.model.ports import PortMapping
from nft.addresses import BITS, Address, link_local, merged
from nft.elements import NFPROTO, PROTOCOLS, Element, pack
from nft.schema import FAMILY, IFNAME, MAC, PORT, SETS, condition_chain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def marker(key: bytes, ident: str = "") -> Element:
    return Element("attachments", key, b"", ident)


def attachment_elements(item: Attachment) -> list[Element]:
    """The elements that only this attachment has. `attachments` comes first, so that a conflict there is recognized."""
    if not item.in_table:
        return []
    ident = item.ident
    elements = [marker(item.key, ident)]
    for lease in item.leases:
        version, packed = lease.address.version, lease.address.address.packed
        if item.bridge and item.uplink:
            elements.append(Element(f"guests{version}", pack((IFNAME,), (item.bridge,)) + packed, b"", ident))
        elif item.bridge and _is_served(item, version):
            # With br_netfilter, packets that stay in a VLAN pass the IP tables under the bridge's own name.
            for link in dict.fromkeys((item.bridge, item.master)):
                elements.append(Element(f"containers{version}", pack((IFNAME,), (link,)) + packed, b"", ident))
            if item.is_fast:
                elements.append(Element(f"fast{version}", pack((IFNAME,), (item.bridge,)) + packed, b"", ident))
        if item.is_masqueraded(version):
            elements.append(Element(f"masq{version}", packed, b"", ident))
    if item.mappings and (item.masq_all or not item.snat):
        name = "shown" if not item.snat else "hidden"
        elements += [Element(f"{name}{address.version}", address.packed, b"", ident) for address in item.addresses]
    if item.made and item.kind.own_link and not item.is_ptp:
        # A bridge gives the host frames to a port's own MAC address as well (br_handle_frame_finish).
        mac = pack((MAC,), (derived_mac("host", ident),))
        for link in dict.fromkeys((item.bridge, item.master)):
            elements.append(Element("bridge_macs", pack((IFNAME,), (link,)) + mac, b"", ident))
    elements += dict.fromkeys(_port_elements(item))
    for version in {mapping.host_ip.version for mapping in item.mappings if mapping.host_ip}:
        target = _target(item, version)
        own = (address for address in item.addresses if address.version == version)
        elements += [Element(f"self{version}", address.packed + target.packed, b"", ident) for address in own]
    published = _published(item)
    elements += published
    if item.conditions:
        elements += [_gated(item, element) for element in published if item.condition(int(element.set[4]))]
    return elements + list(dict.fromkeys(_opened(item, mapping) for mapping in item.opened))


def _port_elements(item: Attachment) -> list[Element]:
    """What the container may send with: its MAC address, its addresses, and the link-local one that the MAC implies."""
    ident, name = item.ident, pack((IFNAME,), (item.link,))
    own = Element("own_macs", name + pack((MAC,), (item.mac,)), b"", ident)
    elements = [own, Element("checked", name, b"", ident)] if item.wire.check_mac else []
    if not (item.made and item.anti_spoof):
        return elements
    elements += [own, Element("guarded", name, b"", ident)]
    implied, asked = link_local(item.mac).address, item.asked_for_mac
    if not asked:
        elements.append(Element("taken_macs", item.mac, b"", ident))
    others = [implied] if item.address_of(6) or asked else []
    for address in dict.fromkeys((*item.addresses, *others)):
        elements.append(Element(f"holds{address.version}", name + address.packed, b"", ident))
        if address.version == 6:
            elements.append(Element("advertised", name + address.packed, b"", ident))
        if address != implied or not asked:
            elements += _taken(address, ident)
    return elements


def mac_elements(item: Attachment) -> list[Element]:
    """The elements of a MAC address that somebody asked for: nobody else may use it, nor the link-local address that it
    implies. They are nobody's own, because a container on another network may have the same one."""
    if not (item.made and item.anti_spoof and item.in_table and item.asked_for_mac):
        return []
    return [Element("taken_macs", item.mac), *_taken(link_local(item.mac).address)]


def _is_served(item: Attachment, version: int) -> bool:
    """Whether the table knows the attachment's addresses of this family. It knows none of an internal network of ours:
    whatever the host gets from there is dropped."""
    return item.is_routed(version) or not item.made


def _target(item: Attachment, version: int) -> Address:
    target = item.address_of(version)
    assert target is not None, "for_families keeps only mappings of a family that the container has"
    return target


def _published(item: Attachment) -> list[Element]:
    """The elements of the published ports. There may be thousands, so what they share is looked up once."""
    ident = item.ident
    targets: dict[int, bytes] = {}
    found = []
    for mapping in item.mappings:
        assert mapping.host_ip is not None, "records hold concrete host addresses only"
        version = mapping.host_ip.version
        if version not in targets:
            targets[version] = _target(item, version).packed
        name, key = f"dnat{version}", pack(SETS["dnat4"][0], (PROTOCOLS[mapping.protocol], mapping.host_port))
        if not mapping.host_ip.is_unspecified:
            name, key = f"{name}_ip", mapping.host_ip.packed + key
        found.append(Element(name, key, targets[version] + pack((PORT,), (mapping.container_port,)), ident))
    return found


def _gated(item: Attachment, published: Element) -> Element:
    """The element that leads a published port's packets to the chain of its condition."""
    name = published.set.replace("dnat", "gated")
    return Element(name, published.key, condition_chain(item.condition(int(published.set[4]))).encode(), item.ident)


def _opened(item: Attachment, mapping: PortMapping) -> Element:
    assert mapping.host_ip is not None, "records hold concrete host addresses only"
    name = f"opened{mapping.host_ip.version}"
    target = _target(item, mapping.host_ip.version)
    fields = (target.packed, PROTOCOLS[mapping.protocol], mapping.container_port)
    return Element(name, pack(SETS[name][0], fields), b"", item.ident)


def bridge_elements(item: Attachment, mac_of: Callable[[str], bytes] = bridge_mac) -> list[Element]:
    """The elements that all attachments of a bridge share; they go with the last attachment. If two ask for different
    things, the stricter one wins. An uplink has none, because it is not a network of containers. `mac_of` gives a
    bridge's MAC address."""
    if not item.bridge or item.uplink or not item.in_table:
        return []
    name = pack((IFNAME,), (item.bridge,))
    elements = [Element("same_net", name + name)]
    if item.isolation:
        elements.append(Element("isolated", name))
    if item.is_fast:
        elements.append(fast_link(item.bridge))
    if item.port_isolation and item.kind.own_link:
        elements.append(Element("apart", name + name))
    if item.made:
        mac = derived_mac("host", item.ident) if item.is_ptp else mac_of(item.master)
        elements += [Element("bridges", name), *master_elements(item, mac)]
        if item.wire.master:
            elements += [Element("vlans", name), Element("bridge_macs", name + pack((MAC,), (mac,)))]
        if item.anti_spoof:
            # Point to point all have the same gateway, and no neighbour who could take its address.
            gateways = () if item.is_ptp else item.gateways
            elements += [element for prefix in gateways for element in _taken(prefix.address)]
    for version in (4, 6):
        family = pack((FAMILY,), (NFPROTO[version],)) + name
        if item.is_closed(version):
            elements.append(Element("closed", family))
        if item.made and item.is_routed(version):
            elements.append(Element("routed", family))
            if item.is_masqueraded(version):
                elements.append(Element("masquerading", family))
    return elements


def master_elements(item: Attachment, mac: bytes) -> list[Element]:
    """The elements that the VLANs of a bridge of ours share with each other, and with the bridge's own network."""
    if not item.made:
        return []
    name = pack((IFNAME,), (item.master,))
    elements = [Element("bridge_macs", name + pack((MAC,), (mac,)))]
    if item.anti_spoof:
        elements.append(Element("taken_macs", mac))
    return [*elements, Element("vlan_bridges", name)] if item.wire.master else elements


def fast_link(bridge: str) -> Element:
    return Element("fast_links", pack((IFNAME,), (bridge,)))


def _taken(address: Address, ident: str = "") -> list[Element]:
    taken = Element(f"taken{address.version}", address.packed, b"", ident)
    return [taken, Element("taken_targets", address.packed, b"", ident)] if address.version == 6 else [taken]


def widest_elements(bridge: str, made: bool) -> list[Element]:
    """All elements that an attachment may give a bridge: to delete with the last attachment, whose record may ask for
    fewer."""
    return bridge_elements(Attachment("", "", "", "", bridge, b"", made=made, port_isolation=True, anti_spoof=True))


def direct_elements(item: Attachment) -> list[Element]:
    """The prefixes that are not masqueraded, which a bridge's attachments share as well. There may be thousands. None
    lies inside another, because the kernel would refuse that."""
    if not item.bridge or item.uplink or not item.in_table:
        return []
    name = pack((IFNAME,), (item.bridge,))
    found = []
    for version, first, last in merged(item.direct):
        width = BITS[version] // 8
        ends = first.to_bytes(width, "big"), last.to_bytes(width, "big")
        found.append(Element(f"direct{version}", name + ends[0], b"", "", name + ends[1]))
    return found


def cross_elements(item: Attachment, others: list[Attachment]) -> list[Element]:
    """For a container on several networks: on each network's link, the addresses that the container has on its others.
    `others` are the container's other attachments. Also masquerades what the host sends from its own address on one
    network, or a UDP server would answer on that network. An element lasts as long as both attachments."""
    elements: dict[Element, None] = {}
    for other in others:
        for one, far in ((item, other), (other, item)):
            if not (one.bridge and far.bridge and one.in_table and far.in_table):
                continue
            for address in one.addresses:
                if one.bridge != far.bridge:
                    name = pack((IFNAME,), (far.bridge,))
                    elements[Element(f"cross{address.version}", name + address.packed)] = None
                for gateway in far.gateways:
                    if gateway.version == address.version and one.bridge != far.bridge:
                        elements[Element(f"self{address.version}", gateway.address.packed + address.packed)] = None
                if far.made and far.anti_spoof:
                    name = pack((IFNAME,), (far.link,))
                    elements[Element(f"holds{address.version}", name + address.packed)] = None
    return list(elements)


def shared_elements(item: Attachment, others: list[Attachment]) -> list[Element]:
    """What other attachments may need as well, but for `direct_elements`. `others` are as in `cross_elements`."""
    return bridge_elements(item) + mac_elements(item) + cross_elements(item, others)


def unrouted_elements(version: int, links: list[str]) -> list[Element]:
    """`links` are "name kind", with `routing` behind it for one whose own forwarding is on. A packet that stays on
    somebody else's bridge does not pass between links, though br_netfilter shows it to forward."""
    elements = []
    for link in links:
        name = pack((IFNAME,), (link.split()[0],))
        family = pack((FAMILY,), (NFPROTO[version],)) + name
        elements.append(Element("unrouted", family))
        if "routing" in link.split()[2:]:
            elements.append(Element("routing", family))
        if link.split()[1] == "bridge":
            elements.append(Element("same_net", name + name))
    return elements


def projection(items: list[Attachment]) -> dict[tuple[str, bytes], Element]:
    """All elements that the table should hold for these attachments, by set and key."""
    # Each reads a file, so not for every attachment.
    macs = {name: bridge_mac(name) for name in {item.master for item in items if item.made and not item.is_ptp}}
    elements = [element for item in items for element in mac_elements(item)]
    elements += [
        element for item in items for element in (*attachment_elements(item), *bridge_elements(item, macs.__getitem__))
    ]
    by_container: dict[str, list[Attachment]] = {}
    for item in items:
        by_container.setdefault(item.container, []).append(item)
    for several in by_container.values():
        for number, item in enumerate(several[1:], 1):
            elements += cross_elements(item, several[:number])
    by_bridge: dict[str, list[Attachment]] = {}
    for item in items:
        if item.direct and item.in_table and not item.uplink:
            by_bridge.setdefault(item.bridge, []).append(item)
    for several in by_bridge.values():
        prefixes = {prefix for item in several for prefix in item.direct}
        elements += direct_elements(several[0].replace(direct=tuple(prefixes)))
    return {(element.set, element.key): element for element in elements}
