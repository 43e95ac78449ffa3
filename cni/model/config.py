"""The network configuration as one immutable value: every key that means something to us, parsed and checked.

The keys are those of the reference plugins bridge, host-local, portmap and firewall on one object, so that a user may
change `type` and keep the rest. A key of theirs that we do not do is refused (code 2), unknown keys pass. Ranges are
`ranges`, ports `ports`; nothing here looks at the host.
"""

from __future__ import annotations

from cni.model import attachment
from cni.model.ports import PortMapping, parse_port_mappings
from cni.model.ranges import Range, check_overlaps, parse_range, parse_range_sets
from cni.protocol.errors import INVALID_CONFIG, CniError
from cni.protocol.fields import Fields
from cni.protocol.request import BUILT_IN_IPAM, Request, check_ifname
from cni.protocol.shapes import parse_dns, parse_route
from cni.protocol.spec import Dns, Route
from nft.addresses import Address, Prefix, merged, parse_address, parse_mac, parse_prefix
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import Json

NOT_DONE = "nftcni does not do this; remove the key, or use the reference plugin for this network"
# How the reference plugins would do it; here it is nftables in any case. Nomad writes ip6tables for the second family.
BACKENDS = ("", "nftables", "iptables", "ip6tables")
REFUSED: dict[str, tuple[Json, ...]] = {  # key: the values that ask for nothing
    "ipMasqBackend": BACKENDS,
    "backend": BACKENDS,
    "promiscMode": (False,),
    "vlan": (0,),
    "vlanTrunk": ([],),
    "preserveDefaultVlan": (False, True),  # speaks of `vlan` only
    "macspoofchk": (False,),
    "snat": (True,),
    "masqAll": (False,),
    "markMasqBit": (13,),  # the reference's own default
    "externalSetMarkChain": ("",),
    "conditionsV4": ([],),
    "conditionsV6": ([],),
    "firewalldZone": ("",),
    "sysctl": ({},),
    "promisc": (False,),
    "allmulti": (False,),
    "txQLen": (0,),
}
KEYS_OF = {  # of the reference plugins whose names the executable may have
    "bridge": ("ipMasqBackend", "promiscMode", "vlan", "vlanTrunk", "preserveDefaultVlan", "macspoofchk"),
    "portmap": ("backend", "snat", "masqAll", "markMasqBit", "externalSetMarkChain", "conditionsV4", "conditionsV6"),
    "firewall": ("backend", "firewalldZone"),
}
POLICIES = ("", "open", "same-bridge", "isolated")


class Ipam(Value):
    """`delegate` names a foreign IPAM plugin; without it the range sets are ours to lease from, none means layer 2."""

    delegate: str
    range_sets: tuple[tuple[Range, ...], ...]
    routes: tuple[Route, ...]
    routes_given: bool
    requested: tuple[Address, ...]
    dns: Dns


class Network(Value):
    """What one configuration asks of one attachment. `mtu` 0 leaves the kernel's default."""

    name: str
    bridge: str
    is_gateway: bool
    is_default_gateway: bool
    force_address: bool
    ip_masq: bool
    hairpin: bool
    isolation: bool
    port_isolation: bool
    mode4: str
    mode6: str
    direct: tuple[Prefix, ...]
    anti_spoof: bool
    mtu: int
    mac: bytes
    dad: bool
    link_up: bool
    ipam: Ipam
    mappings: tuple[PortMapping, ...]


def parse_network(request: Request) -> Network:
    """Raises CniError codes 2 and 7. Under the name `bridge` the defaults are those of the reference plugin."""
    fields = Fields(request.document)
    refuse_unsupported(fields, request.role)
    ours = request.role != "bridge"
    runtime = fields.section("runtimeConfig")
    for key in ("bandwidth", "infinibandGUID", "deviceID"):
        runtime.refuse_unless(key, ({}, ""), NOT_DONE)
    arguments = fields.section("args").section("cni")
    is_gateway = fields.flag("isGateway", ours) or fields.flag("isDefaultGateway")
    ipam = parse_ipam(request)
    mode4, mode6 = _modes(fields, ours)
    closed = attachment.OPEN not in (mode4, mode6) and attachment.UNPROTECTED not in (mode4, mode6)
    isolation, port_isolation = isolation_asked(fields, closed) if ours else (False, False)
    mtu = fields.number("mtu", 0, 0, 65535)
    lowest = 1280 if any(item.subnet.version == 6 for ranges in ipam.range_sets for item in ranges) else 68
    if mtu and mtu < lowest:
        raise fields.fail("mtu", f"must be at least {lowest} for the addresses of this network (RFC 8200, RFC 791)")
    link_up = not fields.flag("disableContainerInterface")
    if not link_up and (ipam.delegate or ipam.range_sets):
        raise fields.fail("disableContainerInterface", "cannot be combined with ipam")
    return Network(
        name=request.network,
        bridge=fields.parsed("bridge", check_ifname) or ("nftcni0" if ours else "cni0"),
        is_gateway=is_gateway,
        is_default_gateway=fields.flag("isDefaultGateway", ours and is_gateway and not ipam.routes_given),
        force_address=fields.flag("forceAddress"),
        ip_masq=fields.flag("ipMasq", ours),
        hairpin=fields.flag("hairpinMode", ours),
        isolation=fields.flag("isolation", isolation),
        port_isolation=fields.flag("portIsolation", port_isolation),
        mode4=mode4,
        mode6=mode6,
        direct=_prefixes(fields, "nonMasqueradeCIDRs"),
        anti_spoof=fields.flag("antiSpoof", ours),
        mtu=mtu,
        mac=_requested_mac(request, fields, runtime, arguments),
        dad=fields.flag("enabledad"),
        link_up=link_up,
        ipam=ipam,
        mappings=parse_port_mappings(runtime),
    )


