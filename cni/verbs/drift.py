"""Compares the kernel with the record: one sentence for every difference. CHECK and `repair --check` report them.

Nothing is changed. `projection` and `pair` say what should be there. What later plugins of a chain may change without
harm (other routes, other addresses) is not compared.
"""

from __future__ import annotations

from cni import hostside
from cni.forwarding import host_sysctls, unrouted_now
from cni.host import Host
from cni.kernel import rtnetlink, sysctl
from cni.kernel.dumps import read_addresses, read_routes
from cni.kernel.links import Link, get_link
from cni.kernel.netns import Inside
from cni.kernel.pair import container_sysctls
from cni.localnet import guard_problems
from cni.model.attachment import Attachment
from cni.model.names import bridge_mac, derived_mac
from cni.model.ports import Occupied, PortMapping, by_claim
from cni.model.projection import (
    attachment_elements,
    direct_elements,
    shared_elements,
    unrouted_elements,
)
from cni.protocol.spec import Route
from cni.state.claims import Claims
from nft.addresses import format_mac
from nft.elements import Element, element_text
from nft.messages import FAMILY_NAMES, NFPROTO_BRIDGE
from nft.netlink import Netlink
from nft.schema import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from nft.addresses import Prefix


KINDS = {"bridge": ("bridge",), "link": ("vlan", "veth")}  # "link" is the host's link in a VLAN (`cni.vlan_gateway`)


def table_problems(host: Host) -> list[str]:
    """What is wrong with the table as a whole, whatever the attachments."""
    comment = host.table.comment()
    if comment is None:
        return [f"table inet {TABLE} is missing"]
    if comment != host.handles.comment and host.handles.table_serves:
        return [f"the rules of table inet {TABLE} are another version's: the next container's ADD brings this one's"]
    if comment != host.handles.comment:
        return [f'table inet {TABLE} says "{comment}" where "{host.handles.comment}" was expected']
    if not host.handles.rules_are_ours():
        if (NFPROTO_BRIDGE, TABLE) not in host.table.tables():
            return [f"table bridge {TABLE} is missing"]
        return [f"the rules of table inet {TABLE} are not those that nftcni loaded"]
    for family, name in host.table.dormant():
        if name == TABLE:
            return [f"table {FAMILY_NAMES[family]} {TABLE} is dormant: none of its rules is asked"]
    from nft.strange_chains import strange_chains

    return strange_chains(host.table.netlink)


def closed_problems(host: Host, get: Callable[[Element], Element | None]) -> list[str]:
    """The missing elements that keep the host from being a router between its other links."""
    wanted = [
        element for version in (4, 6) for element in unrouted_elements(version, unrouted_now(host.handles, version))
    ]
    lacking = [element for element in wanted if get(element) is None]
    return [f"{element.set} lacks {element_text(element)}: the host is a router there" for element in lacking]


def element_problems(item: Attachment, others: list[Attachment], get: Callable[[Element], Element | None]) -> list[str]:
    """The missing or altered elements of one attachment and its bridge. `others` are the container's other attachments.
    `get` looks up the element with the same key, in the kernel, or in a listing if many attachments are compared."""
    found = []
    for wanted in attachment_elements(item) + direct_elements(item) + shared_elements(item, others):
        held = get(wanted)
        if held is None or not held.covers(wanted):
            found.append(f"{wanted.set} lacks {element_text(wanted)}")
        elif held.data != wanted.data or (wanted.comment and held.comment != wanted.comment):
            found.append(f"{wanted.set} has {element_text(held)} where {element_text(wanted)} was expected")
    return found


class Look:
    """What several attachments share, read once for all of them: bridges with their addresses, and sysctls. `links` are
    all links of the host, if they have been listed; otherwise the kernel is asked for one at a time."""

    def __init__(self, links: list[Link] | None = None) -> None:
        self.bridges: dict[str, tuple[Link | None, list[Prefix]]] = {}
        self._links = None if links is None else {link.name: link for link in links}
        self._sysctls: dict[str, str] = {}
        self._macs: dict[str, bytes] = {}

    def link(self, rtnl: Netlink, name: str) -> Link | None:
        return get_link(rtnl, name) if self._links is None else self._links.get(name)

    def mac(self, bridge: str) -> bytes:
        """The MAC address that a bridge of ours should have."""
        if bridge not in self._macs:
            self._macs[bridge] = bridge_mac(bridge)
        return self._macs[bridge]

    def sysctl(self, key: str) -> str:
        if key not in self._sysctls:
            self._sysctls[key] = sysctl.read(key)
        return self._sysctls[key]


def host_problems(host: Host, item: Attachment, look: Look | None = None) -> list[str]:
    """The differences in the bridge, the host end, the leases and the sysctls of one attachment. `look` is shared by
    the attachments of one listing, as long as nothing is changed."""
    look = look or Look()
    port = look.link(host.rtnl, item.link) if item.kind.own_link else None
    found = _port_problems(host, item, port, look) if item.kind.own_link else []
    found += guard_problems(host.handles, item, port, look.sysctl)
    return found + _zone_problems(item) + _claim_problems(host, item, look)


