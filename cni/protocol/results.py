"""prevResult: what the plugins before this one in a chain have made ("prevResult", SPEC.md). Pure.

Chained plugins hand it on as it came; only what they need of it is read here.
"""

from __future__ import annotations

from cni.protocol.errors import INVALID_CONFIG, CniError
from cni.protocol.fields import Fields
from cni.protocol.request import Request, check_ifname
from nft.addresses import Address, Prefix, parse_address, parse_prefix, read_mac
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.protocol.jsontext import Json


class Previous(Value):
    """`addresses` are those of the container's interface CNI_IFNAME, `gateways` all that are named; `mac`, `mtu` and
    `sandbox` what is said of the interface, as far as it is; `host_link` the host's way to it: the bridge, or the host
    end of a pair, "" where there is none (macvlan). `document` is the whole of it."""

    addresses: tuple[Prefix, ...]
    gateways: tuple[Address, ...]
    mac: bytes
    mtu: int
    sandbox: str
    host_link: str
    document: dict[str, Json]


def parse_previous(request: Request) -> Previous:
    """Raises CniError code 7 without a prevResult, or for one that is no result."""
    fields = Fields(request.document)
    if not fields.has("prevResult"):
        raise CniError(INVALID_CONFIG, f"prevResult: {request.verb} needs the result of the plugins before this one")
    document = fields.raw("prevResult")
    previous = fields.section("prevResult")
    assert isinstance(document, dict), "section has checked it"
    own = next((entry for entry in previous.sections("interfaces") if _is_own(entry, request.ifname)), Fields({}))
    return Previous(
        addresses=addresses_of(previous, request.ifname),
        gateways=tuple(_gateways(previous)),
        mac=own.parsed("mac", read_mac) or b"",
        mtu=own.number("mtu", 0, 0, 0x7FFFFFFF),
        sandbox=own.text("sandbox"),
        host_link=_host_link(previous),
        document={**document, "cniVersion": request.version},
    )


def _is_own(entry: Fields, ifname: str) -> bool:
    return entry.text("name") == ifname and bool(entry.text("sandbox"))


def addresses_of(previous: Fields, ifname: str) -> tuple[Prefix, ...]:
    """In any version's shape. An address without an interface index belongs to every interface."""
    interfaces = list(previous.sections("interfaces"))
    found = []
    for entry in previous.sections("ips"):
        prefix = entry.parsed("address", parse_prefix)
        if prefix is None:
            raise entry.fail("address", "is required")
        if entry.has("interface"):
            # -1, as libcni writes for results of old versions, is as good as none.
            index = entry.number("interface", -1, -1, max(len(interfaces) - 1, 0))
            owner = interfaces[index] if interfaces and index >= 0 else None
            if owner is not None and not _is_own(owner, ifname):
                continue
        found.append(prefix)
    for key in ("ip4", "ip6"):
        prefix = previous.section(key).parsed("ip", parse_prefix)
        if prefix is not None:
            found.append(prefix)
    return tuple(found)


def _gateways(previous: Fields) -> Iterator[Address]:
    for entry in (*previous.sections("ips"), previous.section("ip4"), previous.section("ip6")):
        gateway = entry.parsed("gateway", parse_address)
        if gateway is not None:
            yield gateway


def _host_link(previous: Fields) -> str:
    for entry in previous.sections("interfaces"):
        if not entry.text("sandbox"):
            return entry.parsed("name", check_ifname) or ""
    return ""


def merged(before: dict[str, Json], own: dict[str, Json]) -> dict[str, Json]:
    """Our result behind an earlier plugin's, which must stay in it ("ADD", SPEC.md): lists joined, the rest is its."""
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


def _items(document: dict[str, Json], key: str) -> list[Json]:
    value = document.get(key)
    return list(value) if isinstance(value, list) else []
