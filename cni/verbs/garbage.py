"""GC: everything of this network that is not among the valid attachments is removed, many at a time.

Never another network's: the records and the elements' comments begin with the network's name.
"""

from __future__ import annotations

import os

from cni import hostside
from cni.bridge import leave_bridge
from cni.forwarding import release_localnet, stop_forwarding
from cni.host import Host
from cni.kernel.deletion import remove_group, remove_links
from cni.kernel.links import set_down
from cni.model.attachment import Attachment
from cni.model.names import identity
from cni.model.projection import attachment_elements, cross_elements
from cni.protocol.errors import INVALID_CONFIG, CniError
from cni.protocol.fields import Fields
from cni.protocol.request import Request
from cni.recovery import rebuild_network
from cni.state.leases import lease_folder
from cni.verbs.delegate import pass_on

KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")  # SPEC.md 1.1.0 renamed it; libcni sends both


def collect_garbage(request: Request) -> None:
    """Raises CniError 7 without a list of valid attachments: absent is not empty (cnitool sends none). Under the names
    of the reference plugins, which collect nothing, nothing is done then."""
    if request.role and not _list_key(request):
        return
    valid = _valid_identities(request)
    with Host(request.data_dir).transaction(f"GC of {request.network}") as host:
        rebuild_network(host.handles, request.network)
        stale = [item for item in host.records(request.network) if item.ident not in valid]
        detach_many(host, request.network, stale)
    if os.path.isdir(lease_folder(request)):
        from cni.predecessor import collect_leases

        collect_leases(request, valid)
    pass_on(request, "GC")


def _list_key(request: Request) -> str:
    given = {key.lower() for key in request.document}
    return next((key for key in KEYS if key in given), "")


def _valid_identities(request: Request) -> set[str]:
    key = _list_key(request)
    if not key:
        raise CniError(
            INVALID_CONFIG,
            f"{KEYS[0]}: GC needs the list of valid attachments",
            "an empty list removes every attachment of the network",
        )
    found = set()
    for entry in Fields(request.document).sections(key):  # null is how Go writes a list that was never filled
        container, ifname = entry.text("containerID"), entry.text("ifname")
        if not container or not ifname:
            raise CniError(INVALID_CONFIG, f"{entry.path}: needs containerID and ifname")
        found.add(identity(request.network, container, ifname))
    return found


def detach_many(host: Host, network: str, items: list[Attachment]) -> None:
    """What `detach` does, with one transaction, one group of links and one pass over the connections for all."""
    for item in items:
        if item.kind.own_link:
            set_down(host.rtnl, item.link)
    marked: list[Attachment] = []
    others: list[Attachment] = []
    for item in items:
        is_marked = item.in_table and host.table.get(attachment_elements(item)[0]) is not None
        (marked if is_marked else others).append(item)
    if marked:
        host.table.delete([element for item in marked for element in attachment_elements(item)])
        crossing = [element for item in marked for element in cross_elements(item, host.store.of_container(item))]
        if crossing:
            host.table.delete(list(dict.fromkeys(crossing)))
    for item in others:
        host.delete_elements(item, last=False)
    addresses = tuple(address for item in items for address in item.addresses)
    links = [link for item in items for link in item.links]
    remove_group(host.rtnl, links, meanwhile=lambda: host.forget_flows_of(addresses))
    for item in items:
        hostside.release(host, item)
        host.store.claims.unclaim(item.standby, item.ident)  # so that none of these inherits a port of another one
    for item in items:
        if host.is_last(item):
            host.delete_elements(item, last=True)
            remove_links(host.rtnl, leave_bridge(host, item))
            host.store.bridges.drop(item.bridge)
        release_localnet(host.handles, item)
        host.remove_record(item)
    for item in {item.bridge: item for item in items if item.bridge}.values():
        if not host.is_last(item):
            host.delete_elements(item, last=False)
    for item in {item.bridge: item for item in items if item.is_fast}.values():
        from cni.fastpath import release

        release(host.handles, item)
    host.store.drop_empty(network)
    if not host.store.has_records():
        stop_forwarding(host.handles)
