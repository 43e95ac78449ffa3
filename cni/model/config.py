"""The network configuration as one immutable value: every key that we know, parsed and checked.

The keys are those of the reference plugins bridge, host-local, portmap and firewall on one object, so that a user may
change `type` and keep the rest. A reference plugin's key that we do not support is refused (code 2); unknown keys pass.
`ipam` parses addresses, `ports` ports, `chain_keys` what portmap and firewall have too; nothing looks at the host.
"""

from __future__ import annotations

from cni.model import attachment
from cni.model.chain_keys import FIREWALLD, isolation_asked, parse_conditions, parse_masquerade, refuse_unsupported
from cni.model.ipam import Ipam, from_args, parse_ipam
from cni.model.names import vlan_link
from cni.model.ports import PortMapping, parse_port_mappings
from cni.model.wire import Wire, parse_rates, parse_vlans
from cni.protocol.errors import INVALID_CONFIG, CniError
from cni.protocol.fields import Fields
from cni.protocol.name_rules import check_host_link
from cni.protocol.request import Request
from nft.addresses import parse_mac, span_of
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import Json

DEFAULT_BRIDGE = "nftcni0"
LINK_MODES = ("bridge", "ptp")
LEAST_MTU = {4: 68, 6: 1280}  # RFC 791; IPV6_MIN_MTU of include/net/ipv6.h
# The keys of most configurations. For any other key, `typos` is loaded, which knows all of them.
USUAL = """ cniversion name type ipam dns args runtimeconfig prevresult bridge isgateway isdefaultgateway ipmasq mtu
 hairpinmode capabilities ingresspolicy isolation portisolation forceaddress mode """
USUAL_IPAM = " type ranges subnet routes rangestart rangeend gateway datadir "
DEPENDING = ("isGateway", "isDefaultGateway", "ipMasq")


class Network(Value):
    """What one configuration asks for one attachment. `mtu` 0 is the kernel's default; `bridge` "" is point to point.
    `given` names the keys of DEPENDING, whose defaults depend on the bridge, that the configuration has. `has_default`
    are the IP versions for which the container has a default route by another interface, if that counts; `is_further`
    says that the first interface may be yet to come, as runtimes attach networks in parallel."""

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
    direct: tuple[str, ...]
    anti_spoof: bool
    mtu: int
    mac: bytes
    dad: bool
    link_up: bool
    ipam: Ipam
    mappings: tuple[PortMapping, ...]
    wire: Wire = Wire()
    default_implied: bool = False
    is_further: bool = False
    has_default: tuple[int, ...] = ()
    as_reference: bool = False
    snat: bool = True
    masq_all: bool = False
    asks_firewall: bool = False
    zone: str = ""
    given: tuple[str, ...] = ()
    allow_bound_ports: bool = False
    fast_path: bool = False
    condition4: str = ""
    condition6: str = ""

    @property
    def default_versions(self) -> tuple[int, ...]:
        """The IP versions for which the container's default route is this network's."""
        return tuple(version for version in (4, 6) if self.is_default_gateway and version not in self.has_default)

    @property
    def is_vlan_gateway(self) -> bool:
        """Whether the host needs its own link in the VLAN, for the gateway's addresses."""
        is_reached = self.is_gateway and (self.mode4, self.mode6) != (attachment.ISOLATED, attachment.ISOLATED)
        return bool(self.wire.vlan and is_reached and (self.ipam.delegate or self.ipam.range_sets))


