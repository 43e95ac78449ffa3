"""The drop-in name `portmap`: publishes ports of an attachment that another plugin of the chain has made."""

from __future__ import annotations

from cni.dropin.amendment import amend, attached, base_record, give_up, holds_nothing, record_of
from cni.host import Host
from cni.model.chain_keys import parse_conditions, parse_masquerade, refuse_unsupported
from cni.model.ports import PortMapping, for_families, parse_port_mappings, versions_of
from cni.protocol.fields import Fields
from cni.protocol.request import Request
from cni.protocol.results import Previous, parse_previous

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import Json

AHEAD = ("nft.ruleset", "cni.kernel.loopback_guard")
AHEAD_OF_DEL = ("cni.kernel.tracker", "cni.kernel.deletion")


def add(request: Request) -> dict[str, Json]:
    """Publishes the ports. Returns prevResult unchanged. Raises CniError, and leaves the attachment as it was then."""
    previous = parse_previous(request)
    fields = Fields(request.document)
    refuse_unsupported(fields, request.role)
    snat, masq_all = parse_masquerade(fields)
    condition4, condition6 = parse_conditions(fields)
    mappings = _asked(request, previous)
    if not mappings:
        return previous.document
    ident = record_of(request)
    with Host(request.data_dir).transaction(f"portmap: ADD for {ident}", *AHEAD) as host:
        if condition4 or condition6:
            from cni.conditions import refuse_invalid

            refuse_invalid(host.handles, condition4, condition6)
        before = host.record(ident)
        base = base_record(host, request, previous, before)
        asked = base.replace(
            mappings=mappings, snat=snat, masq_all=masq_all, condition4=condition4, condition6=condition6
        )
        amend(host, before, asked)
    return previous.document


def delete(request: Request) -> None:
    """Removes the ports, from the record alone. Succeeds if there is nothing."""
    ident = record_of(request)
    with Host(request.data_dir).transaction(f"portmap: DEL of {ident}", *AHEAD_OF_DEL) as host:
        before = host.record(ident)
        if before is None:
            from cni.verbs.delete import is_anothers

            if request.document.get("runtimeConfig") and is_anothers(request):
                from cni.predecessor import clean_ports

                clean_ports(host, request)
            return
        item = before.replace(mappings=(), standby=())
        if holds_nothing(item):
            from cni.verbs.delete import detach

            detach(host, before)
        else:
            give_up(host, before, item)


def check(request: Request) -> None:
    """Raises CniError 104 with every difference, 7 without prevResult."""
    mappings = dict.fromkeys(_asked(request, parse_previous(request)))
    if not mappings:
        return
    from cni.verbs.check import refuse_problems
    from cni.verbs.drift import element_problems, table_problems

    condition4, condition6 = parse_conditions(Fields(request.document))
    ident = record_of(request)
    with Host(request.data_dir).transaction(f"portmap: CHECK of {ident}") as host:
        item = attached(host, ident)
        known = {*item.mappings, *item.standby}  # another interface of the container publishes a waiting port
        problems = [f"the port {mapping} is not published" for mapping in mappings if mapping not in known]
        asked = item.replace(condition4=condition4, condition6=condition6)
        problems += [
            f'the port {mapping} is published for the packets "{item.condition(mapping.host_ip.version)}"'
            for mapping in item.mappings
            if mapping in mappings and mapping.host_ip
            if item.condition(mapping.host_ip.version) != asked.condition(mapping.host_ip.version)
        ]
        problems += table_problems(host) or element_problems(item, host.store.of_container(item), host.table.get)
    refuse_problems(ident, problems)


def _asked(request: Request, previous: Previous) -> tuple[PortMapping, ...]:
    """The mappings for the addresses in prevResult, to which a plugin in between may have added some."""
    mappings = parse_port_mappings(Fields(request.document).section("runtimeConfig"))
    return for_families(mappings, versions_of(previous.addresses))