def _zone_problems(item: Attachment) -> list[str]:
    if not item.zone:
        return []
    from cni.firewalld import problems

    return problems(item)


def _claim_problems(host: Host, item: Attachment, look: Look) -> list[str]:
    found = [f"net/{key} is not {value}" for key, value in host_sysctls(item) if look.sysctl(key) not in ("", value)]
    for name in item.leased:
        holder = host.store.claims.lease_holder(name)
        if holder != item.ident:
            found.append(f"the address {name} is leased to {holder or 'nobody'}")
    waiting = waiting_in_vain(host.store.claims, item)
    found += [f"the port {mapping} waits, and nobody publishes it" for mapping in waiting]
    return found


def read_bridge(host: Host, name: str, kinds: tuple[str, ...]) -> tuple[Link | None, list[Prefix]]:
    """The bridge, or the host's link in one of its VLANs, and its addresses; None for a link that is missing or of
    another kind."""
    bridge = get_link(host.rtnl, name)
    if bridge is None or bridge.kind not in kinds:
        return None, []
    return bridge, read_addresses(host.rtnl, bridge.index)


def _port_problems(host: Host, item: Attachment, port: Link | None, look: Look) -> list[str]:
    found = hostside.problems(host, item, port)
    if item.is_ptp:
        return found
    for name, what in {item.bridge: "link", item.master: "bridge"}.items():
        if name not in look.bridges:
            look.bridges[name] = read_bridge(host, name, KINDS[what])
        link, have = look.bridges[name]
        if link is None or not link.up:
            found.append(f"the {what} {name} is {'missing' if link is None else 'down'}")
        if link is not None and name == item.bridge:
            mac = look.mac(item.master) if item.made else link.mac
            if link.mac != mac:
                found.append(
                    f"the {what} {name} has the MAC address {format_mac(link.mac)} instead of {format_mac(mac)}"
                )
            known = set(have)
            lacking = [prefix for prefix in item.gateways if prefix not in known]
            found += [f"the {what} {name} lacks the gateway address {prefix}" for prefix in lacking]
    bridge = look.bridges[item.master][0]
    if port is None:
        found.append(f"the link {item.link} is missing")
    else:
        if not port.up:
            found.append(f"the link {item.link} is down")
        mac = derived_mac("host", item.ident) if item.made else port.mac
        if port.mac != mac:
            found.append(
                f"the link {item.link} has the MAC address {format_mac(port.mac)} instead of {format_mac(mac)}"
            )
        if bridge is None or port.master != bridge.index:
            found.append(f"the link {item.link} is not a port of the bridge {item.master}")
        if port.hairpin != item.hairpin:
            found.append(f"hairpin of the port {item.link} is {'on' if port.hairpin else 'off'}")
        if port.isolated != item.port_isolation:
            found.append(f"isolation of the port {item.link} is {'on' if port.isolated else 'off'}")
    return found


def container_problems(item: Attachment, netns: int, host_index: int) -> list[str]:
    """The differences inside the namespace: the interface's identity, state, addresses and routes."""
    with Inside(netns):
        rtnl = Netlink()
        wrong = [
            f"net/{key} in the container is not {value}"
            for key, value in container_sysctls(item)
            if key.endswith("disable_ipv6") and value == "0" and sysctl.read(key) not in ("", value)
        ]
    link = get_link(rtnl, item.ifname)
    if link is None:
        return [f"the interface {item.ifname} is missing in {item.sandbox}"]
    found = wrong + _link_problems(item, link, host_index)
    addresses = set(read_addresses(rtnl, link.index))
    for lease in item.leases:
        if lease.address not in addresses:
            found.append(f"{item.ifname} lacks the address {lease.address}")
    routes = read_routes(rtnl, link.index)
    found += [f"the route {route} is missing" for route in item.inner_routes if not _has_route(routes, route)]
    rtnl.close()
    return found


def _link_problems(item: Attachment, link: Link, host_index: int) -> list[str]:
    found = []
    if link.mac != item.mac:
        found.append(f"{item.ifname} has the MAC address {format_mac(link.mac)} instead of {format_mac(item.mac)}")
    if host_index and link.peer != host_index:
        found.append(f"{item.ifname} is not the other end of {item.link}")
    if item.link_up and not link.up:
        found.append(f"{item.ifname} is down")
    if item.mtu and link.mtu != item.mtu:
        found.append(f"{item.ifname} has the MTU {link.mtu} instead of {item.mtu}")
    return found


def _has_route(routes: list[Route], wanted: Route) -> bool:
    table = dict(wanted.options).get("table")
    key = (wanted.dst, wanted.gw, table if table and table != rtnetlink.RT_TABLE_MAIN else None)
    return any((route.dst, route.gw, dict(route.options).get("table")) == key for route in routes)


def waiting_in_vain(claims: Claims, item: Attachment) -> list[PortMapping]:
    """The ports for which it waits although nobody publishes them."""
    found = []
    for port, own in by_claim(item.standby).items():
        holders = Occupied(claims.port_holders(port))
        found += [one for one in own if one.host_ip and item.can_publish(one) and not holders.find(one.host_ip)]
    return found
