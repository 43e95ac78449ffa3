"""GC: removes everything of this network that is not among the valid attachments, many at a time.

Never another network's: the records and the elements' comments begin with the network's name.
"""

from __future__ import annotations

from cni.host import Host
from cni.kernel.deletion import Remover, remove_group, remove_links, remove_moved
from cni.localnet import release_localnet
from cni.model.attachment import Attachment
from cni.model.names import identity
from cni.model.projection import attachment_elements, cross_elements
from cni.protocol.errors import INVALID_CONFIG, CniError
from cni.protocol.fields import Fields
from cni.protocol.request import Request
from cni.recovery import rebuild_network
from cni.restoration import leave_bridge, stop_forwarding
from cni.state.leases import lease_folder
from cni.verbs.delegate import pass_on
from cni.withdrawal import delete_elements, unneeded_macs
from nft.system import is_folder

KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")  # SPEC.md 1.1.0 renamed it; libcni sends both


def collect_garbage(request: Request) -> None:
    """Raises CniError 7 without a list of valid attachments: absent is not empty (cnitool sends none). Under the names
    of the reference plugins, which collect nothing, it does nothing then."""
    if request.role and not _list_key(request):
        return
    valid = _valid_identities(request)
    host = Host(request.data_dir)
    remover = Remover()  # before the lock, which it would share
    with host.transaction(f"GC of {request.network}"):
        rebuild_network(host.handles, request.network)
        stale = [item for item in host.records(request.network) if item.ident not in valid]
        detach_many(host, request.network, stale, remover)
    if is_folder(lease_folder(request)):
        from cni.predecessor import remove_stale_leases

        remove_stale_leases(request, valid)
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


def detach_many(host: Host, network: str, items: list[Attachment], remover: Remover | None = None) -> None:
    """Does what `detach` does, with one transaction, one group of links and one pass over the connections for all. The
    links go first: one grace period closes them all, whereas setting down one link takes one of its own."""
    for item in items:
        remove_moved(item)
    remove_group(host.rtnl, [link for item in items for link in item.links], remover)
    _delete_elements(host, items)
    host.forget_flows_of(tuple(address for item in items for address in item.addresses))
    for item in items:
        if item.zone:
            from cni.firewalld import leave

            leave(item)
        host.store.claims.unclaim(item.standby, item.ident)  # so that none of these inherits a port of another one
    release_localnet(host.handles, items)
    if any(item.conditions for item in items):
        from cni.conditions import release as release_conditions

        release_conditions(host.handles)  # while records tell of them: after a kill this is repeated
    final = {item.bridge: item for item in items if item.bridge}  # on each bridge; only after these it can be empty
    for item in items:
        if item is final.get(item.bridge) and host.is_last(item):
            delete_elements(host.handles, item, last=True)
            remove_links(leave_bridge(host, item))
            host.store.drop_bridge(item)
            del final[item.bridge]
        host.remove_record(item)
    for item in final.values():
        delete_elements(host.handles, item, last=False)
    for item in {item.bridge: item for item in items if item.is_fast}.values():
        from cni.fastpath import release

        release(host.handles, item)
    host.store.drop_empty(network)
    if not host.store.has_records():
        stop_forwarding(host.handles)


def _delete_elements(host: Host, items: list[Attachment]) -> None:
    """Deletes the elements that belong to one attachment each, in two transactions. Shared ones are deleted later."""
    markers = {element.key for element in host.table.elements(("attachments",))} if items else set()
    marked: list[Attachment] = []
    others: list[Attachment] = []
    for item in items:
        (marked if item.in_table and item.key in markers else others).append(item)
    host.table.delete([element for item in marked for element in attachment_elements(item)])
    crossing = [element for item in marked for element in cross_elements(item, host.store.of_container(item))]
    host.table.delete(list(dict.fromkeys(crossing + unneeded_macs(host.handles, marked))))
    for item in others:
        delete_elements(host.handles, item, last=False)