def refuse_unsupported(fields: Fields, role: str) -> None:
    """Raises CniError code 2 for what the reference plugin of that name does and we do not. Without a role: of all."""
    for key in KEYS_OF[role] if role else REFUSED:
        fields.refuse_unless(key, REFUSED[key], NOT_DONE)


def isolation_asked(fields: Fields, default: bool = False) -> tuple[bool, bool]:
    """(between networks, between the ports of a bridge) by ingressPolicy of the reference firewall plugin."""
    policy = fields.text("ingressPolicy")
    if policy not in POLICIES:
        raise fields.fail("ingressPolicy", f"must be one of {', '.join(filter(None, POLICIES))}")
    return (policy != "open" if policy else default), policy == "isolated"


def _modes(fields: Fields, ours: bool) -> tuple[str, str]:
    """Of IPv4 and IPv6. What asks for the reference plugins' meaning is open."""
    default = attachment.NAT if ours and fields.text("ingressPolicy") != "open" else attachment.OPEN
    found = []
    for key in ("gatewayModeIPv4", "gatewayModeIPv6"):
        mode = fields.text(key) or fields.text("gatewayMode") or default
        if mode not in attachment.MODES:
            raise fields.fail(
                key if fields.text(key) else "gatewayMode", f"must be one of {', '.join(attachment.MODES)}"
            )
        found.append(mode)
    return found[0], found[1]


def _prefixes(fields: Fields, key: str) -> tuple[Prefix, ...]:
    """Networks; an address alone is a network of one. Prefixes inside others are left out: the kernel has no place for
    overlapping ones."""
    found = []
    for path, text in fields.items(key):
        try:
            if not isinstance(text, str):
                raise ValueError("must be a string")
            address = text if "/" in text else f"{text}/{128 if ':' in text else 32}"
            found.append(parse_prefix(address).network)
        except ValueError as problem:
            raise CniError(INVALID_CONFIG, f'{path}: "{str(text)[:80]}": {problem}') from None
    return merged(found)


def _requested_mac(request: Request, fields: Fields, runtime: Fields, arguments: Fields) -> bytes:
    """runtimeConfig.mac, else args.cni.mac, else CNI_ARGS MAC, as the reference bridge orders them; b"" for none."""
    given = [source.parsed("mac", parse_mac) for source in (runtime, arguments, fields)]
    if "MAC" in request.args:
        given.append(_from_args(request, "MAC").parsed("MAC", parse_mac))
    return next(filter(None, given), b"")


def _from_args(request: Request, key: str) -> Fields:
    return Fields({key: request.args[key]}, "CNI_ARGS")


def parse_ipam(request: Request) -> Ipam:
    """Raises CniError code 7."""
    fields = Fields(request.document)
    runtime, arguments = fields.section("runtimeConfig"), fields.section("args").section("cni")
    ipam = fields.section("ipam")
    kind = ipam.text("type")
    if "/" in kind or kind in (".", ".."):
        raise ipam.fail("type", "is the name of an executable, without a folder")
    if kind not in BUILT_IN_IPAM:
        return Ipam(kind, (), (), True, (), parse_dns(fields.section("dns")))
    sets = parse_range_sets(runtime, "ipRanges")
    if ipam.has("subnet"):
        sets.append((parse_range(ipam),))
    sets += parse_range_sets(ipam, "ranges")
    if kind and not sets:
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
    )


def _requested_addresses(request: Request, runtime: Fields, arguments: Fields) -> tuple[Address, ...]:
    """runtimeConfig.ips with args.cni.ips, or CNI_ARGS IP where that is absent (CONVENTIONS.md). Prefixes are cut."""
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
    section = runtime.section("dns")  # the capability says `servers` and `searches` (CONVENTIONS.md)
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
