"""The section `ipam` and the other keys that ask for addresses, as one immutable value: parsed and checked.

`ranges` parses the ranges, `choice` picks a container's address. The only file that is read is the one that
`resolvConf` names.
"""

from __future__ import annotations

from cni.model.ranges import Range, check_overlaps, parse_range, parse_range_sets
from cni.protocol.errors import INVALID_CONFIG, CniError
from cni.protocol.fields import Fields
from cni.protocol.request import BUILT_IN_IPAM, Request
from cni.protocol.shapes import parse_dns, parse_route
from cni.protocol.spec import Dns, Route
from nft.addresses import Address, parse_address, parse_prefix
from nft.value import Value

LEASE_FILES = "/var/lib/cni/networks"  # the reference host-local's default (backend/disk)


class Ipam(Value):
    """`delegate` names a foreign IPAM plugin. Without one we lease from the range sets; no set means layer 2 only.
    `lease_folder` is where the reference host-local keeps this network's lease files. We keep them too if `dataDir`, or
    that plugin's name, asks for them."""

    delegate: str
    range_sets: tuple[tuple[Range, ...], ...]
    routes: tuple[Route, ...]
    routes_given: bool
    requested: tuple[Address, ...]
    dns: Dns
    lease_folder: str = LEASE_FILES
    keeps_files: bool = False


def parse_ipam(request: Request) -> Ipam:
    """Raises CniError 7."""
    fields = Fields(request.document)
    runtime, arguments = fields.section("runtimeConfig"), fields.section("args").section("cni")
    ipam = fields.section("ipam")
    kind = ipam.text("type")
    if "/" in kind or kind in (".", ".."):
        raise ipam.fail("type", "must be the name of an executable, without a folder")
    if kind not in BUILT_IN_IPAM:
        return Ipam(kind, (), (), True, (), parse_dns(fields.section("dns")))
    sets = parse_range_sets(runtime, "ipRanges")
    if ipam.has("subnet"):
        sets.append((parse_range(ipam),))
    sets += parse_range_sets(ipam, "ranges")
    if kind and kind != "flannel" and not sets:  # flannel's ranges are in its lease, which CHECK does not need
        raise ipam.fail("ranges", "at least one range is needed")
    check_overlaps(sets)
    if request.version in ("0.1.0", "0.2.0"):
        if not sets:
            raise ipam.fail("ranges", f"cniVersion {request.version} has no result without an address; use 0.3.0")
        for version in (4, 6):
            if sum(ranges[0].subnet.version == version for ranges in sets) > 1:
                raise ipam.fail("ranges", f"cniVersion {request.version} knows one address per family, use 0.3.0")
    return Ipam(
        delegate="",
        range_sets=tuple(sets),
        routes=tuple(parse_route(item) for item in ipam.sections("routes")),
        routes_given=ipam.has("routes"),
        requested=_requested_addresses(request, runtime, arguments),
        dns=_choose_dns(fields, runtime, ipam),
        lease_folder=f"{ipam.parsed('dataDir', _absolute) or LEASE_FILES}/{request.network}",
        keeps_files=bool(sets) and (bool(request.role) or ipam.has("dataDir")),
    )


def _absolute(path: str) -> str:
    """The path without a slash at its end. Raises ValueError for a relative path."""
    if not path.startswith("/") or not path.isprintable():
        raise ValueError("must be an absolute path")
    return path.rstrip("/")


def _requested_addresses(request: Request, runtime: Fields, arguments: Fields) -> tuple[Address, ...]:
    """runtimeConfig.ips and args.cni.ips, and CNI_ARGS' IP if there is no args.cni.ips (CONVENTIONS.md). Prefix lengths
    are dropped."""
    sources = [runtime, arguments]
    entries = [(path, text) for item in sources for path, text in zip(_paths(item, "ips"), item.texts("ips"))]
    if "IP" in request.args and not arguments.has("ips"):
        entries += [("CNI_ARGS.IP", text) for text in request.args["IP"].split(",")]
    found: dict[Address, None] = {}
    for path, text in entries:
        try:
            found[parse_prefix(text).address if "/" in text else parse_address(text)] = None
        except ValueError as problem:
            raise CniError(INVALID_CONFIG, f'{path}: "{text[:80]}": {problem}') from None
    return tuple(found)


def _paths(fields: Fields, key: str) -> list[str]:
    return [path for path, _ in fields.items(key)]


def _choose_dns(fields: Fields, runtime: Fields, ipam: Fields) -> Dns:
    section = runtime.section("dns")  # the capability's keys are `servers` and `searches` (CONVENTIONS.md)
    asked = Dns(section.texts("servers"), "", section.texts("searches"), section.texts("options"))
    own, path = parse_dns(fields.section("dns")), ipam.text("resolvConf")
    if runtime.has("dns"):
        return asked
    if fields.has("dns"):
        return own
    if not path:
        return Dns()
    from cni.protocol.resolvconf import read_resolv_conf

    try:
        return read_resolv_conf(path)
    except (OSError, ValueError) as problem:
        raise ipam.fail("resolvConf", f"cannot be read: {problem}") from None


def from_args(request: Request, key: str) -> Fields:
    return Fields({key: request.args[key]}, "CNI_ARGS")
