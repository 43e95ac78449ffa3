"""DEL, and the teardown that everything else uses: set the link down, then remove elements, links, flows, the record.

While the elements go nothing of the container may pass, or it would pass unjudged.

Closing the table's socket after a deletion waits 5-15 ms for the kernel unless that time has passed: the child that
removes the links, or that has none to remove, keeps it open for so long. Works from the record alone: no namespace, no
prevResult, no valid configuration is needed.
"""

from __future__ import annotations

from cni.host import Host
from cni.kernel.deletion import Remover, keep_sockets_open, remove_links, remove_moved, set_leaving
from cni.localnet import release_localnet
from cni.model.attachment import Attachment
from cni.model.names import host_link, identity, shaper_link
from cni.model.projection import marker
from cni.protocol.request import Request, foreign_ipam
from cni.verbs.delegate import DHCP, pass_on, release_by_dhcp
from cni.withdrawal import delete_elements
from nft.system import is_there

CACHE = "/var/lib/cni/results"  # libcni's (CacheDir of its api.go)


def delete(request: Request) -> None:
    """Succeeds if there is nothing. Raises CniError if something remains; calling it again goes on from there.

    When other processes wait for the lock, the removal is left for later: by then their links are ready to go as well,
    and one wait of the kernel removes all of them (64 DELs at once took 39 times as long as one, 56 without that).
    """
    ident = identity(request.network, request.container, request.ifname)
    by_dhcp = foreign_ipam(request) == DHCP
    problem = release_by_dhcp(request) if by_dhcp else None
    host = Host(request.data_dir)
    remover = Remover() if is_there(host.store.record_path(ident)) else None  # before the lock, which it shares
    with host.transaction(f"DEL of {ident}", "cni.kernel.tracker"):
        item = host.record(ident) or host.lost_record(ident)
        crowded = item is not None and item.kind.own_link and host.store.lock.is_wanted()
        if item is not None and crowded:
            withdraw(host, item, last=False)
        else:
            _remove(host, request, ident, item, remover)
    if crowded:
        host.store.lock.let_others_go_first()
        with host.transaction(f"DEL of {ident}"):
            _remove(host, request, ident, host.record(ident), remover, withdrawn=True)
    delegate = item.delegate if item else ""
    if not by_dhcp or delegate not in ("", DHCP):
        pass_on(request, "DEL", delegate)
    if problem is not None:
        raise problem


def _remove(
    host: Host, request: Request, ident: str, item: Attachment | None, remover: Remover | None, withdrawn: bool = False
) -> None:
    if item is not None:
        detach(host, item, remover, withdrawn)
        if item.is_rebuilt:  # it does not tell where its addresses have files
            from cni.predecessor import clean_leases

            clean_leases(request)
        return
    remove_links([host_link(ident), shaper_link(ident)], remover=remover)
    _stop_forwarding(host)  # a DEL that was killed had not come to it
    if is_anothers(request):
        from cni.predecessor import clean_up

        clean_up(host, request)


def is_anothers(request: Request) -> bool:
    """Whether the runtime or libcni's cache knows of an attachment that has no link of ours."""
    result = request.document.get("prevResult")
    if not isinstance(result, dict):
        return is_there(f"{CACHE}/{request.network}-{request.container}-{request.ifname}")
    entries = result.get("interfaces")
    ours = host_link(identity(request.network, request.container, request.ifname))
    listed = entries if isinstance(entries, list) else []
    return not any(isinstance(entry, dict) and entry.get("name") == ours for entry in listed)


def withdraw(host: Host, item: Attachment, last: bool) -> None:
    """Stops the attachment's traffic, then deletes its elements."""
    for name in item.links:
        set_leaving(host.rtnl, name)
    delete_elements(host.handles, item, last)


def detach(host: Host, item: Attachment, remover: Remover | None = None, withdrawn: bool = False) -> None:
    """`withdrawn`: `withdraw` has been called before. A repair may have undone it since."""
    last = host.is_last(item)
    if last or not withdrawn or host.table.get(marker(item.key)):
        withdraw(host, item, last)
    if item.is_fast:
        from cni.fastpath import release

        release(host.handles, item)
    if item.conditions:
        from cni.conditions import release as release_conditions

        release_conditions(host.handles)
    remove_moved(item)
    links = _leave_bridge(host, item) if last else []
    # One link goes by its index: for a group the kernel looks at all links, which takes 6 ms among 10 000.
    together = item.links if withdrawn or len(item.links) > 1 else ()
    if not together:
        links += item.links
    # Listing all connections and removing the links each take some 10 ms.
    went = remove_links(links, lambda: host.forget_flows_of(item.addresses), remover, together)
    if not went and remover is None:
        keep_sockets_open()  # the links went with the namespace
    if item.zone:
        from cni.firewalld import leave

        leave(item)
    release_localnet(host.handles, [item])
    if last:
        host.store.drop_bridge(item)
    host.remove_record(item)
    _stop_forwarding(host)


def _leave_bridge(host: Host, item: Attachment) -> list[str]:
    from cni.restoration import leave_bridge

    return leave_bridge(host, item)


def _stop_forwarding(host: Host) -> None:
    if not host.store.has_records():
        from cni.restoration import stop_forwarding

        stop_forwarding(host.handles)