def parse_network(request: Request) -> Network:
    """Raises CniError 2 and 7. Under the names `bridge` and `ptp`, the defaults are the reference plugins'."""
    fields = Fields(request.document)
    runtime = fields.section("runtimeConfig")
    refuse_unsupported(fields, request.role, runtime)
    ours = not request.role
    arguments = fields.section("args").section("cni")
    ptp = request.role == "ptp" or (ours and _mode(fields) == "ptp")
    is_gateway = ptp or fields.flag("isGateway", ours) or fields.flag("isDefaultGateway")
    ipam = parse_ipam(request)
    if ptp and not ipam.delegate and not ipam.range_sets:
        raise fields.fail("ipam", "point to point needs addresses")
    mode4, mode6 = _modes(fields, ours)
    closed = attachment.OPEN not in (mode4, mode6) and attachment.UNPROTECTED not in (mode4, mode6)
    isolation, port_isolation = isolation_asked(fields, closed and not ptp) if ours else (False, False)
    promisc = not ptp and fields.flag("promiscMode")
    if promisc and fields.flag("hairpinMode"):
        raise fields.fail("promiscMode", "cannot be combined with hairpinMode: every frame would come twice")
    fast_path = fields.flag("fastPath")
    if fast_path and ptp:
        raise fields.fail("fastPath", "needs a bridge: point to point, the flowtable would have to list each link")
    vlans = {} if ptp else parse_vlans(fields)
    check_mac = not ptp and fields.flag("macspoofchk")
    wire = Wire(promisc=promisc, check_mac=check_mac, **vlans, **(parse_rates(fields, runtime) if ours else {}))
    snat, masq_all = parse_masquerade(fields) if ours else (True, False)
    condition4, condition6 = parse_conditions(fields) if ours else ("", "")
    for key, condition, mode in (("conditionsV4", condition4, mode4), ("conditionsV6", condition6, mode6)):
        if condition and mode == attachment.ROUTED:
            raise fields.fail(key, f"cannot be combined with gatewayMode {mode}, where no port is translated")
    mtu = fields.number("mtu", 0, 0, 65535)
    lowest = max(LEAST_MTU[version] for version in {4, *(ranges[0].subnet.version for ranges in ipam.range_sets)})
    if mtu and mtu < lowest:
        raise fields.fail("mtu", f"must be at least {lowest} for the addresses of this network (RFC 8200, RFC 791)")
    link_up = not fields.flag("disableContainerInterface")
    if not link_up and (ipam.delegate or ipam.range_sets):
        raise fields.fail("disableContainerInterface", "cannot be combined with ipam")
    network = Network(
        name=request.network,
        bridge="" if ptp else fields.parsed("bridge", check_host_link) or (DEFAULT_BRIDGE if ours else "cni0"),
        is_gateway=is_gateway,
        is_default_gateway=fields.flag("isDefaultGateway", ours and is_gateway and not ipam.routes_given),
        force_address=fields.flag("forceAddress"),
        ip_masq=fields.flag("ipMasq", ours),
        hairpin=fields.flag("hairpinMode", ours and not promisc),
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
        wire=wire,
        as_reference=not ours,
        default_implied=ours and not fields.has("isDefaultGateway"),
        snat=snat,
        masq_all=masq_all,
        asks_firewall=ours and _asks_firewall(fields),
        given=tuple(key for key in DEPENDING if fields.has(key)),
        allow_bound_ports=fields.flag("allowBoundPorts", not ours),
        fast_path=fast_path,
        condition4=condition4,
        condition6=condition6,
    )
    if network.is_vlan_gateway:
        link = vlan_link(network.bridge, wire.vlan)
        try:
            check_host_link(link)
        except ValueError as problem:
            what = f"the host's link in it would be {link}: {problem}"
            raise fields.fail("vlan", f"{what}; choose a shorter name for bridge") from None
    return network


def has_unknown(document: dict[str, Json]) -> bool:
    """Whether the document has a key that most configurations do not have."""
    ipam = document.get("ipam")
    more = isinstance(ipam, dict) and any(key.lower() not in USUAL_IPAM.split() for key in ipam)
    return more or any(key.lower() not in USUAL.split() for key in document)


def _asks_firewall(fields: Fields) -> bool:
    return any(map(fields.text, ("iptablesAdminChainName", "firewalldZone"))) or fields.text("backend") == FIREWALLD


def _mode(fields: Fields) -> str:
    mode = fields.text("mode", "bridge")
    if mode not in LINK_MODES:
        raise fields.fail("mode", f"must be one of {', '.join(LINK_MODES)}")
    if mode == "ptp" and fields.has("bridge"):
        raise fields.fail("bridge", 'cannot be combined with "mode": "ptp", which has no bridge')
    return mode


def _modes(fields: Fields, ours: bool) -> tuple[str, str]:
    """The modes of IPv4 and IPv6: OPEN where the configuration asks for the reference plugins' behaviour."""
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


def _prefixes(fields: Fields, key: str) -> tuple[str, ...]:
    """The prefixes as text, because most calls only pass them on. Raises CniError 7 for an invalid one."""
    texts = fields.texts(key)
    for index, text in enumerate(texts):
        try:
            span_of(text)
        except ValueError as problem:
            raise CniError(INVALID_CONFIG, f'{fields.name(key)}[{index}]: "{text[:80]}": {problem}') from None
    return texts


def _requested_mac(request: Request, fields: Fields, runtime: Fields, arguments: Fields) -> bytes:
    """runtimeConfig.mac, else args.cni.mac, else CNI_ARGS' MAC, as the reference bridge orders them, else the key `mac`
    of the whole network; b"" for none."""
    given = [runtime.parsed("mac", parse_mac), arguments.parsed("mac", parse_mac)]
    if "MAC" in request.args:
        given.append(from_args(request, "MAC").parsed("MAC", parse_mac))
    given.append(fields.parsed("mac", parse_mac))
    return next(filter(None, given), b"")
