"""The parts that configurations and results share, as values: addresses with their gateways, routes, dns. Pure.

The forms of all versions are read ("ADD success" of SPEC.md; 0.2.0 has `ip4` and `ip6`).
"""

from __future__ import annotations

from cni.protocol.fields import Fields
from cni.protocol.spec import Dns, ResultAddress, Route
from nft.addresses import parse_address, parse_prefix

ROUTE_NUMBERS = {"mtu": 0xFFFF, "advmss": 0xFFFF, "priority": 0xFFFFFFFF, "table": 0xFFFFFFFF, "scope": 255}


def parse_ips(fields: Fields, interfaces: int = 0) -> tuple[ResultAddress, ...]:
    """The addresses of a result that lists this number of `interfaces`; an index beyond them is refused. Raises
    CniError 7."""
    found = []
    for entry in fields.sections("ips"):
        prefix = entry.parsed("address", parse_prefix)
        if prefix is None:
            raise entry.fail("address", "is required")
        index = None
        if entry.has("interface") and interfaces:
            # libcni writes -1 for results of old versions; it means no interface.
            index = entry.number("interface", -1, -1, interfaces - 1)
        found.append(ResultAddress(prefix, entry.parsed("gateway", parse_address), index if index != -1 else None))
    for key in ("ip4", "ip6"):
        old = fields.section(key)
        prefix = old.parsed("ip", parse_prefix)
        if prefix is not None:
            found.append(ResultAddress(prefix, old.parsed("gateway", parse_address)))
    return tuple(found)


def parse_route(fields: Fields) -> Route:
    """Raises CniError 7."""
    dst = fields.parsed("dst", parse_prefix)
    if dst is None:
        raise fields.fail("dst", "a route needs a destination such as 0.0.0.0/0")
    gateway = fields.parsed("gw", parse_address)
    if gateway is not None and gateway.version != dst.version:
        raise fields.fail("gw", f"is not of the family of {dst}")
    numbers = {key: fields.number(key, 0, 0, highest) for key, highest in ROUTE_NUMBERS.items() if fields.has(key)}
    return Route(dst.network, gateway, tuple(numbers.items()))


def parse_dns(fields: Fields) -> Dns:
    return Dns(fields.texts("nameservers"), fields.text("domain"), fields.texts("search"), fields.texts("options"))
