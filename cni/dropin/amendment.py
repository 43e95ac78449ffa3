"""Amends an existing attachment's record for the chained plugins `portmap` and `firewall`.

After the drop-in `bridge` they amend its record; after somebody else's main plugin they keep a separate record without
links. Both records are projected into the table like all others. Each plugin's own file knows what it asks for.
"""

from __future__ import annotations

from cni.forwarding import set_host_sysctls
from cni.host import Host
from cni.localnet import needs_localnet, release_localnet
from cni.model.attachment import CHAINED, OPEN, Attachment, Lease
from cni.model.names import derived_mac, identity
from cni.model.plan import refuse_held_ports, without_shared_ports
from cni.model.ports import PortMapping
from cni.model.projection import attachment_elements
from cni.protocol.errors import CHECK_FAILED, CniError
from cni.protocol.request import Request
from cni.protocol.results import Previous


def record_of(request: Request) -> str:
    return identity(request.network, request.container, request.ifname)


def base_record(host: Host, request: Request, previous: Previous, before: Attachment | None) -> Attachment:
    """The record to amend: `before`, or a new one for an interface that another plugin made."""
    base = before or _foreign(host, request, previous)
    return base if base.bridge else base.replace(bridge=previous.host_link)  # host-local's record has no bridge


def _foreign(host: Host, request: Request, previous: Previous) -> Attachment:
    from cni.kernel.routes import is_local

    away = previous.gateways and not any(is_local(host.rtnl, gateway) for gateway in previous.gateways)
    return Attachment(
        network=request.network,
        container=request.container,
        ifname=request.ifname,
        sandbox=request.netns,
        bridge=previous.host_link,
        mac=derived_mac("container", record_of(request)),
        leases=tuple(Lease(prefix) for prefix in previous.addresses),
        ip_masq=False,
        isolation=False,
        hairpin=False,
        mode4=OPEN,
        mode6=OPEN,
        kind=CHAINED,
        uplink=bool(away),
    )


def amend(host: Host, before: Attachment | None, item: Attachment) -> None:
    """Replaces a record by one that differs in ports and isolation. If it fails, it removes what it may have added.
    Raises CniError."""
    kept = before
    if before is not None:
        kept = before.replace(mappings=_both(before, item), standby=(), snat=item.snat, masq_all=item.masq_all)
        give_up(host, before, kept)
    ports = host.store.claims.holders(item.mappings)
    item = without_shared_ports(ports, item)
    refuse_held_ports(ports, item)
    host.store.begin(item.replace(done=False))
    try:
        host.add_elements(item, again=True)
        set_host_sysctls(host.handles, item)
        if item.kind.own_link and item.port_isolation:
            from cni import hostside

            hostside.finish(host, item, hostside.ready(host, item))
        host.forget_flows_to(item.mappings, item.addresses)
        if item.zone:
            from cni.firewalld import join

            join(item)
        host.store.update(item.replace(done=True))
    except Exception:
        host.try_roll_back()
        if kept is None:
            from cni.verbs.delete import detach

            detach(host, item)
        else:
            give_up(host, item, kept)
        raise


def _both(before: Attachment, item: Attachment) -> tuple[PortMapping, ...]:
    """The ports of both records, without those whose condition changes: they are closed until the new one is in the
    table."""
    same = {version for version in (4, 6) if before.condition(version) == item.condition(version)}
    asked = set(item.mappings)
    return tuple(
        mapping
        for mapping in before.mappings
        if mapping in asked and mapping.host_ip and mapping.host_ip.version in same
    )


def give_up(host: Host, before: Attachment, item: Attachment) -> None:
    """Removes the elements, then the claims, that `before` has and `item` lacks; ports pass to those who wait for
    them."""
    if before == item:
        return
    kept = set(attachment_elements(item))
    gone = [element for element in attachment_elements(before) if element not in kept]
    if gone:
        host.table.delete(gone)
    if before.conditions:
        from cni.conditions import release

        release(host.handles)
    # Flows go before the record forgets the ports: after a kill, nobody would know the flows.
    still = set(item.mappings)
    given_up = tuple(mapping for mapping in before.mappings if mapping not in still)
    if given_up:
        host.forget_flows_by(given_up, before.addresses)
        if not needs_localnet(item):
            release_localnet(host.handles, [before])
    host.shrink_record(before, item)
    if gone:
        from cni.kernel.deletion import keep_sockets_open

        keep_sockets_open()


def holds_nothing(item: Attachment) -> bool:
    """Whether it is a record for somebody else's interface that nothing needs any more."""
    return item.kind == CHAINED and not (item.mappings or item.isolation or item.zone or item.wire.is_shaped)


def attached(host: Host, ident: str) -> Attachment:
    """The complete attachment. Raises CniError 104 without one."""
    item = host.record(ident)
    if item is None or not item.done:
        raise CniError(CHECK_FAILED, f"{ident} is not attached", "ADD it")
    return item
