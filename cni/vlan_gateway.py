"""The host as the gateway of a VLAN of a bridge: the bridge's own membership in it, and the host's link there.

The link is `BRIDGE.VLAN`, a VLAN device on the bridge. The reference bridge plugin makes a veth pair of that name with
one end in the bridge, which costs a hop; with br_netfilter each packet would pass the table twice. A link of either
kind that somebody else made is used as it is. What we must undo is noted for the link as for a bridge (`cni.bridge`).
"""

from __future__ import annotations

import errno

from cni.host import Host
from cni.kernel import rtnetlink, vlans
from cni.kernel.links import Link, get_link
from cni.kernel.pair import harden
from cni.model.attachment import Attachment
from cni.protocol.errors import INVALID_CONFIG, IO_FAILURE, CniError, kernel_refused
from nft.netlink import is_missing

MEMBER = "member"  # the note that the bridge is in the VLAN because of us


def ensure_link(host: Host, item: Attachment, bridge: Link) -> Link:
    """Readies the host's link, and makes the bridge a member of its VLAN. Returns the link. May be repeated. Raises
    CniError 7 for a link of another kind."""
    link = get_link(host.rtnl, item.bridge)
    if link is None:
        host.store.bridges.note(item.bridge, "created")
        _create(host, item, bridge)
        link = get_link(host.rtnl, item.bridge)
    if link is None:
        raise CniError(IO_FAILURE, f"the link {item.bridge} disappeared while it was set up", "try again")
    if link.kind != "veth" and (link.kind, link.peer) != ("vlan", bridge.index):
        raise CniError(
            INVALID_CONFIG,
            f"vlan: {item.bridge} exists and is {link.kind or 'a plain device'}, not a link in a VLAN of {bridge.name}",
            "choose another name for the key bridge, or remove that link",
        )
    if link.kind == "vlan" and item.wire.vlan not in vlans.held_vlans(host.rtnl, bridge.index):
        host.store.bridges.note(item.bridge, MEMBER)
        _change_membership(host, item, bridge, rtnetlink.RTM_SETLINK)
    return link


def _create(host: Host, item: Attachment, bridge: Link) -> None:
    payload = vlans.new_vlan(item.bridge, bridge.index, item.wire.vlan)
    try:
        host.rtnl.ask(rtnetlink.RTM_NEWLINK, payload, rtnetlink.CREATE)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise kernel_refused(f"creating the link {item.bridge}", error) from None
    harden(host.rtnl, item.bridge, bridge.mac)


def _change_membership(host: Host, item: Attachment, bridge: Link, kind: int) -> None:
    spans = [(0, item.wire.vlan, item.wire.vlan)]
    try:
        host.rtnl.ask(kind, vlans.vlans(bridge.index, spans, own=True))
    except OSError as error:
        if not is_missing(error):
            raise kernel_refused(f"the VLAN {item.wire.vlan} of the bridge {bridge.name} itself", error) from None


def leave_vlan(host: Host, item: Attachment) -> None:
    bridge = get_link(host.rtnl, item.master) if host.store.bridges.knows(item.bridge, MEMBER) else None
    if bridge is not None:
        _change_membership(host, item, bridge, rtnetlink.RTM_DELLINK)


def problems(host: Host, item: Attachment) -> list[str]:
    """The differences from the record, as sentences."""
    bridge, link = get_link(host.rtnl, item.master), get_link(host.rtnl, item.bridge)
    if bridge is None or link is None or link.kind != "vlan":
        return []  # the comparison of the links reports it
    number = item.wire.vlan
    is_member = number in vlans.held_vlans(host.rtnl, bridge.index)
    return [] if is_member else [f"the bridge {bridge.name} itself is not in the VLAN {number}"]
