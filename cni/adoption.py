"""Somebody else's bridge: who is its router, which addresses are taken there, which MAC address it keeps, and which
networks may share it.

A bridge that leads to a LAN has a router already. If that is another machine, we are guests: the router's address is
never ours, containers' default routes lead to it, and a configuration that wants the host as gateway is refused. The
decisions are pure functions of what the kernel says. The record (`uplink`) tells the table about such a bridge;
`bridge` readies the link.
"""

from __future__ import annotations

from cni.host import Host
from cni.kernel import rtnetlink
from cni.kernel.links import Link, get_link, port_names
from cni.kernel.routes import is_local
from cni.model.attachment import Attachment, Lease
from cni.model.names import bridge_mac, vlan_link
from cni.protocol.errors import INVALID_CONFIG, CniError
from nft.addresses import Address, Prefix
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.model.config import Network
    from cni.model.ranges import Range
    from cni.model.wire import Wire

NO_MAC = bytes(6)


class Adopted:
    """Somebody else's bridge, or the host's link in a VLAN of such a bridge (`master`). The kernel is asked when an
    answer is needed."""

    def __init__(self, host: Host, link: Link, master: str = "") -> None:
        self._host = host
        self.link = link
        self._master = master or link.name

    def has_others(self) -> bool:
        """Whether a port belongs to none of our containers, so that unknown machines may be there."""
        return not set(self._host.store.bridges.ports(self._master)).issuperset(
            port_names(self._host.rtnl, self._master)
        )

    def answers(self, address: Address) -> str:
        """Who has the address, in words, "" for nobody. Waits a moment for an answer if unknown machines may be
        there."""
        if is_local(self._host.rtnl, address):
            return "this host"
        if not self.has_others():
            return ""
        from cni.kernel.probe import who_has

        mac = who_has(self.link.name, self.link.mac if any(self.link.mac) else bridge_mac(self.link.name), address)
        return f"a machine on the bridge {self.link.name} (it answers from {mac})" if mac else ""

    def surroundings(self) -> Surroundings:
        """What the kernel says about the host's place on the bridge."""
        from cni.kernel.dumps import read_addresses, routes

        rtnl, index = self._host.rtnl, self.link.index
        default = [route for route in routes(rtnl, link=index) if route.dst.length == 0 and not route.dst.first]
        routers = [gateway for route in default for link, gateway in route.hops if link == index and gateway]
        return Surroundings(tuple(read_addresses(rtnl, index)), tuple(routers))


class Surroundings(Value):
    """The host's addresses on the bridge, and the gateways of the host's default routes that leave by it."""

    own: tuple[Prefix, ...]
    routers: tuple[Address, ...]


def adopted(host: Host, name: str) -> Adopted | None:
    """None for a bridge that we made or have yet to make, as in most networks."""
    if host.store.bridges.knows(name, "created"):
        return None
    link = get_link(host.rtnl, name)
    return Adopted(host, link) if link is not None and link.kind == "bridge" else None


# Who is the router. Pure, except for `answers`.


def router_of(
    subnet: Prefix, gateway: Address, given: bool, around: Surroundings, answers: Callable[[Address], str]
) -> Address | None:
    """The other machine that is the subnet's router on the bridge; None if this host is, or nobody yet. If the
    configuration names no gateway, the host's own default route tells better than the subnet's first address."""
    if gateway in [prefix.address for prefix in around.own]:
        return None
    if gateway in around.routers:
        return gateway
    on_link = any(prefix.network == subnet for prefix in around.own)
    for router in around.routers if not given else ():
        if router in subnet or (on_link and router.version == subnet.version and router.is_link_local):
            return router
    holder = answers(gateway)
    return gateway if holder and holder != "this host" else None


def as_guest(network: Network, routers: dict[Range, Address]) -> Network:
    """The network with the bridge's routers as gateways. Raises CniError 7 if it wants the host as gateway there."""
    if not routers:
        return network
    refuse_gateway(network, next(iter(routers.values())))
    sets = tuple(
        tuple(item.replace(gateway=routers.get(item, item.gateway)) for item in ranges)
        for ranges in network.ipam.range_sets
    )
    return _without_gateway(network).replace(ipam=network.ipam.replace(range_sets=sets))


def _without_gateway(network: Network) -> Network:
    """The network without the host as its gateway; if anybody masquerades, its router does."""
    return network.replace(is_gateway=False, ip_masq=network.ip_masq and "ipMasq" in network.given)


