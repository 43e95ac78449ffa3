"""Reads an attachment back from its elements, for a record that was lost: the projection reversed. Pure.

No element tells the container's MAC address, its routes and more. `cni.recovery` adds what the host's links and the
leases tell.
"""

from __future__ import annotations

from cni.model.attachment import NAT, ROUTED, Attachment, Lease
from cni.model.names import derived_mac
from cni.model.ports import ANY, PortMapping
from cni.model.wire import Wire
from cni.protocol.name_rules import is_name
from nft.addresses import BITS, Address, Prefix, from_packed, host_prefix, link_local
from nft.elements import PROTOCOL_NAMES, Element, unpack
from nft.schema import SETS


def read_attachment(ident: str, elements: list[Element]) -> Attachment | None:
    """The attachment as far as its elements tell, None for a comment that is not an attachment's identity."""
    parts = ident.split("/")
    if len(parts) != 3 or not is_name(parts[0]) or not is_name(parts[1].lstrip("~")) or not parts[2]:
        return None
    addresses: dict[Address, None] = {}
    mappings: list[PortMapping] = []
    opened: list[PortMapping] = []
    bridge = ""
    uplink = anti_spoof = check_mac = fast_path = masq_all = False
    snat = True
    mac = derived_mac("container", ident)
    masked: set[int] = set()
    for element in elements:
        try:
            key, data = SETS[element.set]
            fields, values = unpack(key, element.key), unpack(data, element.data)
        except (KeyError, ValueError):
            continue  # none of our elements looks like this; somebody edited the table by hand
        if element.set[:-1] in ("containers", "guests"):
            addresses[_address(fields[1])] = None
            bridge = max(bridge, str(fields[0]), key=len)  # the host's link in a VLAN is named after the bridge
            uplink = element.set.startswith("guests")
        elif element.set.startswith("opened") and fields[1] in PROTOCOL_NAMES:
            protocol, number = int(str(fields[1])), int(str(fields[2]))
            opened.append(PortMapping(PROTOCOL_NAMES[protocol], ANY[int(element.set[-1])], number, number))
        elif element.set == "guarded":
            anti_spoof = True
        elif element.set in ("fast4", "fast6"):
            fast_path = True
        elif element.set == "checked":
            check_mac = True
        elif element.set in ("holds4", "holds6"):  # an internal network's addresses are nowhere else
            addresses[_address(fields[1])] = None
        elif element.set in ("hidden4", "hidden6"):
            masq_all = True
        elif element.set in ("shown4", "shown6"):
            snat = False
        elif element.set == "own_macs" and isinstance(fields[1], bytes):
            mac = fields[1]
        elif element.set.startswith("masq"):
            addresses[_address(fields[0])] = None
            masked.add(int(element.set[-1]))
        elif element.set.startswith("dnat") and fields[-2] in PROTOCOL_NAMES:
            host_ip = _address(fields[0]) if element.set.endswith("_ip") else ANY[int(element.set[4])]
            numbers = fields[-2], fields[-1], values[1]
            protocol, host_port, container_port = (int(str(number)) for number in numbers)
            mappings.append(PortMapping(PROTOCOL_NAMES[protocol], host_ip, host_port, container_port))
            addresses[_address(values[0])] = None
    addresses.pop(link_local(mac).address, None)  # the MAC address implies it
    return Attachment(
        network=parts[0],
        container=parts[1],
        ifname=parts[2],
        sandbox="",
        bridge=bridge,
        mac=mac,
        leases=bare_leases(addresses),
        mappings=tuple(mappings),
        opened=tuple(opened),
        mode4=ROUTED if masked == {6} else NAT,
        mode6=ROUTED if masked == {4} else NAT,
        ip_masq=bool(masked),
        is_gateway=False,
        uplink=uplink,
        anti_spoof=anti_spoof,
        wire=Wire(check_mac=check_mac),
        fast_path=fast_path,
        snat=snat,
        masq_all=masq_all,
    )


def read_direct(element: Element) -> tuple[str, Prefix]:
    """(link, prefix): what comes from this link and goes to this prefix is never masqueraded."""
    kinds = SETS[element.set][0]
    (link, packed), (_link, end) = unpack(kinds, element.key), unpack(kinds, element.end)
    first, last = _address(packed), _address(end)
    return str(link), Prefix(first, BITS[first.version] - (last.number - first.number).bit_length())


def _address(packed: object) -> Address:
    assert isinstance(packed, bytes), "addresses are unpacked as bytes"
    return from_packed(packed)


def bare_leases(addresses: dict[Address, None]) -> tuple[Lease, ...]:
    """Leases with full-length prefixes, because no element tells the subnets' lengths."""
    return tuple(Lease(host_prefix(address)) for address in addresses)
