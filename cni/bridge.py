"""The bridge of an attachment: makes or adopts it, readies it, and restores it when its last attachment goes.

Before each change that we must undo later, the state folder gets a note: `created`, or for an adopted bridge
`address-PREFIX`, `up`, `promisc` and `sysctl-KEY=VALUE BEFORE`. `pair` makes ports and containers.
"""

from __future__ import annotations

import errno

from cni.forwarding import announced_links, enable_ipv6, set_host_sysctls
from cni.host import Host
from cni.kernel import rtnetlink, sysctl
from cni.kernel.links import Link, get_link, link_name
from cni.kernel.pair import harden
from cni.kernel.routes import is_local, look_up
from cni.model.attachment import ISOLATED, Attachment
from cni.model.names import bridge_mac
from cni.protocol.errors import INVALID_CONFIG, IO_FAILURE, CniError, kernel_refused
from nft.addresses import Prefix
from nft.netlink import is_missing


def ensure_bridge(host: Host, item: Attachment, new: bool = False) -> Link:
    """Readies the bridge: it exists and is up, with sysctls. The gateway's addresses are on it, or for a VLAN on the
    host's link in the VLAN. Returns the bridge. May be repeated. Raises CniError 7 for a link that is no bridge, and
    for a `new` attachment whose subnet another link has."""
    bridge = get_link(host.rtnl, item.master)
    if bridge is None:
        host.store.bridges.note(item.master, "created")
        _create(host, item.master, item.mtu)
        if not item.is_routed(4):  # the host would answer ARP there for its addresses elsewhere
            sysctl.try_to_write(f"ipv4/conf/{item.master}/arp_ignore", "1")
        bridge = get_link(host.rtnl, item.master)
    if bridge is None:
        raise CniError(IO_FAILURE, f"the bridge {item.master} disappeared while it was set up", "try again")
    _check_kind(bridge, item.master)
    adopted = not host.store.bridges.knows(item.master, "created")
    if adopted and (not any(bridge.mac) or host.store.is_last(item)):
        from cni.adoption import keep_mac

        bridge = keep_mac(host, bridge)
    _set_up(host, bridge, adopted)
    if item.wire.is_tagged:
        from cni.kernel.vlans import require_filtering

        require_filtering(host.rtnl, item.master, not adopted)
    link = bridge
    if item.wire.master:
        from cni.vlan_gateway import ensure_link

        link = ensure_link(host, item, bridge)
        adopted = not host.store.bridges.knows(item.bridge, "created")
        _set_up(host, link, adopted)
    if adopted:
        _refuse_advertisements(host, item, link)
    enable_ipv6(host.handles, item)
    added = _add_gateways(host, item, link, adopted)
    if new:
        _refuse_elsewhere(host, item, link)
    set_host_sysctls(host.handles, item)
    if added and item.force_address:
        _take_conflicting(host, item, link)
    return bridge


def _set_up(host: Host, link: Link, adopted: bool) -> None:
    if not link.up:
        if adopted:
            host.store.bridges.note(link.name, "up")
        host.rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.set_up(link.index))


def _create(host: Host, name: str, mtu: int) -> None:
    """Makes the bridge with a fixed MAC address: otherwise it would follow the lowest address of its ports."""
    mac = bridge_mac(name)
    try:
        host.rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.new_bridge(name, mac, mtu), rtnetlink.CREATE)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise kernel_refused(f"creating the bridge {name}", error) from None
    harden(host.rtnl, name, mac)


def _check_kind(link: Link, name: str) -> None:
    if link.name != name:
        raise CniError(
            INVALID_CONFIG,
            f'bridge: "{name}" is only another name of {link.name}',
            f"nftables and the sysctls know the link as {link.name} alone: use that",
        )
    if link.kind != "bridge":
        raise CniError(
            INVALID_CONFIG,
            f'bridge: "{name}" exists and is {link.kind or "a plain device"}, not a bridge',
            "choose another name for the key bridge, or remove that link",
        )


def _add_gateways(host: Host, item: Attachment, bridge: Link, adopted: bool) -> bool:
    """Adds the missing gateway addresses. Returns whether there were any."""
    added = False
    for prefix in item.gateways:
        try:
            if adopted:
                _note_address(host, item, bridge, prefix)
            flags = rtnetlink.IFA_F_NODAD if prefix.version == 6 else 0
            host.rtnl.ask(rtnetlink.RTM_NEWADDR, rtnetlink.address(bridge.index, prefix, flags), rtnetlink.CREATE)
            added = True
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise kernel_refused(f"adding {prefix} to the bridge {bridge.name}", error) from None
    return added


