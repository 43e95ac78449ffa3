"""The drop-in name `firewall`: `ingressPolicy` for an attachment that another plugin has made."""

from __future__ import annotations

from cni.dropin.amendment import amend, attached, base_record, give_up, holds_nothing, record_of
from cni.host import Host
from cni.model.config import NOT_DONE, isolation_asked, refuse_unsupported
from cni.protocol.errors import UNSUPPORTED_FIELD, CniError
from cni.protocol.fields import Fields
from cni.protocol.request import Request
from cni.protocol.results import parse_previous
from cni.verbs.check import refuse_problems
from cni.verbs.delete import detach, is_anothers
from cni.verbs.drift import element_problems, table_problems

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import Json


def add(request: Request) -> dict[str, Json]:
    """prevResult as it came. Raises CniError; the attachment is then as it was before."""
    previous = parse_previous(request)
    fields = Fields(request.document)
    refuse_unsupported(fields, request.role)
    isolation, port_isolation = isolation_asked(fields)
    if not isolation:
        return previous.document
    ident = record_of(request)
    with Host(request.data_dir).transaction(f"firewall: ADD for {ident}") as host:
        before = host.record(ident)
        base = base_record(host, request, previous, before)
        if not base.kind.own_link and (port_isolation or not base.bridge):
            what = f'ingressPolicy: "{fields.text("ingressPolicy")}" is not supported on this interface'
            raise CniError(UNSUPPORTED_FIELD, what, NOT_DONE)
        amend(host, before, base.replace(isolation=True, port_isolation=port_isolation))
    return previous.document


def delete(request: Request) -> None:
    """Takes back the isolation of somebody else's interface; ours keeps it to its end. Nothing there is success."""
    ident = record_of(request)
    with Host(request.data_dir).transaction(f"firewall: DEL of {ident}") as host:
        before = host.record(ident)
        if before is None and is_anothers(request):
            from cni.predecessor import clean_forwarding

            clean_forwarding(host, request)
        if before is None or before.kind.own_link:
            return
        item = before.replace(isolation=False)
        if holds_nothing(item):
            detach(host, before)
        else:
            give_up(host, before, item)


def check(request: Request) -> None:
    """Raises CniError 104 with every difference, 7 without prevResult."""
    parse_previous(request)
    isolation, _ = isolation_asked(Fields(request.document))
    if not isolation:
        return
    ident = record_of(request)
    with Host(request.data_dir).transaction(f"firewall: CHECK of {ident}") as host:
        item = attached(host, ident)
        problems = [] if item.isolation else ["the network is not isolated"]
        problems += table_problems(host) or element_problems(item, host.table.get)
    refuse_problems(ident, problems)
