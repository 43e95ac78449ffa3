"""The record of one attachment: what was decided at ADD, as a value and as the JSON that the state folder keeps.

The kernel is this record's projection: `nft.elements` says which table elements it has, `links` which links. Nothing
here touches the disk (`state`) or decides anything (`plan`).
"""

from __future__ import annotations

from cni.model.names import digest, host_link, identity
from cni.model.ports import PROTOCOLS, PortMapping
from cni.protocol.spec import Dns, Route, is_name
from nft.addresses import Address, Prefix, format_mac, parse_address, parse_mac, parse_prefix
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.protocol.jsontext import Json

SCHEMA = 1


class Lease(Value):
    """An address of the container: with the subnet's length, and the gateway of its range if there is one."""

    address: Prefix
    gateway: Address | None = None


class Attachment(Value):
    """One interface of one container on one network. `mappings` all have a host address of their own family; `standby`
    are those that another interface of the same container publishes, to be taken over when that one goes.

    `sandbox` is CNI_NETNS as it was given, `delegate` the foreign IPAM plugin that we called for the addresses, `done`
    whether ADD came to its end. Without `own_link` somebody else's plugin made the interface, `bridge` is then the
    host's link that leads to it, "" if there is none; without `own_leases` the addresses are not ours to lease.
    An `uplink` is a bridge that somebody else made and that has its gateway elsewhere: the host's own way out, perhaps.
    """

    network: str
    container: str
    ifname: str
    sandbox: str
    bridge: str
    mac: bytes
    mtu: int = 0
    leases: tuple[Lease, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()
    mappings: tuple[PortMapping, ...] = ()
    standby: tuple[PortMapping, ...] = ()
    is_gateway: bool = True
    force_address: bool = False
    ip_masq: bool = True
    isolation: bool = True
    port_isolation: bool = False
    hairpin: bool = True
    dad: bool = False
    link_up: bool = True
    delegate: str = ""
    own_link: bool = True
    own_leases: bool = True
    uplink: bool = False
    done: bool = False

    @property
    def ident(self) -> str:
        return identity(self.network, self.container, self.ifname)

    @property
    def key(self) -> bytes:
        return attachment_key(self.ident)

    @property
    def link(self) -> str:
        return host_link(self.ident)

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(lease.address.address for lease in self.leases)

    @property
    def leased(self) -> tuple[str, ...]:
        """The names of its leases; the addresses of a foreign IPAM plugin are that one's affair."""
        scope = "" if self.own_link else self.network
        return tuple(lease_name(address, scope) for address in self.addresses) if self.own_leases else ()

    @property
    def in_table(self) -> bool:
        """Whether it has elements at all: not what waits for its addresses (an ADD that goes on would meet its own),
        not addresses leased for somebody else's plugin alone."""
        if self.delegate and not self.leases:
            return False
        return self.own_link or bool(self.mappings) or self.isolation

    def address_of(self, version: int) -> Address | None:
        """The container's first address of a family, the one its published ports lead to."""
        return next((lease.address.address for lease in self.leases if lease.address.version == version), None)

    @property
    def gateways(self) -> tuple[Prefix, ...]:
        """The addresses that the bridge has because of this attachment."""
        if not self.is_gateway or not self.own_link:
            return ()
        found = {Prefix(lease.gateway, lease.address.length): None for lease in self.leases if lease.gateway}
        return tuple(found)


def lease_name(address: Address, scope: str = "") -> str:
    """Our own networks share the host, so an address is one container's; what other plugins attach, to VLANs by macvlan
    for example, may have one address on two networks: `scope` is the network then."""
    return f"{address}@{scope}" if scope else str(address)


def attachment_key(ident: str) -> bytes:
    """16 bytes that stand for an attachment in the table's set `attachments`."""
    return digest("attachment", ident)


TEXTS = ("network", "container", "ifname", "sandbox", "bridge", "delegate")
FLAGS = (
    *("is_gateway", "force_address", "ip_masq", "isolation", "port_isolation", "hairpin", "dad", "link_up"),
    *("own_link", "own_leases", "uplink", "done"),
)


def to_document(item: Attachment) -> dict[str, Any]:
    """Only strings, numbers, booleans, lists and objects, for people to read and `from_document` to take back."""
    document: dict[str, Any] = {"schema": SCHEMA}
    document.update((name, getattr(item, name)) for name in (*TEXTS, *FLAGS))
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
    for name, mappings in (("mappings", item.mappings), ("standby", item.standby)):
        document[name] = [
            [mapping.protocol, str(mapping.host_ip), mapping.host_port, mapping.container_port] for mapping in mappings
        ]
    return document


def from_document(document: Json) -> Attachment:
    """Raises ValueError for anything that `to_document` did not write, of this schema or another."""
    try:
        if not isinstance(document, dict) or document["schema"] != SCHEMA:
            raise ValueError("it is not of schema 1")
        values: dict[str, Any] = {name: _typed(document[name], str) for name in TEXTS}
        values.update((name, _typed(document[name], bool)) for name in FLAGS)
        if not is_name(values["network"]) or not is_name(values["container"].lstrip("~")):
            raise ValueError("its names are not names")
        return Attachment(
            mac=parse_mac(_typed(document["mac"], str)),
            mtu=_typed(document["mtu"], int),
            leases=tuple(_lease(entry) for entry in _typed(document["leases"], list)),
            routes=tuple(_route(entry) for entry in _typed(document["routes"], list)),
            dns=_dns(_typed(document["dns"], dict)),
            mappings=tuple(_mapping(entry) for entry in _typed(document["mappings"], list)),
            standby=tuple(_mapping(entry) for entry in _typed(document["standby"], list)),
            **values,
        )
    except (KeyError, TypeError, AttributeError) as problem:
        raise ValueError(f"a field is missing or of the wrong type: {problem}") from None


def _typed(value: Json, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value


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


def _mapping(entry: Any) -> PortMapping:
    protocol, host_ip, host_port, container_port = _typed(entry, list)
    ports_fit = all(type(port) is int and 0 < port < 65536 for port in (host_port, container_port))
    if protocol not in PROTOCOLS or not ports_fit:
        raise ValueError(f"{entry!r} is not a port mapping")
    return PortMapping(protocol, parse_address(_typed(host_ip, str)), host_port, container_port)
