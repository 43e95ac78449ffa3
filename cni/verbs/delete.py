"""DEL, and the teardown that everything else uses: the link goes down, then table elements, links, flows, the record.

While the elements go nothing of the container may pass, or it would pass unjudged.

The order has a price tag: closing the table's socket after a deletion waits 5-15 ms for the kernel unless that time has
passed meanwhile, and the links' removal is what passes it. Works from the record alone: no namespace, no prevResult, no
valid configuration is needed.
"""

from __future__ import annotations

from cni.bridge import leave_bridge
from cni.forwarding import release_localnet, stop_forwarding
from cni.host import Host
from cni.kernel.deletion import remove_links
from cni.kernel.links import set_down
from cni.model.attachment import Attachment
from cni.model.names import host_link, identity, shaper_link
from cni.protocol.request import Request
from cni.verbs.delegate import pass_on


def delete(request: Request) -> None:
    """Succeeds when there is nothing. Raises CniError when something remains; calling it again goes on from there."""
    ident = identity(request.network, request.container, request.ifname)
    with Host(request.data_dir).transaction(f"DEL of {ident}") as host:
        item = host.record(ident) or host.lost_record(ident)
        if item is not None:
            detach(host, item)
        else:
            remove_links(host.rtnl, [host_link(ident), shaper_link(ident)])
    pass_on(request, "DEL", item.delegate if item else "")


def detach(host: Host, item: Attachment) -> None:
    last = host.is_last(item)
    if item.kind.own_link:
        set_down(host.rtnl, item.link)
    host.delete_elements(item, last)
    links = dict.fromkeys(item.links)
    if last:
        links.update(dict.fromkeys(leave_bridge(host, item)))
    remove_links(host.rtnl, [*links])
    host.forget_flows_of(item.addresses)
    release_localnet(host.handles, item)
    if item.zone:
        from cni.firewalld import leave

        leave(item)
    if last:
        host.store.bridges.drop(item.bridge)
    host.remove_record(item)
    if not host.store.has_records():
        stop_forwarding(host.handles)
