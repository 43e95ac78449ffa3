"""The drop-in names `portmap` and `firewall`: published ports and isolation for an attachment that already stands.

After the drop-in `bridge` they amend its record; after somebody else's main plugin they keep a record of their own,
without links. Both are projected into the same table as everything else. `tuning`, `host-local` and `loopback` have
rooms of their own.
"""

from __future__ import annotations

from cni.bridge import ensure_bridge, set_host_sysctls
from cni.host import Host
from cni.kernel.links import finish_port
from cni.model.attachment import Attachment, Lease
from cni.model.config import NOT_DONE, isolation_asked, refuse_unsupported
from cni.model.names import derived_mac, identity
from cni.model.ports import PortMapping, for_families, parse_port_mappings
from cni.protocol.errors import CHECK_FAILED, UNSUPPORTED_FIELD, CniError, kernel_refused
from cni.protocol.fields import Fields
from cni.protocol.request import Request
from cni.protocol.results import Previous, parse_previous
from cni.verbs.add import refuse_held_ports, tidy, without_shared_ports
from cni.verbs.check import refuse_problems
from cni.verbs.delete import detach
from cni.verbs.drift import element_problems, table_problems
from nft.elements import attachment_elements

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import Json


def add(request: Request) -> dict[str, Json]:
    """prevResult as it came. Raises CniError; the attachment is then as it was before."""
    previous = parse_previous(request)
    fields = Fields(request.document)
    refuse_unsupported(fields, request.role)
    mappings = parse_port_mappings(fields.section("runtimeConfig")) if request.role == "portmap" else ()
    isolation, port_isolation = isolation_asked(fields) if request.role == "firewall" else (False, False)
    if not mappings and not isolation:
        return previous.document
    with Host(request.data_dir) as host:
        try:
            before = host.record(identity(request.network, request.container, request.ifname))
            base = before or _foreign(host, request, previous)
            base = base.replace(bridge=base.bridge or previous.host_link)  # of host-local's record alone
            if isolation and not base.own_link and (port_isolation or not base.bridge):
                what = f'ingressPolicy: "{fields.text("ingressPolicy")}" is not supported on this interface'
                raise CniError(UNSUPPORTED_FIELD, what, NOT_DONE)
            if request.role == "portmap":
                item = _with_ports(base, previous, mappings)
            else:
                item = base.replace(isolation=True, port_isolation=port_isolation)
            _amend(host, before, item)
        except OSError as error:
            tidy(host)
            raise kernel_refused(f"{request.role}: ADD for {request.container}", error) from None
    return previous.document


def _foreign(host: Host, request: Request, previous: Previous) -> Attachment:
    """A record for an interface that another plugin made and whose addresses it knows."""
    ident = identity(request.network, request.container, request.ifname)
    return Attachment(
        network=request.network,
        container=request.container,
        ifname=request.ifname,
        sandbox=request.netns,
        bridge=previous.host_link,
        mac=derived_mac("container", ident),
        leases=tuple(Lease(prefix) for prefix in previous.addresses),
        ip_masq=False,
        isolation=False,
        hairpin=False,
        own_link=False,
        own_leases=False,
        uplink=bool(previous.gateways) and not any(map(host.is_local, previous.gateways)),
    )


def _with_ports(base: Attachment, previous: Previous, mappings: tuple[PortMapping, ...]) -> Attachment:
    """The addresses are prevResult's: a plugin in between may have added one."""
    versions = tuple(sorted({prefix.version for prefix in previous.addresses}))
    bridge = base.bridge or previous.host_link
    return base.replace(bridge=bridge, mappings=for_families(mappings, versions))


def _amend(host: Host, before: Attachment | None, item: Attachment) -> None:
    """From one record to another that differs in ports and isolation. What it may have added is taken back if it
    fails."""
    if before is not None:
        _give_up(host, before, before.replace(mappings=_both(before, item), standby=()))
    item = without_shared_ports(host.state, item)
    refuse_held_ports(host.state, item)
    host.state.begin(item.replace(done=False))
    try:
        host.add_elements(item, again=True)
        set_host_sysctls(host, item)
        if item.own_link and item.port_isolation:
            finish_port(host.rtnl, item, ensure_bridge(host, item))
        host.forget_flows_to(item.mappings, item.addresses)
        host.state.update(item.replace(done=True))
    except Exception:
        tidy(host)
        if before is None:
            detach(host, item)
        else:
            _give_up(host, item, before.replace(mappings=_both(before, item), standby=()))
        raise


def _both(before: Attachment, item: Attachment) -> tuple[PortMapping, ...]:
    return tuple(mapping for mapping in before.mappings if mapping in item.mappings)


def _give_up(host: Host, before: Attachment, item: Attachment) -> None:
    """The elements, then the claims, of what `before` has and `item` has not; ports pass to who waits for them."""
    if before == item:
        return
    kept = attachment_elements(item)
    gone = [element for element in attachment_elements(before) if element not in kept]
    if gone:
        host.table.delete(gone)
    # Before the record forgets them: after a kill nobody would know of the flows.
    given_up = tuple(mapping for mapping in before.mappings if mapping not in item.mappings)
    host.forget_flows_of(given_up, before.addresses)
    host.shrink(before, item)


def delete(request: Request) -> None:
    """Takes back what this role has added, from the record alone. Nothing there is success."""
    ident = identity(request.network, request.container, request.ifname)
    with Host(request.data_dir) as host:
        try:
            before = host.record(ident)
            if before is not None:
                _take_back(host, before, request.role)
        except OSError as error:
            raise kernel_refused(f"{request.role}: DEL of {ident}", error) from None


def _take_back(host: Host, before: Attachment, role: str) -> None:
    item = before.replace(mappings=(), standby=()) if role == "portmap" else before.replace(isolation=False)
    if not item.own_link and not item.mappings and not item.isolation and not item.own_leases:
        detach(host, before)
    elif role == "portmap" or not item.own_link:
        _give_up(host, before, item)


def check(request: Request) -> None:
    """Raises CniError 104 with every difference, 7 without prevResult."""
    previous = parse_previous(request)
    fields = Fields(request.document)
    mappings = parse_port_mappings(fields.section("runtimeConfig")) if request.role == "portmap" else ()
    isolation, _ = isolation_asked(fields) if request.role == "firewall" else (False, False)
    if not mappings and not isolation:
        return
    ident = identity(request.network, request.container, request.ifname)
    with Host(request.data_dir) as host:
        try:
            item = host.record(ident)
            if item is None or not item.done:
                raise CniError(CHECK_FAILED, f"{ident} is not attached", "ADD it")
            versions = tuple(sorted({prefix.version for prefix in previous.addresses}))
            known = item.mappings + item.standby  # a waiting port is published by the container's other interface
            lacking = [mapping for mapping in for_families(mappings, versions) if mapping not in known]
            problems = [f"the port {mapping} is not published" for mapping in lacking]
            if isolation and not item.isolation:
                problems.append("the network is not isolated")
            problems += table_problems(host) or element_problems(host, item)
        except OSError as error:
            raise kernel_refused(f"{request.role}: CHECK of {ident}", error) from None
    refuse_problems(ident, problems)
