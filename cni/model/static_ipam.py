"""The IPAM plugin `static`: the addresses that the configuration itself names. Pure.

Nobody leases them. If two containers of one host have the same address, the change of the table fails.
"""

from __future__ import annotations

from cni.protocol.errors import INVALID_CONFIG, CniError
from cni.protocol.fields import Fields
from cni.protocol.request import Request
from cni.protocol.shapes import parse_dns, parse_route
from cni.protocol.spec import Result, ResultAddress
from nft.addresses import Address, Prefix, parse_address, parse_prefix

NAME = "static"


def static_result(request: Request) -> Result:
    """runtimeConfig.ips, else args.cni.ips, else `ipam.addresses` and those of CNI_ARGS. Raises CniError 7."""
    fields = Fields(request.document)
    ipam = fields.section("ipam")
    asked = [
        _addresses(place)
        for place in (fields.section("runtimeConfig"), fields.section("args").section("cni"))
        if place.texts("ips")
    ]
    ips = asked[0] if asked else [*_configured(ipam), *_from_environment(request)]
    if not asked:
        ips = _with_gateways(request, ips)
    if request.version in ("0.1.0", "0.2.0"):
        for version in (4, 6):
            if sum(item.address.version == version for item in ips) > 1:
                problem = f"cniVersion {request.version} knows one address per family, use 0.3.0"
                raise ipam.fail("addresses", problem)
    routes = tuple(parse_route(entry) for entry in ipam.sections("routes"))
    return Result((), tuple(ips), routes, parse_dns(ipam.section("dns")))


def _configured(ipam: Fields) -> list[ResultAddress]:
    found = []
    for entry in ipam.sections("addresses"):
        prefix = entry.parsed("address", parse_prefix)
        if prefix is None:
            raise entry.fail("address", "an entry needs an address with its prefix length")
        found.append(ResultAddress(prefix, entry.parsed("gateway", parse_address)))
    return found


def _addresses(place: Fields) -> list[ResultAddress]:
    return [ResultAddress(_prefix(path, str(text))) for path, text in place.items("ips")]


def _from_environment(request: Request) -> list[ResultAddress]:
    texts = request.args.get("IP", "").split(",")
    return [ResultAddress(_prefix("CNI_ARGS.IP", text.strip())) for text in texts if text.strip()]


def _with_gateways(request: Request, ips: list[ResultAddress]) -> list[ResultAddress]:
    """Each gateway of CNI_ARGS belongs to the addresses whose subnet holds it."""
    for text in filter(None, map(str.strip, request.args.get("GATEWAY", "").split(","))):
        gateway = _gateway(text)
        ips = [item.replace(gateway=gateway) if gateway in item.address.network else item for item in ips]
    return ips


def _gateway(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as problem:
        raise CniError(INVALID_CONFIG, f'CNI_ARGS.GATEWAY: "{text[:80]}": {problem}') from None


def _prefix(path: str, text: str) -> Prefix:
    try:
        return parse_prefix(text)
    except ValueError as problem:
        raise CniError(INVALID_CONFIG, f'{path}: "{text[:80]}": {problem}') from None
