"""One attachment: what was decided at ADD, as a value. The kernel is its projection.

`plan` decides it, `projection` makes its table elements, `cni.kernel.pair` its links, and `cni.state.record` its form
on disk.
"""

from __future__ import annotations

from cni.model.names import derived_mac, host_link, identity, shaper_link
from cni.model.ports import PortMapping
from cni.model.wire import Wire
from cni.protocol.spec import Dns, Route
from nft.addresses import BITS, Address, Prefix, host_prefix
from nft.digest import digest
from nft.value import Value


class Kind(Value):
    """Who made the interface, and who leases its addresses."""

    name: str
    own_link: bool
    own_leases: bool


BRIDGED = Kind("bridged", True, True)  # our veth pair, our leases: the usual kind
DELEGATED = Kind("delegated", True, False)  # our veth pair, addresses from a foreign IPAM plugin
CHAINED = Kind("chained", False, False)  # somebody else's interface; ours are its ports or its isolation
LEASED = Kind("leased", False, True)  # somebody else's interface, or none, with addresses of our host-local
RT_SCOPE_LINK = 253  # include/uapi/linux/rtnetlink.h
# The metric of a further interface's default route, behind those of the first one: 0, and 1024 for IPv6
# (IP6_RT_PRIO_USER). With equal metrics, the kernel would take turns.
FURTHER_METRIC = 2048
KINDS = {kind.name: kind for kind in (BRIDGED, DELEGATED, CHAINED, LEASED)}


# How the outside sees a network, one mode for each family, in Docker's words (its bridge's gateway_mode_ipv4).
NAT = "nat"  # containers are masqueraded; the outside reaches published ports, at the host's address
UNPROTECTED = "nat-unprotected"  # as NAT, but whoever has a route reaches everything
ROUTED = "routed"  # containers show their own addresses; the outside reaches published ports there
ISOLATED = "isolated"  # the host has no address on the bridge; nothing leaves it, nothing comes in
OPEN = "open"  # not Docker's: the outside reaches everything, and ipMasq decides about masquerading
MODES = (NAT, UNPROTECTED, ROUTED, ISOLATED, OPEN)


def kind_of(own_link: bool, own_leases: bool) -> Kind:
    return next(kind for kind in KINDS.values() if (kind.own_link, kind.own_leases) == (own_link, own_leases))


class Lease(Value):
    """An address of the container with its subnet's length, and the gateway of its range if there is one."""

    address: Prefix
    gateway: Address | None = None


