"""Makes the whole table from all records, in one transaction: if it was missing, of another boot or with other rules.

Afterwards, connections that began while it was missing and contradict it are forgotten, no others.
"""

from __future__ import annotations

from cni.forwarding import follow_renamed
from cni.handles import Handles
from cni.kernel.flows import forget_contradictions
from cni.kernel.routes import is_local
from cni.localnet import note_localnet
from cni.model.attachment import Attachment
from cni.protocol.errors import IO_FAILURE, CniError
from cni.recovery import all_records, rebuild_living, wanted_elements
from nft.elements import Element, elements_text
from nft.errors import LoadError
from nft.libnftables import run_text
from nft.ruleset import replacing_text
from nft.table import rules_digest
from nft.version import refuse_old


def rebuild_table(handles: Handles, items: list[Attachment] | None = None) -> tuple[list[Attachment], list[Element]]:
    """Makes the table. Returns all attachments and what the table holds. `items` are all records, where they have been
    read under this lock. Raises CniError 5."""
    try:
        refuse_old()
        if rebuild_living(handles) or items is None:
            items = list(all_records(handles))
        for item in items:  # earlier versions did not note all of this
            handles.store.index(item)
            note_localnet(handles, item)
        follow_renamed(handles)
        handles.store.notes.put_rules("")
        elements = wanted_elements(handles, items)
        run_text(replacing_text(handles.comment, _conditions(items) + elements_text(elements)))
    except LoadError as problem:
        raise CniError(IO_FAILURE, str(problem), problem.hint) from None
    if any(item.is_fast for item in items):
        from cni.fastpath import restore

        restore(handles)
    handles.store.notes.put_rules(rules_digest(handles.table.rules()))
    if items:
        forget_contradictions(handles.table.netlink, items, lambda address: is_local(handles.rtnl, address))
    return items, elements


def _conditions(items: list[Attachment]) -> str:
    """The text of the chains to which the attachments' elements lead, "" for none."""
    if not any(item.conditions for item in items):
        return ""
    from cni.conditions import whole_text

    return whole_text(items)
