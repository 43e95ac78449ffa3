"""After the last attachment: gives back the bridge, and the host's forwarding, as they were before the first one.

`bridge` and `forwarding` note what they change before they change it (`cni.state.bridges`, `cni.state.notes`).
"""

from __future__ import annotations

from cni.bridge import set_promiscuous, take_address
from cni.forwarding import ACCEPT_RA, HEARING, OWN_FORWARDING, REDIRECTS, REFUSING, unrouted_now
from cni.handles import Handles
from cni.host import Host
from cni.kernel import rtnetlink, sysctl
from cni.kernel.links import Link, all_links, get_link, port_names
from cni.model.attachment import Attachment
from cni.model.names import bridge_mac
from cni.model.projection import unrouted_elements
from nft.addresses import parse_prefix


def leave_bridge(host: Host, item: Attachment) -> list[str]:
    """Undoes what we did to the last attachment's bridge. Returns the links to remove with the attachment."""
    links = []
    if item.wire.master:
        from cni.vlan_gateway import leave_vlan

        links = _give_back(host, item, item.bridge)
        leave_vlan(host, item)
    if item.bridge and host.store.is_last_of_master(item):
        links += _give_back(host, item, item.master)
    return links


def _give_back(host: Host, item: Attachment, name: str) -> list[str]:
    notes = host.store.bridges.notes(name)
    if "created" in notes and not set(port_names(host.rtnl, name)) - {item.link}:
        return [name]
    bridge = get_link(host.rtnl, name) if notes else None
    if bridge is None:
        return []
    for note in notes:
        kind, _, rest = note.partition("-")
        if kind == "address":
            take_address(host, bridge, parse_prefix(rest))
        elif kind == "sysctl":
            key, _, before = rest.rpartition("=")
            sysctl.write(key, before)
    if "promisc" in notes:
        set_promiscuous(host, bridge, False)
    if "up" in notes:
        _set_down(host, bridge)
    return []


def _set_down(host: Host, bridge: Link) -> None:
    """Sets the bridge down but keeps its IPv6 addresses, which the kernel would remove (addrconf_ifdown)."""
    key = f"ipv6/conf/{bridge.name}/keep_addr_on_down"
    before = sysctl.read(key)
    if before:
        host.store.bridges.note(bridge.name, f"sysctl-{key}={before}")  # after a kill below, the next DEL restores it
        sysctl.write(key, "1")
    host.rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.tune(bridge.index, {rtnetlink.IFF_UP: False}, b"", 0, None))
    if before:
        sysctl.write(key, before)


def stop_forwarding(handles: Handles) -> None:
    """After the last attachment, restores the host's forwarding. It stays on if links have come since, or somebody else
    forwards ports, and may count on it; the noted links stay closed to each other then."""
    for version, key in sysctl.FORWARDING.items():
        before = handles.store.notes.unrouted(version)
        if not before:
            continue
        noted = unrouted_now(handles, version)
        known = {line.split()[0] for line in noted}
        left = [link for link in all_links(handles.rtnl) if not link.master and link.name not in known]
        # A bridge of ours that still exists has other ports.
        if all(link.mac == bridge_mac(link.name) for link in left) and not _do_others_forward(handles):
            sysctl.write(key, "0")
            for line in noted:
                _put_back(version, line)
            handles.table.delete(unrouted_elements(version, before) + unrouted_elements(version, noted))
            handles.store.notes.put_unrouted(version, [])


def _do_others_forward(handles: Handles) -> bool:
    from nft.foreign import forwards_ports

    return forwards_ports(handles.table.netlink)


def _put_back(version: int, line: str) -> None:
    """Restores what the kernel changed together with the host's forwarding (inet_forward_change), a link's own setting
    and that redirects are refused; and that a link takes router advertisements only while the host is no router."""
    link, _kind, *words = line.split()
    for word in words:
        if word.startswith("#"):
            continue
        if word == REFUSING:
            sysctl.write(REDIRECTS, "0")
        elif word == HEARING:
            if sysctl.read(ACCEPT_RA.format(link)) == "2":
                sysctl.write(ACCEPT_RA.format(link), "1")
        else:
            sysctl.write(OWN_FORWARDING[version][word].format(link), "1")
