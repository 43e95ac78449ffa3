"""An attachment as the JSON document that the state folder keeps. Pure.

The schema's number changes with its fields. Earlier schemas are read too, so that an upgrade loses no container.
"""

from __future__ import annotations

from cni.model.attachment import KINDS, MODES, OPEN, Attachment, Kind, Lease, kind_of
from cni.model.ports import PortMapping
from cni.model.wire import wire_from
from cni.protocol.name_rules import is_name
from cni.protocol.spec import Dns, Route
from nft.addresses import Address, format_mac, parse_address, parse_mac, parse_prefix, span_of
from nft.elements import PROTOCOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.protocol.jsontext import Json

SCHEMA = 3
TEXTS = ("network", "container", "ifname", "sandbox", "bridge", "delegate")
LATER_TEXTS = ("mode4", "mode6")  # since schema 3
FLAGS = (
    *("is_gateway", "force_address", "ip_masq", "isolation", "port_isolation", "hairpin", "dad", "link_up"),
    *("uplink", "done"),
)
LATER_FLAGS = ("made", "anti_spoof")

LATER = ("snat", "masq_all", "fast_path")  # absent in records from before them
LATER_WORDS = ("zone", "condition4", "condition6")  # absent as well


def to_document(item: Attachment) -> dict[str, Any]:
    """The document: strings, numbers, booleans, lists and objects that people can read and `from_document` parses."""
    document: dict[str, Any] = {"schema": SCHEMA}
    document.update((name, getattr(item, name)) for name in (*TEXTS, *LATER_TEXTS, *FLAGS, *LATER_FLAGS))
    document["lease_folder"] = item.lease_folder
    document["kind"] = item.kind.name
    document["mac"] = format_mac(item.mac)
    document["mtu"] = item.mtu
    document["leases"] = [
        {"address": str(lease.address), "gateway": str(lease.gateway) if lease.gateway else None}
        for lease in item.leases
    ]
    document["routes"] = [
        {"dst": str(route.dst), "gw": str(route.gw) if route.gw else None, "options": dict(route.options)}
        for route in item.routes
    ]
    document["dns"] = item.dns.document()
    document["wire"] = item.wire.document()
    document.update((name, getattr(item, name)) for name in (*LATER, *LATER_WORDS))
    document["direct"] = list(item.direct)
    for name, mappings in (("mappings", item.mappings), ("standby", item.standby), ("opened", item.opened)):
        document[name] = [
            [mapping.protocol, str(mapping.host_ip), mapping.host_port, mapping.container_port] for mapping in mappings
        ]
    return document


def from_document(document: Json) -> Attachment:
    """Raises ValueError for anything that neither this version's `to_document` nor an earlier one wrote."""
    try:
        if not isinstance(document, dict) or document["schema"] not in (1, 2, SCHEMA):
            raise ValueError(f"it is not of schema 1 to {SCHEMA}")
        if document["schema"] != SCHEMA:
            document = {**document, **_BEFORE_MODES}
        values: dict[str, Any] = {name: _typed(document[name], str) for name in (*TEXTS, *LATER_TEXTS)}
        values.update((name, _typed(document[name], bool)) for name in (*FLAGS, *LATER_FLAGS))
        if values["mode4"] not in MODES or values["mode6"] not in MODES:
            raise ValueError("its modes are not modes")
        if not is_name(values["network"]) or not is_name(values["container"].lstrip("~")):
            raise ValueError("its names are not names")
        return Attachment(
            kind=_kind(document),
            lease_folder=_typed(document.get("lease_folder", ""), str),
            mac=parse_mac(_typed(document["mac"], str)),
            mtu=_typed(document["mtu"], int),
            leases=tuple(_lease(entry) for entry in _typed(document["leases"], list)),
            routes=tuple(_route(entry) for entry in _typed(document["routes"], list)),
            dns=_dns(_typed(document["dns"], dict)),
            mappings=_mappings(document["mappings"]),
            standby=_mappings(document["standby"]),
            **{name: _typed(document.get(name, getattr(Attachment, name)), bool) for name in LATER},
            **{name: _typed(document.get(name, ""), str) for name in LATER_WORDS},
            wire=wire_from(_typed(document.get("wire", {}), dict)),
            opened=_mappings(document["opened"]),
            direct=tuple(_prefix(entry) for entry in _typed(document["direct"], list)),
            **values,
        )
    except (KeyError, TypeError, AttributeError) as problem:
        raise ValueError(f"a field is missing or of the wrong type: {problem}") from None


# A container from before modes stays reachable by whoever has a route to it, until it is attached again.
# Only the folder `bridges` knows whether its bridge is ours.
_BEFORE_MODES: dict[str, Any] = {
    "mode4": OPEN,
    "mode6": OPEN,
    "opened": [],
    "direct": [],
    "made": False,
    "anti_spoof": False,
}


def _kind(document: dict[str, Json]) -> Kind:
    """The attachment's kind. Schema 1, of versions before 0.2.0, has two flags instead."""
    if document["schema"] != 1:
        return KINDS[_typed(document["kind"], str)]
    own_link, own_leases = (_typed(document[name], bool) for name in ("own_link", "own_leases"))
    return kind_of(own_link, own_leases)


def _typed(value: Json, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value


def _prefix(value: Json) -> str:
    text: str = _typed(value, str)
    span_of(text)
    return text


def _optional(value: Json) -> Address | None:
    return None if value is None else parse_address(_typed(value, str))


def _lease(entry: Any) -> Lease:
    return Lease(parse_prefix(_typed(entry["address"], str)), _optional(entry["gateway"]))


def _route(entry: Any) -> Route:
    options = tuple((_typed(key, str), _typed(value, int)) for key, value in entry["options"].items())
    return Route(parse_prefix(_typed(entry["dst"], str)), _optional(entry["gw"]), options)


def _dns(entry: dict[str, Any]) -> Dns:
    servers, search, options = (
        tuple(_typed(text, str) for text in entry.get(key, [])) for key in ("nameservers", "search", "options")
    )
    return Dns(servers, _typed(entry.get("domain", ""), str), search, options)


def _mappings(entries: Json) -> tuple[PortMapping, ...]:
    """The port mappings. There may be thousands, most with the same host address, so each address is parsed once."""
    found = []
    hosts: dict[str, Address] = {}
    for entry in _typed(entries, list):
        protocol, host_ip, host_port, container_port = _typed(entry, list)
        if protocol not in PROTOCOLS or not (_is_port(host_port) and _is_port(container_port)):
            raise ValueError(f"{entry!r} is not a port mapping")
        if host_ip not in hosts:
            hosts[host_ip] = parse_address(_typed(host_ip, str))
        found.append(PortMapping(protocol, hosts[host_ip], host_port, container_port))
    return tuple(found)


def _is_port(value: Json) -> bool:
    return type(value) is int and 0 < value < 65536
