"""Renames links, and gives a bridge that we made the name and the MAC address back by which the table knows it.

`bridge` makes a missing bridge; beside one that was only renamed, a second one would take its subnet away.
"""

from __future__ import annotations

from cni.host import Host
from cni.kernel import rtnetlink
from cni.kernel.links import all_links, get_link
from cni.model.attachment import Attachment
from cni.model.names import bridge_mac
from cni.protocol.errors import kernel_refused


def rename(host: Host, before: str, name: str) -> None:
    """Renames a link. Kernels before 6.2 do not rename a link that is up, so it goes down for a moment, which no
    connection notices."""
    link = get_link(host.rtnl, before)
    if link is None or before == name:
        return
    try:
        host.rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.rename(link.index, name))
    except OSError:
        host.rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.tune(link.index, {rtnetlink.IFF_UP: False}, b"", 0, None))
        try:
            host.rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.rename(link.index, name))
        finally:
            host.rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.set_up(link.index))


def restore_bridge(host: Host, item: Attachment) -> None:
    """Does it for the bridge of an attachment, or the host's link in its VLAN. Raises CniError 5."""
    if not item.made or item.is_ptp:
        return
    mac = bridge_mac(item.master)
    link = get_link(host.rtnl, item.bridge)
    if link is None and not item.wire.master:
        renamed = [other.name for other in all_links(host.rtnl) if other.kind == "bridge" and other.mac == mac]
        if len(renamed) == 1:
            rename(host, renamed[0], item.bridge)
    elif link is not None and link.mac != mac:
        try:
            host.rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.tune(link.index, {}, mac, 0, None))
        except OSError as error:
            raise kernel_refused(f"setting the MAC address of {item.bridge}", error) from None
