"""Turns what was asked (request, configuration, leases) into the attachment's record, and decides which of its ports it
may have beside others. Pure."""

from __future__ import annotations

from cni.model.attachment import (
    BRIDGED,
    DELEGATED,
    FURTHER_METRIC,
    ISOLATED,
    ROUTED,
    RT_SCOPE_LINK,
    Attachment,
    Lease,
)
from cni.model.names import derived_mac, host_link, identity, vlan_link
from cni.model.ports import Occupied, PortMapping, by_claim, for_families, versions_of
from cni.protocol.errors import INVALID_CONFIG, PORT_TAKEN, CniError
from cni.protocol.request import Request
from cni.protocol.spec import Dns, Interface, Result, ResultAddress, Route
from nft.addresses import Address, Prefix, format_mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.model.config import Network
    from cni.model.ports import Holders

ANYWHERE = {4: Prefix(Address(4, 0), 0), 6: Prefix(Address(6, 0), 0)}


def plan_attachment(request: Request, network: Network, leases: tuple[Lease, ...]) -> Attachment:
    """The record of an attachment; with a foreign IPAM plugin, still without addresses. Raises CniError 7 for ports of
    a family that it lacks."""
    ident = identity(request.network, request.container, request.ifname)
    delegated = bool(network.ipam.delegate)
    bridge, wire = network.bridge or host_link(ident), network.wire
    if network.is_vlan_gateway:
        bridge, wire = vlan_link(bridge, wire.vlan), wire.replace(master=bridge)
    item = Attachment(
        network=request.network,
        container=request.container,
        ifname=request.ifname,
        sandbox=request.netns,
        bridge=bridge,
        mac=network.mac or derived_mac("container", ident),
        mtu=network.mtu,
        dns=network.ipam.dns,
        direct=network.direct,
        anti_spoof=network.anti_spoof and not delegated,
        mode4=network.mode4,
        mode6=network.mode6,
        is_gateway=network.is_gateway,
        force_address=network.force_address,
        ip_masq=network.ip_masq,
        isolation=network.isolation,
        port_isolation=network.port_isolation,
        hairpin=network.hairpin,
        dad=network.dad,
        link_up=network.link_up,
        delegate=network.ipam.delegate,
        wire=wire,
        snat=network.snat,
        masq_all=network.masq_all,
        zone=network.zone,
        fast_path=network.fast_path,
        condition4=network.condition4,
        condition6=network.condition6,
        kind=DELEGATED if delegated else BRIDGED,
    )
    return item if delegated else _with_leases(item, network, leases, network.ipam.routes)


def with_delegated(item: Attachment, network: Network, result: Result) -> Attachment:
    """The record once a foreign IPAM plugin has answered. Raises CniError 7 for an address point to point that has no
    gateway."""
    leases = tuple(
        Lease(entry.address, entry.gateway or (_usual_gateway(entry.address) if network.is_gateway else None))
        for entry in result.ips
    )
    if item.is_ptp and not all(lease.gateway for lease in leases):
        lacking = next(lease.address for lease in leases if not lease.gateway)
        raise CniError(INVALID_CONFIG, f"ipam.type {item.delegate}: {lacking} has no gateway, and none follows from it")
    item = _with_leases(item, network, leases, result.routes)
    return item.replace(dns=item.dns if item.dns != Dns() else result.dns)


def _with_leases(
    item: Attachment, network: Network, leases: tuple[Lease, ...], routes: tuple[Route, ...]
) -> Attachment:
    """The record with what follows from its addresses: routes and ports. An isolated family has neither, and no
    gateway."""
    apart = {version for version in (4, 6) if item.mode(version) == ISOLATED}
    leases = tuple(lease.replace(gateway=None) if lease.address.version in apart else lease for lease in leases)
    leases = _distinct(leases)
    routes = tuple(route for route in routes if route.dst.version not in apart)
    versions = tuple(version for version in _versions(leases) if version not in apart)
    ports = for_families(network.mappings, versions, item.ifname)
    routed = {version for version in versions if item.mode(version) == ROUTED}
    mappings: list[PortMapping] = []
    opened: list[PortMapping] = []
    for mapping in ports:
        assert mapping.host_ip is not None, "for_families gives each a host address"
        if mapping.host_ip.version not in routed:
            mappings.append(mapping)
        elif not mapping.host_ip.is_loopback:  # only the host reaches a port of its loopback
            opened.append(mapping)
    return item.replace(
        leases=leases,
        routes=_routes(network, routes, leases),
        mappings=tuple(mappings),
        opened=tuple(opened),
    )


def _usual_gateway(address: Prefix) -> Address | None:
    """The subnet's first address, which the reference bridge takes if the IPAM plugin names no gateway."""
    first = Address(address.version, address.first + 1)
    return first if first in address and first != address.address else None


