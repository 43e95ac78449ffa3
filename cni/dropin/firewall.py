"""The drop-in name `firewall`: `ingressPolicy` and firewalld's zone for an attachment that another plugin has made."""

from __future__ import annotations

from cni.dropin.amendment import amend, attached, base_record, give_up, holds_nothing, record_of
from cni.host import Host
from cni.model.attachment import ISOLATED, NAT, OPEN, ROUTED, Attachment
from cni.model.chain_keys import NOT_DONE, isolation_asked, refuse_unsupported
from cni.protocol.errors import UNSUPPORTED_FIELD, CniError
from cni.protocol.fields import Fields
from cni.protocol.request import Request
from cni.protocol.results import parse_previous
from cni.verbs.host_firewall import refuse_admin_chain, zone_asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import Json


def add(request: Request) -> dict[str, Json]:
    """Isolates the attachment and joins firewalld's zone. Returns prevResult unchanged. Raises CniError, and leaves the
    attachment as it was then."""
    previous = parse_previous(request)
    fields = Fields(request.document)
    refuse_unsupported(fields, request.role)
    isolation, port_isolation = isolation_asked(fields)
    zone = zone_asked(fields)
    ident = record_of(request)
    with Host(request.data_dir).transaction(f"firewall: ADD for {ident}", "nft.ruleset") as host:
        refuse_admin_chain(host.table.netlink, fields)
        if not isolation and not zone:
            return previous.document
        before = host.record(ident)
        base = base_record(host, request, previous, before)
        if isolation and not base.kind.own_link and (port_isolation or not base.bridge):
            what = f'ingressPolicy: "{fields.text("ingressPolicy")}" is not supported on this interface'
            raise CniError(UNSUPPORTED_FIELD, what, NOT_DONE)
        item = (_closed(base) if isolation else base).replace(zone=zone, port_isolation=port_isolation)
        amend(host, before, item.replace(isolation=isolation or base.isolation))
    return previous.document


def _closed(item: Attachment) -> Attachment:
    """The attachment isolated from everybody outside, not only from other networks."""
    found = (mode if mode in (ROUTED, ISOLATED) else NAT for mode in (item.mode4, item.mode6))
    return item.replace(mode4=next(found), mode6=next(found))


def delete(request: Request) -> None:
    """Removes the isolation of somebody else's interface; our own keeps it until its DEL. Succeeds if there is
    nothing."""
    ident = record_of(request)
    with Host(request.data_dir).transaction(f"firewall: DEL of {ident}") as host:
        before = host.record(ident)
        if before is None:
            from cni.verbs.delete import is_anothers

            if is_anothers(request):
                from cni.predecessor import clean_forwarding

                clean_forwarding(host, request)
        if before is None or before.kind.own_link:
            return
        if before.zone:
            from cni.firewalld import leave

            leave(before)
        item = before.replace(isolation=False, mode4=OPEN, mode6=OPEN, zone="")
        if holds_nothing(item):
            from cni.verbs.delete import detach

            detach(host, before)
        else:
            give_up(host, before, item)


def check(request: Request) -> None:
    """Raises CniError 104 with every difference, 7 without prevResult."""
    parse_previous(request)
    fields = Fields(request.document)
    isolation, _ = isolation_asked(fields)
    zone = zone_asked(fields)
    if not isolation and not zone:
        return
    from cni.firewalld import problems as zone_problems
    from cni.verbs.check import refuse_problems
    from cni.verbs.drift import element_problems, table_problems

    ident = record_of(request)
    with Host(request.data_dir).transaction(f"firewall: CHECK of {ident}") as host:
        item = attached(host, ident)
        problems = ["the network is not isolated"] if isolation and not item.isolation else []
        problems += zone_problems(item.replace(zone=zone)) if zone else []
        problems += table_problems(host) or element_problems(item, host.store.of_container(item), host.table.get)
    refuse_problems(ident, problems)
