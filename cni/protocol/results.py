"""Parses other plugins' results: prevResult in a chain, and a delegate's answer. Pure.

See "prevResult" and "Plugin Delegation" of SPEC.md. Chained plugins pass prevResult on unchanged; this reads only what
they need of it.
"""

from __future__ import annotations

from cni.protocol.errors import INVALID_CONFIG, CniError
from cni.protocol.fields import Fields
from cni.protocol.name_rules import check_host_link
from cni.protocol.request import Request
from cni.protocol.shapes import parse_dns, parse_ips, parse_route
from cni.protocol.spec import Result
from nft.addresses import Address, Prefix, read_mac
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import Json


class Previous(Value):
    """A prevResult. `addresses` are those of the container's interface CNI_IFNAME, `gateways` all that it names. `mac`,
    `mtu` and `sandbox` describe that interface, if given. `host_link` is the bridge, or the host end of a pair, that
    leads to it, "" if there is none (macvlan). `document` is the whole prevResult."""

    addresses: tuple[Prefix, ...]
    gateways: tuple[Address, ...]
    mac: bytes
    mtu: int
    sandbox: str
    host_link: str
    document: dict[str, Json]


def parse_result(fields: Fields, interfaces: int = 0) -> Result:
    """The addresses, routes and dns of a result that lists this number of `interfaces`; that of an IPAM plugin lists
    none. Raises CniError 7 if it is not one."""
    routes = [parse_route(entry) for entry in fields.sections("routes")]
    for key in ("ip4", "ip6"):
        routes += [parse_route(entry) for entry in fields.section(key).sections("routes")]
    return Result((), parse_ips(fields, interfaces), tuple(routes), parse_dns(fields.section("dns")))


def parse_previous(request: Request) -> Previous:
    """The request's prevResult. Raises CniError 7 if it is missing or is not a result."""
    fields = Fields(request.document)
    if not fields.has("prevResult"):
        raise CniError(INVALID_CONFIG, f"prevResult: {request.verb} needs the result of the plugins before this one")
    document = fields.raw("prevResult")
    previous = fields.section("prevResult")
    assert isinstance(document, dict), "section has checked it"
    interfaces = list(previous.sections("interfaces"))
    own = next((entry for entry in interfaces if _is_own(entry, request.ifname)), Fields({}))
    ips = parse_ips(previous, len(interfaces))
    return Previous(
        # An address without an interface index belongs to every interface.
        addresses=tuple(
            item.address
            for item in ips
            if item.interface is None or _is_own(interfaces[item.interface], request.ifname)
        ),
        gateways=tuple(item.gateway for item in ips if item.gateway is not None),
        mac=own.parsed("mac", read_mac) or b"",
        mtu=own.number("mtu", 0, 0, 0x7FFFFFFF),
        sandbox=own.text("sandbox"),
        host_link=_host_link(interfaces),
        document={**document, "cniVersion": request.version},
    )


def refuse_second(request: Request, previous: Previous) -> None:
    """Raises CniError 7 if an earlier plugin of the chain has made the interface: ours would take its place."""
    if previous.sandbox:
        raise CniError(
            INVALID_CONFIG,
            f"prevResult.interfaces: an earlier plugin of the chain has made {request.ifname}",
            "one plugin of a chain makes the interface, and publishes its ports: take the other one out",
        )


def _is_own(entry: Fields, ifname: str) -> bool:
    return entry.text("name") == ifname and bool(entry.text("sandbox"))


def _host_link(interfaces: list[Fields]) -> str:
    for entry in interfaces:
        if not entry.text("sandbox") and entry.text("name") != "lo":
            return entry.parsed("name", check_host_link) or ""
    return ""


def merged(before: dict[str, Json], own: dict[str, Json]) -> dict[str, Json]:
    """An earlier plugin's result with ours behind it: it must stay in ours ("ADD", SPEC.md). Lists are joined; the rest
    is the earlier plugin's. The loopback interface is left out, because every container has one and runtimes take the
    first address for the container's."""
    before = _without_loopback(before)
    earlier = _items(before, "interfaces")
    for entry in _items(own, "ips"):
        if isinstance(entry, dict) and isinstance(entry.get("interface"), int):
            entry["interface"] = int(str(entry["interface"])) + len(earlier)
    joined: dict[str, Json] = {
        key: _items(before, key) + _items(own, key)
        for key in ("interfaces", "ips", "routes")
        if key in before or key in own
    }
    return {**own, **before, **joined}


def _without_loopback(document: dict[str, Json]) -> dict[str, Json]:
    """The result, without interfaces and addresses if the loopback is its only interface."""
    names = [entry.get("name") for entry in _items(document, "interfaces") if isinstance(entry, dict)]
    return {**document, "interfaces": [], "ips": []} if names == ["lo"] else document


def _items(document: dict[str, Json], key: str) -> list[Json]:
    value = document.get(key)
    return list(value) if isinstance(value, list) else []