def _distinct(leases: tuple[Lease, ...]) -> tuple[Lease, ...]:
    """Each address once: a runtime may ask for it in two ways. Raises CniError 7 for one with two prefix lengths."""
    found: dict[Address, Lease] = {}
    for lease in leases:
        first = found.setdefault(lease.address.address, lease)
        if first.address != lease.address:
            raise CniError(
                INVALID_CONFIG,
                f"ipam: {first.address} and {lease.address} are one address, which an interface has once",
                "ask for it with one prefix length",
            )
    return tuple(found.values())


def _versions(leases: tuple[Lease, ...]) -> tuple[int, ...]:
    return versions_of(lease.address for lease in leases)


def _routes(network: Network, routes: tuple[Route, ...], leases: tuple[Lease, ...]) -> tuple[Route, ...]:
    """The record's routes. Under the reference plugins' names they stay as asked for, because those answer them so;
    `inner_routes` has them with gateways."""
    options = (("priority", FURTHER_METRIC),) if network.is_further else ()
    complete = complete_routes(routes, leases, network.default_versions, options)
    return tuple(_as_asked(routes, route) for route in complete) if network.as_reference else complete


def _as_asked(routes: tuple[Route, ...], complete: Route) -> Route:
    """The route without a gateway from which the complete one was made: there may be several to one destination."""
    asked = [route for route in routes if route.dst == complete.dst and not route.gw]
    if complete in routes or not asked:
        return complete
    return next((route for route in asked if route.options == complete.options), asked[0])


def complete_routes(
    routes: tuple[Route, ...],
    leases: tuple[Lease, ...],
    default: tuple[int, ...],
    options: tuple[tuple[str, int], ...] = (),
) -> tuple[Route, ...]:
    """Gives routes without a gateway that of their family; adds a default route for each version of `default` with one,
    with these options.

    Routes of a family without an address are left out, because the kernel would refuse them.
    """
    gateways = {lease.address.version: lease.gateway for lease in reversed(leases)}
    found = []
    for route in routes:
        if route.dst.version not in gateways:
            continue
        on_link = dict(route.options).get("scope") == RT_SCOPE_LINK  # the user wants no gateway
        gateway = route.gw if route.gw or on_link else gateways[route.dst.version]
        found.append(Route(route.dst, gateway, route.options))
    for version in default:
        gateway = gateways.get(version)
        if gateway and not any(route.dst == ANYWHERE[version] and route.gw for route in routes):
            found = [route for route in found if route.dst != ANYWHERE[version]]
            found.append(Route(ANYWHERE[version], gateway, options))
    return tuple(dict.fromkeys(found))


def result_of(item: Attachment, bridge_mac: bytes, bridge_mtu: int, port_mac: bytes) -> Result:
    """What the runtime is told: the bridge, the host end, the container's end, and all addresses on the latter."""
    interfaces = (
        Interface(item.master, format_mac(bridge_mac), bridge_mtu),
        Interface(item.link, format_mac(port_mac), item.mtu or 1500),
        Interface(item.ifname, format_mac(item.mac), item.mtu or 1500, item.sandbox),
    )
    ips = tuple(ResultAddress(lease.address, lease.gateway, 2) for lease in item.leases)
    return Result(interfaces, ips, item.routes, item.dns)


# Which of its ports it may have beside all others


def without_shared_ports(held: Holders, item: Attachment) -> Attachment:
    """The record with the ports that its container's other attachments hold moved to `standby`. Runtimes ask all of a
    container's networks for all of its ports, in parallel (go-cni, podman): the first attachment publishes them, the
    others wait. `held` says who has them now."""
    if not held:
        return item
    container = item.ident.split("/")[1]
    waiting: dict[PortMapping, None] = {}
    for port, own in by_claim(item.mappings).items():
        others = {
            host_ip
            for host_ip, holder in held.get(port, ())
            if holder != item.ident and holder.split("/")[1:2] == [container]
        }
        waiting.update(dict.fromkeys(mapping for mapping in own if others and mapping.host_ip in others))
    if not waiting:
        return item
    left = tuple(mapping for mapping in item.mappings if mapping not in waiting)
    return item.replace(mappings=left, standby=tuple(mapping for mapping in item.mappings if mapping in waiting))


def refuse_held_ports(held: Holders, item: Attachment) -> None:
    """Raises CniError 100 for a port that another container holds. This includes a wildcard against a single address of
    the same port, which the table's map would accept."""
    for port, own in by_claim(item.mappings).items() if held else ():
        holders = [(host_ip, holder) for host_ip, holder in held.get(port, ()) if holder != item.ident]
        others = Occupied(holders)
        for mapping in own if holders else ():
            assert mapping.host_ip is not None, "records hold concrete host addresses only"
            met = others.find(mapping.host_ip)
            if met is not None:
                network, container, ifname = str(met[1]).split("/")
                raise CniError(
                    PORT_TAKEN,
                    f"host port {mapping} is taken by network {network}, container {container}, interface {ifname} "
                    f"(on {met[0]})",
                    "publish another port, or remove that container; if it has ended without DEL: "
                    f"nftcni forget {network}/{container}",
                )