def refuse_gateway(network: Network, router: Address) -> None:
    """Raises CniError 7 if the configuration makes the host a gateway beside another router."""
    for key in ("isGateway", "isDefaultGateway"):
        if key in network.given and network.is_gateway:
            raise CniError(
                INVALID_CONFIG,
                f"{key}: {router} is the router on the bridge {network.bridge} and is another machine",
                f"remove {key}: containers then use that router; or give this network a bridge of its own",
            )


# Decisions that look at the host


def in_vlan(host: Host, network: Network) -> Network:
    """The network in a VLAN of somebody else's bridge: its router is elsewhere, unless the configuration makes this
    host the router. Nobody can be asked, because the host may have no link there."""
    if any(key in network.given for key in ("isGateway", "isDefaultGateway")) or not adopted(host, network.bridge):
        return network
    return _without_gateway(network)


def placed(host: Host, network: Network) -> tuple[Network, Adopted | None]:
    """The network as its bridge allows it, and the bridge, or the host's link in its VLAN, if that is somebody
    else's."""
    bridge = adopted(host, network.bridge)
    if bridge is not None and network.wire.vlan:
        link = get_link(host.rtnl, vlan_link(network.bridge, network.wire.vlan))
        bridge = Adopted(host, link, network.bridge) if link is not None else None
    if bridge is None or not network.is_gateway:
        return network, bridge
    wanted = [item for ranges in network.ipam.range_sets for item in ranges if not is_local(host.rtnl, item.gateway)]
    around = bridge.surroundings() if wanted else Surroundings((), ())
    routers = {}
    for item in wanted:
        router = router_of(item.subnet, item.gateway, item.given, around, bridge.answers)
        if router is not None:
            routers[item] = router
    return as_guest(network, routers), bridge


def placed_item(host: Host, network: Network, item: Attachment) -> Attachment:
    """The attachment with addresses of a foreign IPAM plugin, and gateways that its bridge allows."""
    bridge = adopted(host, item.bridge) if item.is_gateway else None
    if bridge is None:
        return item
    around = bridge.surroundings()

    def router(lease: Lease) -> Address | None:
        if lease.gateway is None:
            return None
        return router_of(lease.address.network, lease.gateway, True, around, bridge.answers)

    found = next(filter(None, map(router, item.leases)), None)
    if found is None:
        return item
    refuse_gateway(network, found)
    return item.replace(is_gateway=False, ip_masq=item.ip_masq and "ipMasq" in network.given)


# The bridge itself


def keep_mac(host: Host, bridge: Link) -> Link:
    """Fixes the MAC address of an adopted bridge before it gets a port of ours: otherwise the kernel gives it the
    lowest address of its ports, and changes that when the port goes. A bridge that lost its last port gets an address.

    Linux 5.10 enters a bridge's address into its forwarding table when the address changes, or with the first port
    unless it was set before (br_stp_change_bridge_id, br_stp_recalculate_bridge_id). If we set it to its present value
    on a bridge without ports, it would never be entered, and the host would receive nothing. So we change it for a
    moment, which nobody sees without a port.
    """
    if bridge.mac == NO_MAC:
        steps = [bridge_mac(bridge.name)]
    elif port_names(host.rtnl, bridge.name):
        steps = [bridge.mac]
    else:
        steps = [bridge.mac[:5] + bytes([bridge.mac[5] ^ 1]), bridge.mac]
    # Both changes go in one send: a kill must not leave the first alone.
    host.rtnl.ask_in_turn(rtnetlink.RTM_NEWLINK, [rtnetlink.tune(bridge.index, {}, mac, 0, None) for mac in steps])
    return bridge.replace(mac=steps[-1])


def refuse_shared(host: Host, item: Attachment) -> None:
    """Raises CniError 7 for a network's first container on a bridge that another network uses, if either promises
    `isolation`: two networks on one bridge share a wire. Networks on an `uplink` promise nothing of the kind."""
    if item.uplink or host.store.is_last(item):
        return
    others = (other for other in host.store.sharing(item) if other and other.network != item.network)
    other = next((other for other in others if is_one_wire(item.wire, other.wire)), None)
    if other is not None and (item.isolation or other.isolation):
        raise CniError(
            INVALID_CONFIG,
            f'bridge: {item.bridge} is the bridge of the network "{other.network}", and networks on one bridge cannot '
            "be isolated from each other",
            'give this network a bridge of its own by the key "bridge", or set "isolation": false in both',
        )


def is_one_wire(one: Wire, other: Wire) -> bool:
    """Whether two ports of a bridge share a wire: the bridge keeps VLANs apart."""
    if not (one.is_tagged or other.is_tagged):
        return True
    from cni.kernel.vlans import numbers

    return not numbers(one).keys().isdisjoint(numbers(other))