class Attachment(Value):
    """One interface of one container on one network.

    - `sandbox`: CNI_NETNS as given. `delegate`: the foreign IPAM plugin that we called for the addresses. `done`:
      whether ADD finished. `lease_folder`: where its addresses also have lease files, for other programs to read.
    - `bridge`: the host's link that leads to the container, "" if there is none. It is the bridge, or the host's link
      in a VLAN of the bridge (`master`), or the host end of a point-to-point pair, or what leads to an interface that
      somebody else made. We `made` it; or it is an `uplink`, somebody else's bridge with another machine as gateway; if
      neither, it is somebody else's bridge with this host as router.
    - `mappings`: the published ports, each with a host address of its own family. `standby`: ports that another
      interface of the container publishes and that this one takes over when that one goes. `opened`: published ports of
      routed families, which are let through and not translated.
    - `masq_all` masquerades every client of a published port; without `snat` none is masqueraded, not even the
      container itself. `condition4`, `condition6`: the matches, in nft's language, that clients' packets must meet.
    - `direct`: the prefixes that are never masqueraded, as text. `zone`: the zone of firewalld that has its addresses.
      `fast_path`: whether its flows go through the flowtable.
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
    opened: tuple[PortMapping, ...] = ()
    direct: tuple[str, ...] = ()
    mode4: str = NAT
    mode6: str = NAT
    is_gateway: bool = True
    force_address: bool = False
    ip_masq: bool = True
    isolation: bool = True
    port_isolation: bool = False
    hairpin: bool = True
    dad: bool = False
    link_up: bool = True
    delegate: str = ""
    lease_folder: str = ""
    kind: Kind = BRIDGED
    wire: Wire = Wire()
    snat: bool = True
    masq_all: bool = False
    zone: str = ""
    fast_path: bool = False
    condition4: str = ""
    condition6: str = ""
    made: bool = False
    anti_spoof: bool = False
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
    def master(self) -> str:
        """The bridge of which the host end is a port."""
        return self.wire.master or self.bridge

    @property
    def is_rebuilt(self) -> bool:
        """Whether the record was lost and read back from the table, which tells no namespace, prefix length or
        route."""
        return not self.sandbox

    @property
    def asked_for_mac(self) -> bool:
        """Whether somebody chose the MAC address; then another container may have the same one."""
        return self.mac != derived_mac("container", self.ident)

    @property
    def is_ptp(self) -> bool:
        """Whether it is point to point: the host end itself leads to the container, without a bridge."""
        # Names are compared last: making one takes 3 us, and repair asks several times for each of thousands.
        return self.kind.own_link and self.bridge.startswith("veth") and self.bridge == self.link

    @property
    def links(self) -> list[str]:
        """The host's links that serve only this attachment."""
        own = [self.link] if self.kind.own_link else []
        return [*own, shaper_link(self.ident)] if self.wire.rate_out else own

    @property
    def inner_routes(self) -> tuple[Route, ...]:
        """All routes of the container, each with its gateway. Point to point, the gateway is the only neighbour, and
        the container's subnet lies behind it."""
        routes = tuple(map(self._with_gateway, self.routes))
        if not self.is_ptp:
            return routes
        own: dict[Route, None] = {}
        for lease in self.leases:
            if lease.gateway is not None:
                own[Route(host_prefix(lease.gateway))] = None
        for lease in self.leases:
            if lease.gateway is not None and lease.address.length < BITS[lease.gateway.version]:
                own[Route(lease.address.network, lease.gateway)] = None
        return tuple(dict.fromkeys((*own, *routes)))

    def source_of(self, route: Route) -> Address | None:
        """The source address that a route behind a gateway needs, None if the kernel may choose.

        With several IPv6 addresses it would choose by the destination (RFC 6724), and the answer to a UDP client of a
        published port would come from another address than the port leads to. IPv4 has the address that the gateway's
        subnet gives. What is not masqueraded needs the address that fits its destination.
        """
        if len(self.leases) < 2 or route.dst.version == 4 or not route.gw or not self.is_masqueraded(6):
            return None
        if any(lease.address.network == route.dst for lease in self.leases):  # point to point, to siblings
            return None
        several = sum(lease.address.version == 6 for lease in self.leases) > 1
        published = any(port.host_ip and port.host_ip.version == 6 for port in (*self.mappings, *self.standby))
        tentative = self.dad  # the kernel refuses such an address (fib6_info_create)
        return self.address_of(6) if several and published and not tentative else None

    def _with_gateway(self, route: Route) -> Route:
        """The route with the gateway of its family, unless the user wants none."""
        if route.gw or dict(route.options).get("scope") == RT_SCOPE_LINK:
            return route
        gateways = (lease.gateway for lease in self.leases if lease.address.version == route.dst.version)
        return route.replace(gw=next(gateways, None))

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(lease.address.address for lease in self.leases)

    @property
    def leased(self) -> tuple[str, ...]:
        """The names of its leases; a foreign IPAM plugin keeps its own."""
        scope = "" if self.kind.own_link else self.network
        return tuple(lease_name(address, scope) for address in self.addresses) if self.kind.own_leases else ()

    @property
    def in_table(self) -> bool:
        """Whether it has elements. It has none while it waits for its addresses, or a resumed ADD would conflict with
        itself, and none if it is only an address leased for somebody else's plugin."""
        if self.delegate and not self.leases:
            return False
        return self.kind.own_link or bool(self.mappings) or self.isolation

    @property
    def is_fast(self) -> bool:
        """Whether its flows can go through the flowtable: the host must be its router."""
        return self.fast_path and self.in_table and bool(self.bridge) and not self.uplink

    def condition(self, version: int) -> str:
        return self.condition4 if version == 4 else self.condition6

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions that at least one of its ports has."""
        if not (self.condition4 or self.condition6):
            return ()
        versions = {mapping.host_ip.version for mapping in self.mappings if mapping.host_ip}
        return tuple(dict.fromkeys(text for text in map(self.condition, sorted(versions)) if text))

    def address_of(self, version: int) -> Address | None:
        """The container's first address of a family, to which its published ports lead; None without one."""
        return next((lease.address.address for lease in self.leases if lease.address.version == version), None)

    def can_publish(self, mapping: PortMapping) -> bool:
        """Whether it has an address to which the port could lead."""
        return mapping.host_ip is not None and self.address_of(mapping.host_ip.version) is not None

    def mode(self, version: int) -> str:
        return self.mode4 if version == 4 else self.mode6

    def is_routed(self, version: int) -> bool:
        """Whether the host forwards packets for it."""
        return self.is_gateway and not self.uplink and self.mode(version) != ISOLATED

    def is_masqueraded(self, version: int) -> bool:
        return self.ip_masq and not self.uplink and self.mode(version) in (NAT, UNPROTECTED, OPEN)

    def is_closed(self, version: int) -> bool:
        """Whether the outside reaches only its published ports."""
        return self.mode(version) in (NAT, ROUTED)

    @property
    def gateways(self) -> tuple[Prefix, ...]:
        """The addresses that the bridge has because of this attachment."""
        if not self.is_gateway or self.uplink or not self.kind.own_link:
            return ()
        found = {
            Prefix(lease.gateway, BITS[lease.gateway.version] if self.is_ptp else lease.address.length): None
            for lease in self.leases
            if lease.gateway
        }
        return tuple(found)


def lease_name(address: Address, scope: str = "") -> str:
    """The name of an address's lease. On our own networks, which share the host, an address belongs to one container.
    For interfaces of other plugins, for example macvlan in VLANs, two networks may use one address: there `scope` is
    the network."""
    return f"{address}@{scope}" if scope else str(address)


def attachment_key(ident: str) -> bytes:
    """16 bytes that stand for an attachment in the table's set `attachments`."""
    return digest("attachment", ident)
