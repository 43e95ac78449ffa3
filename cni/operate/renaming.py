"""Renames links, and gives our bridges and ports the names and MAC addresses by which the table knows them.

`bridge` makes a missing bridge; beside one that was only renamed, a second one would take its subnet away.
"""

from __future__ import annotations

from cni.host import Host
from cni.kernel import rtnetlink, sysctl
from cni.kernel.links import Link, all_links, get_link
from cni.model.attachment import Attachment
from cni.model.names import bridge_mac, derived_mac
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
    elif link is not None:
        _set_mac(host, link, mac)


def restore_port(host: Host, item: Attachment) -> None:
    """Gives the host end its MAC address back, by which the table knows frames for the host. Raises CniError 5."""
    port = get_link(host.rtnl, item.link)
    if item.made and port is not None:
        _set_mac(host, port, derived_mac("host", item.ident))


def _set_mac(host: Host, link: Link, mac: bytes) -> None:
    """Sets it and tells the neighbours, as the kernel does if asked to (NETDEV_CHANGEADDR in devinet.c and ndisc.c)."""
    if link.mac == mac:
        return
    keys = (f"ipv4/conf/{link.name}/arp_notify", f"ipv6/conf/{link.name}/ndisc_notify")
    before = {key: sysctl.read(key) for key in keys}
    try:
        for key in keys:
            if before[key] == "0":
                sysctl.try_to_write(key, "1")
        host.rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.tune(link.index, {}, mac, 0, None))
    except OSError as error:
        raise kernel_refused(f"setting the MAC address of {link.name}", error) from None
    finally:
        for key in keys:
            if before[key] == "0":
                sysctl.try_to_write(key, "0")
