"""The CNI specification's documents: results, errors, and what each version of them has. Pure.

`request` reads the environment, `config` our configuration keys. References are to SPEC.md of containernetworking/cni
1.1.0.
"""

from __future__ import annotations

from cni.protocol.errors import INCOMPATIBLE_VERSION, INVALID_CONFIG, CniError
from cni.protocol.versions import SINCE, VERSIONS
from nft.addresses import Address, Prefix
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Interface(Value):
    """An interface of a result; `sandbox` is "" on the host."""

    name: str
    mac: str
    mtu: int = 0
    sandbox: str = ""


class ResultAddress(Value):
    """An address of a result, with the index of its interface."""

    address: Prefix
    gateway: Address | None = None
    interface: int | None = None


class Route(Value):
    """`options` holds those of mtu, advmss, priority, table and scope that were given."""

    dst: Prefix
    gw: Address | None = None
    options: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return f"{self.dst} via {self.gw}" if self.gw else str(self.dst)


class Dns(Value):
    """The `dns` of a result."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        full = {"nameservers": self.nameservers, "domain": self.domain, "search": self.search, "options": self.options}
        return {key: list(item) if isinstance(item, tuple) else item for key, item in full.items() if item}


class Result(Value):
    """What ADD answers."""

    interfaces: tuple[Interface, ...]
    ips: tuple[ResultAddress, ...]
    routes: tuple[Route, ...]
    dns: Dns


def check_version(version: str, verb: str) -> None:
    """Raises CniError 1 for an unknown version. As in libcni, only exact names count: `1.0` is not `1.0.0`."""
    details = f"this plugin supports {', '.join(VERSIONS)}"
    if version not in VERSIONS:
        raise CniError(INCOMPATIBLE_VERSION, f'cniVersion "{version[:40]}" is not supported', details)
    since = SINCE.get(verb)
    if since and VERSIONS.index(version) < VERSIONS.index(since):
        raise CniError(INCOMPATIBLE_VERSION, f"{verb} came with cniVersion {since}, this configuration says {version}")


def error_document(error: CniError, version: str) -> dict[str, Any]:
    document = {"cniVersion": version, "code": error.code, "msg": error.msg}
    return document | {"details": error.details} if error.details else document


def result_document(result: Result, version: str, named: bool = False) -> dict[str, Any]:
    """The result in the shape of `version` ("ADD success"; older shapes as libcni's pkg/types/020, 040 and 100).

    Routes have numbers since 1.1.0. Under a reference plugin's name (`named`) they are written at any version, as by
    libcni's types, because the main plugin that called us sets what its IPAM plugin answers.
    """
    if version in ("0.1.0", "0.2.0"):
        return _result_020(result, version, named)
    with_mtu = version == "1.1.0"
    numbered = version.startswith("0.")
    document: dict[str, Any] = {"cniVersion": version}
    if result.interfaces:
        document["interfaces"] = [_interface(item, with_mtu) for item in result.interfaces]
    if result.ips:
        document["ips"] = [_address(item, numbered) for item in result.ips]
    if result.routes:
        document["routes"] = [_route(item, with_mtu or named) for item in result.routes]
    dns = result.dns.document()
    if dns or numbered:
        document["dns"] = dns
    return document


def _interface(item: Interface, with_mtu: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"name": item.name, "mac": item.mac}
    if with_mtu and item.mtu:
        document["mtu"] = item.mtu
    if item.sandbox:
        document["sandbox"] = item.sandbox
    return document


def _address(item: ResultAddress, numbered: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"version": str(item.address.version)} if numbered else {}
    document["address"] = str(item.address)
    if item.gateway is not None:
        document["gateway"] = str(item.gateway)
    if item.interface is not None:
        document["interface"] = item.interface
    return document


def _route(item: Route, with_options: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"dst": str(item.dst)}
    if item.gw is not None:
        document["gw"] = str(item.gw)
    return document | dict(item.options) if with_options else document


def _result_020(result: Result, version: str, with_options: bool) -> dict[str, Any]:
    """The 0.1.0 and 0.2.0 shape: one address per family, no interfaces, routes only of a family with an address. Raises
    CniError 7 for a result without an address."""
    document: dict[str, Any] = {"cniVersion": version}
    for family, key in ((4, "ip4"), (6, "ip6")):
        first = next((item for item in result.ips if item.address.version == family), None)
        if first is None:
            continue
        entry: dict[str, Any] = {"ip": str(first.address)}
        if first.gateway is not None:
            entry["gateway"] = str(first.gateway)
        routes = [_route(item, with_options) for item in result.routes if item.dst.version == family]
        if routes:
            entry["routes"] = routes
        document[key] = entry
    if len(document) == 1:
        raise CniError(INVALID_CONFIG, f"cniVersion {version} has no result without an address; use 0.3.0 or newer")
    document["dns"] = result.dns.document()
    return document
