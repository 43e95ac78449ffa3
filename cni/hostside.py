"""The host's side of an attachment's link, of either kind: readies, makes, finishes and compares it.

It is a port of a bridge (`cni.bridge`, `cni.kernel.pair`) or point to point (`cni.kernel.ptp`). Either may have rates
and VLANs (`cni.kernel.shaping`, `cni.kernel.vlans`); most have none, so those files are loaded only when needed.
"""

from __future__ import annotations

from cni.bridge import ensure_bridge, set_promiscuous
from cni.forwarding import set_host_sysctls
from cni.host import Host
from cni.kernel.links import Link, get_link
from cni.kernel.pair import create_veth, finish_port
from cni.kernel.rtnetlink import IFF_PROMISC
from cni.localnet import guard_port
from cni.model.attachment import Attachment
from cni.model.names import shaper_link
from cni.model.wire import Wire
from cni.protocol.spec import Interface, Result
from nft.addresses import format_mac


def ready(host: Host, item: Attachment, new: bool = False) -> Link | None:
    """Readies and returns the bridge; None point to point. Raises CniError."""
    if not item.is_ptp:
        bridge = ensure_bridge(host, item, new)
        if item.wire.promisc and not bridge.flags & IFF_PROMISC:
            host.store.bridges.note(item.master, "promisc")
            set_promiscuous(host, bridge, True)
        return bridge
    if not host.store.bridges.knows(item.bridge, "created"):
        host.store.bridges.note(item.bridge, "created")
    return None


def make(host: Host, item: Attachment, bridge: Link | None, netns: int) -> None:
    """Makes the pair, and finishes its host end."""
    if bridge is not None:
        create_veth(host.rtnl, item, bridge, netns)
        _dress(host, item)
        return
    from cni.kernel.ptp import create_pair

    create_pair(host.rtnl, item, netns)
    finish(host, item, None)


def finish(host: Host, item: Attachment, bridge: Link | None) -> None:
    """Makes an existing host end what the record says. May be repeated."""
    if bridge is not None:
        finish_port(host.rtnl, item, bridge)
    else:
        from cni.kernel.ptp import configure_host_end, host_end

        configure_host_end(host.rtnl, item, host_end(host.rtnl, item))
        set_host_sysctls(host.handles, item)
    _dress(host, item)


def _dress(host: Host, item: Attachment) -> None:
    if item.is_fast:
        from cni.fastpath import ensure

        ensure(host.handles, item)
    if item.wire != Wire():
        _wire(host, item)
    guard_port(host.handles, item)


def _wire(host: Host, item: Attachment) -> None:
    port = get_link(host.rtnl, item.link)
    if port is not None and item.wire.is_tagged:
        from cni.kernel.vlans import tag

        tag(host.rtnl, item, port)
    if port is not None and item.wire.is_shaped:
        from cni.kernel.shaping import shape

        shape(host.rtnl, item, port)


def with_devices(host: Host, item: Attachment, result: Result) -> Result:
    """The result with the device that limits what the container sends, as in the reference bandwidth plugin's."""
    device = get_link(host.rtnl, shaper_link(item.ident)) if item.wire.rate_out else None
    if device is None:
        return result
    return result.replace(interfaces=(*result.interfaces, Interface(device.name, format_mac(device.mac), device.mtu)))


def problems(host: Host, item: Attachment, port: Link | None) -> list[str]:
    """The differences from the record beyond those of every bridge port, as sentences."""
    found: list[str] = []
    if item.is_ptp:
        from cni.kernel.ptp import host_end_problems

        found += host_end_problems(host.rtnl, item)
    if item.wire.promisc:
        bridge = get_link(host.rtnl, item.master)
        if bridge is not None and not bridge.flags & IFF_PROMISC:
            found.append(f"the bridge {item.master} is not promiscuous")
    if item.is_fast:
        from cni.fastpath import problems as fast_path_problems

        found += fast_path_problems(host.handles, item)
    if item.conditions:
        from cni.conditions import problems as condition_problems

        found += condition_problems(host.handles, item)
    if port is not None and item.wire.is_tagged:
        from cni.kernel.vlans import vlan_problems

        found += vlan_problems(host.rtnl, item, port)
    if item.wire.master:
        from cni.vlan_gateway import problems as gateway_problems

        found += gateway_problems(host, item)
    if port is not None and item.wire.is_shaped:
        from cni.kernel.shaping import shaping_problems

        found += shaping_problems(host.rtnl, item, port)
    return found
