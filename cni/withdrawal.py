"""Deletes an attachment's elements from the table: its own, and those of its bridge that no other attachment needs.

The marker in `attachments` says whose an element is, or the element's comment if the marker is missing.
"""

from __future__ import annotations

from cni.handles import Handles
from cni.model.attachment import Attachment
from cni.model.names import bridge_mac
from cni.model.projection import (
    attachment_elements,
    bridge_elements,
    cross_elements,
    direct_elements,
    mac_elements,
    master_elements,
    widest_elements,
)
from nft.elements import Element, pack, unpack
from nft.errors import Conflict
from nft.schema import IFNAME, INTERVALS, MAC


def delete_elements(handles: Handles, item: Attachment, last: bool) -> None:
    """Deletes the attachment's elements, and those that it shares if nobody else needs them. If its marker is in the
    table, every element with its keys is its own; if not, only those whose comment names it."""
    own = attachment_elements(item)
    if own and handles.table.get(own[0]) is None:
        named = [handles.table.get(element) for element in own]
        own = [element for element in named if element is not None and element.comment == item.ident]
    shared = _all_of_the_bridge(handles, item) if last else _no_longer_shared(handles, item)
    if last:
        from cni.forwarding import unrouted

        kept = unrouted(handles)
        shared = [element for element in shared if element not in kept]
    shared = _without_the_masters(handles, item, shared) + cross_elements(item, handles.store.of_container(item))
    doomed = own + [element for element in shared if handles.table.get(element) == element]
    doomed += unneeded_macs(handles, [item])
    if doomed:
        handles.table.delete(doomed)
    if not last and any(element.end for element in doomed):
        _add_prefixes(handles, item)


def unneeded_macs(handles: Handles, items: list[Attachment]) -> list[Element]:
    """The elements in the table of the attachments' requested MAC addresses that no other port or bridge has."""
    asked = [item for item in items if item.asked_for_mac]
    if not asked:
        return []
    gone = {item.link for item in items}
    held = (unpack((IFNAME, MAC), element.key) for element in handles.table.elements(("own_macs", "bridge_macs")))
    needed = {mac for link, mac in held if link not in gone}
    given = (mac_elements(item.replace(anti_spoof=True)) for item in asked if item.mac not in needed)
    doomed = dict.fromkeys(element for elements in given for element in elements)
    return [element for element in doomed if handles.table.get(element) == element]


def _add_prefixes(handles: Handles, item: Attachment) -> None:
    """Adds the other attachments' prefixes again, which may have lain inside one that has just been deleted."""
    for other in handles.store.sharing(item):
        for prefix in direct_elements(other) if other else []:
            try:
                handles.table.add([], [prefix])
            except Conflict:
                continue  # it lies inside one that is there


def _all_of_the_bridge(handles: Handles, item: Attachment) -> list[Element]:
    """Also the elements of attachments whose record was lost or had other settings."""
    if not item.bridge:
        return []
    name = pack((IFNAME,), (item.bridge,))
    direct = [element for element in handles.table.elements(INTERVALS) if element.key.startswith(name)]
    master = master_elements(item.replace(anti_spoof=True), bridge_mac(item.master)) if item.wire.master else []
    return list(dict.fromkeys([*widest_elements(item.bridge, item.made), *bridge_elements(item), *master, *direct]))


def _without_the_masters(handles: Handles, item: Attachment, shared: list[Element]) -> list[Element]:
    """Leaves out what all VLANs of a bridge share, such as its MAC address, while one of them needs it."""
    given = master_elements(item.replace(anti_spoof=True), bridge_mac(item.master))
    doubtful = [element for element in shared if element in given]
    if not doubtful:
        return shared
    needed: list[Element] = []
    for name in {item.master, *handles.store.bridges.vlans(item.master)} - {item.bridge}:
        for other in handles.store.sharing(item.replace(bridge=name)):
            theirs = given if other is None else bridge_elements(other)
            needed += [element for element in doubtful if element in theirs]
            if len(set(needed)) == len(doubtful):
                break
    return [element for element in shared if element not in needed]


def _no_longer_shared(handles: Handles, item: Attachment) -> list[Element]:
    """The bridge's elements that no other attachment needs, for example after a change of `isolation`. In most cases
    the first other one needs them all. None, if a record is unreadable: what its container needs is unknown."""
    left = bridge_elements(item)
    prefixes = item.direct
    known = False
    for other in handles.store.sharing(item):
        if other is None:
            return []
        given = bridge_elements(other)
        left = [element for element in left if element not in given]
        if prefixes == other.direct:
            prefixes = ()
        elif prefixes:
            theirs = set(other.direct)
            prefixes = tuple(prefix for prefix in prefixes if prefix not in theirs)
        known = True
        if not left and not prefixes:
            break
    return left + direct_elements(item.replace(direct=prefixes)) if known else []