def _note_address(host: Host, item: Attachment, bridge: Link, prefix: Prefix) -> None:
    """Notes once whether the address is ours to remove or was there before."""
    if any(host.store.bridges.knows(item.bridge, f"{note}-{prefix}") for note in ("address", "had")):
        return
    from cni.kernel.dumps import read_addresses

    had = prefix in read_addresses(host.rtnl, bridge.index)
    host.store.bridges.note(item.bridge, f"{'had' if had else 'address'}-{prefix}")


def _refuse_elsewhere(host: Host, item: Attachment, bridge: Link) -> None:
    """Raises CniError 7 if another link has the container's subnet or a part of it: a second network, the host's own
    LAN. Of two links with the same subnet, the first one has it. A route with a shorter prefix, such as the default
    route, does not count: the bridge's own route is used only once a port gives the bridge a carrier (always for IPv6,
    with ignore_routes_with_linkdown for IPv4)."""
    for lease in item.leases if item.gateways else ():
        address = lease.address.address
        way = look_up(host.rtnl, address, rtnetlink.RTM_F_FIB_MATCH)
        if way is not None and way.link != bridge.index and way.length >= lease.address.length:
            raise CniError(
                INVALID_CONFIG,
                f"ipam.ranges: the host reaches {address} by {link_name(host.rtnl, way.link) or way.link}, "
                f"not by the bridge {bridge.name}",
                "that subnet is in use there already; give this network another one",
            )


def _take_conflicting(host: Host, item: Attachment, bridge: Link) -> None:
    """`forceAddress` of the reference plugin: removes any other IPv4 address, and IPv6 addresses whose subnets
    overlap."""
    from cni.kernel.dumps import read_addresses

    own = item.gateways
    for prefix in read_addresses(host.rtnl, bridge.index):
        for new in own:
            meets = prefix.address in new.network or new.address in prefix.network
            if prefix not in own and prefix.version == new.version and (new.version == 4 or meets):
                take_address(host, bridge, prefix)


def with_place(host: Host, item: Attachment) -> Attachment:
    """The attachment with its kind of bridge: made by us, or somebody else's with the host as router, or somebody
    else's with another machine as router. The kernel's addresses, routes and neighbours tell. Raises CniError 7."""
    bridge = None
    if not host.store.bridges.knows(item.master, "created"):
        bridge = get_link(host.rtnl, item.master)
    if bridge is None:
        return item.replace(made=True)
    if ISOLATED in (item.mode4, item.mode6):
        what = f"gatewayMode: the bridge {item.master} is not ours, and whoever made it may reach it: {ISOLATED} is not"
        raise CniError(
            INVALID_CONFIG, f"{what} possible there", "leave the bridge to nftcni to make, under another name"
        )
    link = get_link(host.rtnl, item.bridge) if item.wire.master else bridge
    return item.replace(uplink=link is not None and _leads_out(host, item, link))


def _leads_out(host: Host, item: Attachment, bridge: Link) -> bool:
    gateways = {lease.gateway for lease in item.leases if lease.gateway}
    if any(is_local(host.rtnl, gateway) for gateway in gateways):
        return False
    from cni.kernel.dumps import neighbours, read_addresses, routes

    # A tentative address has no route yet; the kernel looks for duplicates once the bridge has its first port.
    if not gateways.isdisjoint(prefix.address for prefix in read_addresses(host.rtnl, bridge.index)):
        return False
    if not item.is_gateway:
        return True
    ways = {hop for route in routes(host.rtnl, link=bridge.index) for hop in route.hops}
    return any((bridge.index, gateway) in ways for gateway in gateways) or not gateways.isdisjoint(
        neighbours(host.rtnl, bridge.index)
    )


def _refuse_advertisements(host: Host, item: Attachment, bridge: Link) -> None:
    """Makes the bridge ignore router advertisements before it has a port of ours, or a container could make itself the
    host's router (CVE-2020-10749). A bridge by which the host hears, or may hear, its router is left alone."""
    key = f"ipv6/conf/{bridge.name}/accept_ra"
    before = sysctl.read(key)
    if before not in ("", "0") and not item.uplink and bridge.index not in announced_links(host.handles):
        host.store.bridges.note_before(bridge.name, key, before)
        sysctl.refuse_advertisements(bridge.name)


def set_promiscuous(host: Host, bridge: Link, on: bool) -> None:
    flags = {rtnetlink.IFF_PROMISC: on}
    host.rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.tune(bridge.index, flags, b"", 0, None))


def take_address(host: Host, bridge: Link, prefix: Prefix) -> None:
    try:
        host.rtnl.ask(rtnetlink.RTM_DELADDR, rtnetlink.address(bridge.index, prefix))
    except OSError as error:
        if not is_missing(error):
            raise kernel_refused(f"removing {prefix} from the bridge {bridge.name}", error) from None
