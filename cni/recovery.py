"""Lost records and orphans (elements, leases and ports without a record), and how both are resolved.

A lost record is rebuilt from the table, the host's links and the leases: comments and elements say who has which
address and port, the bridge port says how it was set up. The container's MAC address, routes and more are lost. DEL and
GC work with such a record and it protects the container's addresses, but CHECK asks for an ADD.

Orphans have two causes. A saved ruleset that is loaded again brings back elements of earlier containers, which are
deleted. A record deleted by hand leaves elements that its container still needs, and it is rebuilt. The host end of the
container's link tells the two apart. All of this lists the table, so it is for repair, GC, and an ADD that meets a key
that is taken.
"""

from __future__ import annotations

from cni.forwarding import note_from_table, unrouted
from cni.handles import Handles
from cni.kernel.links import get_link, link_name
from cni.localnet import note_guard, note_localnet
from cni.model.attachment import ISOLATED, OPEN, ROUTED, Attachment, Lease, kind_of
from cni.model.names import bridge_mac, host_link, vlan_link
from cni.model.ports import Occupied, PortMapping, by_claim
from cni.model.projection import projection, widest_elements
from cni.model.reading import bare_leases, read_attachment, read_direct
from cni.model.wire import Wire
from cni.protocol.errors import ADDRESS_TAKEN, PORT_TAKEN, TRY_AGAIN_LATER, CniError
from cni.protocol.log import say
from cni.state.claims import claim_line
from cni.state.store import Damaged
from nft.addresses import Address, Prefix, parse_address
from nft.elements import NFPROTO, Element, element_text, unpack
from nft.errors import Conflict
from nft.schema import GATES, INTERVALS, SETS, TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERSIONS = {number: version for version, number in NFPROTO.items()}

# Records, as they are on disk or rebuilt


def load(handles: Handles, ident: str) -> Attachment | None:
    """The record; a damaged one is rebuilt. None if there is none, or it cannot be rebuilt."""
    try:
        return handles.store.load(ident)
    except Damaged as damage:
        return rebuild_one(handles, ident, str(damage))


def all_records(handles: Handles, network: str = "") -> Iterator[Attachment]:
    """Yields all records, or those of one network; damaged ones are rebuilt."""
    for ident in handles.store.identities(network):
        item = load(handles, ident)
        if item is not None:
            yield item


def refill_state(handles: Handles) -> None:
    """Fills a fresh state folder from the table: records, the host's forwarding, and which bridges we created."""
    note_from_table(handles)
    _rebuild_all(handles)
    named = {(item.bridge, item.master) for item in all_records(handles) if item.bridge}
    for name, bridge in named | {(bridge, bridge) for _name, bridge in named}:
        link = get_link(handles.rtnl, name)
        if link is not None and link.mac == bridge_mac(bridge):
            handles.store.bridges.note(name, "created")


def _rebuild_all(handles: Handles) -> None:
    by_owner: dict[str, list[Element]] = {}
    for element in handles.table.elements():
        if element.comment:
            by_owner.setdefault(element.comment, []).append(element)
    known = set(handles.store.identities())
    for ident in by_owner.keys() - known:
        _rebuild(handles, ident, by_owner[ident], f"the record of {ident} was lost")


def rebuild_one(handles: Handles, ident: str, message: str) -> Attachment | None:
    """Rebuilds a damaged or deleted record; `message` says why on stderr. None if `ident` is no attachment's
    identity."""
    own = [element for element in handles.table.elements() if element.comment == ident]
    return _rebuild(handles, ident, own, message)


def _rebuild(handles: Handles, ident: str, elements: list[Element], message: str) -> Attachment | None:
    found = read_attachment(ident, elements)
    if found is None:
        return None
    say(f"{message}; it is rebuilt from the table, the links and the leases")
    leases, ports = handles.store.claims.claimed_by(ident)
    item = _without_others(handles, _with_conditions(handles, _as_on_the_host(handles, found, leases), elements))
    kept = projection([item])
    # A saved ruleset that was loaded again brings elements that another container has by now, or that are outdated.
    others = [element for element in elements if (element.set, element.key) not in kept]
    if others:
        handles.table.delete(others)
    held = {(mapping.claim, claim_line(mapping, ident)) for mapping in item.mappings}
    for port, line in ports:
        if (port, line) not in held:
            handles.store.claims.drop_lines(port, {line})
    note_guard(handles, item)
    note_localnet(handles, item)  # before the record: after a kill in between, it is rebuilt again
    handles.store.begin(item)
    return item


def _as_on_the_host(handles: Handles, item: Attachment, leases: list[str]) -> Attachment:
    """The attachment completed by what its link, its bridge and its leases tell."""
    from cni.kernel.shaping import rates_on

    port = get_link(handles.rtnl, item.link)
    master = link_name(handles.rtnl, port.master) if port and port.master else ""
    bridge = item.bridge or handles.store.bridges.of_link(item.link) or master
    given = _given(handles, bridge)
    addresses = dict.fromkeys((*item.addresses, *filter(None, map(_leased_address, leases))))
    return item.replace(
        bridge=bridge,
        leases=_with_gateways(handles, bridge, bare_leases(addresses)) if item.anti_spoof else bare_leases(addresses),
        isolation=("isolated", 0) in given,
        made=("bridges", 0) in given,
        is_gateway=bool({("routed", 4), ("routed", 6)} & given),
        mode4=_mode(item, 4, given),
        mode6=_mode(item, 6, given),
        direct=_direct(handles, bridge),
        hairpin=port.hairpin if port else False,
        port_isolation=port.isolated if port else False,
        wire=_in_vlan(rates_on(handles.rtnl, item.ident, port), bridge, master).replace(check_mac=item.wire.check_mac),
        kind=kind_of(port is not None or any("@" not in name for name in leases), port is not None or bool(leases)),
    )


def _in_vlan(wire: Wire, bridge: str, master: str) -> Wire:
    number = bridge[len(master) + 1 :]
    is_link_in_vlan = master and number.isdigit() and vlan_link(master, int(number)) == bridge
    return wire.replace(vlan=int(number), master=master) if is_link_in_vlan else wire


def _with_conditions(handles: Handles, item: Attachment, elements: list[Element]) -> Attachment:
    """The attachment with its ports' conditions, from the chains to which they lead. If a chain does not tell, nobody
    may reach them."""
    names = {element.set[5]: element.data.decode() for element in elements if element.set in GATES}
    if not names:
        return item
    from nft.conditions import NOBODY, read_texts

    texts = read_texts(handles.table.netlink)
    told = {version: texts.get(name, NOBODY) for version, name in names.items()}
    return item.replace(condition4=told.get("4", ""), condition6=told.get("6", ""))


def _given(handles: Handles, bridge: str) -> set[tuple[str, int]]:
    """The sets that hold a bridge, each with the element's IP version, 0 for both."""
    found = set()
    for element in widest_elements(bridge, True) if bridge else []:
        if handles.table.get(element) is not None:
            first = unpack(SETS[element.set][0], element.key)[0]
            found.add((element.set, VERSIONS.get(first, 0) if isinstance(first, int) else 0))
    return found


def _mode(item: Attachment, version: int, given: set[tuple[str, int]]) -> str:
    if ("closed", version) in given:
        opened = any(port.host_ip and port.host_ip.version == version for port in item.opened)
        return ROUTED if opened else item.mode(version)
    inside = ("bridges", 0) in given and ("routed", version) not in given and ("routed", 10 - version) in given
    return ISOLATED if inside else OPEN


def _direct(handles: Handles, bridge: str) -> tuple[str, ...]:
    found = map(read_direct, handles.table.elements(INTERVALS))
    return tuple(str(prefix) for link, prefix in found if link == bridge)


def _leased_address(name: str) -> Address | None:
    try:
        return parse_address(name.partition("@")[0])
    except ValueError:
        return None


def _with_gateways(handles: Handles, bridge: str, leases: tuple[Lease, ...]) -> tuple[Lease, ...]:
    """The leases with their subnets' gateways: addresses of the bridge that the table reserves for it."""
    from cni.kernel.dumps import read_addresses

    link = get_link(handles.rtnl, bridge)
    own = read_addresses(handles.rtnl, link.index) if link else []
    found = []
    for lease in leases:
        for prefix in own:
            taken = Element(f"taken{prefix.version}", prefix.address.packed)
            if lease.address.address in prefix and handles.table.get(taken) == taken:
                lease = Lease(Prefix(lease.address.address, prefix.length), prefix.address)
        found.append(lease)
    return tuple(found)


def _without_others(handles: Handles, item: Attachment) -> Attachment:
    def is_free(lease: Lease) -> bool:
        name = item.replace(leases=(lease,)).leased
        return not name or handles.store.claims.lease_holder(name[0]) in ("", item.ident)

    others = {
        port: Occupied((ip, who) for ip, who in handles.store.claims.port_holders(port) if who != item.ident)
        for port in by_claim(item.mappings)
    }

    def is_others(mapping: PortMapping) -> bool:
        return mapping.host_ip is not None and others[mapping.claim].find(mapping.host_ip) is not None

    item = item.replace(leases=tuple(filter(is_free, item.leases)))
    return item.replace(
        mappings=tuple(
            mapping
            for mapping in item.mappings
            if not is_others(mapping) and mapping.host_ip and item.address_of(mapping.host_ip.version)
        )
    )


# Orphans


def wanted_elements(handles: Handles, items: list[Attachment]) -> list[Element]:
    """All elements that the table should hold for these attachments."""
    own = projection(items)
    own.update({(element.set, element.key): element for element in unrouted(handles)})
    return [*own.values()]


def _lost_identities(handles: Handles) -> set[str]:
    """The identities that have elements in this boot's table, or claims, but no record."""
    markers = handles.table.elements(("attachments",)) if handles.table_serves else []
    named = {element.comment for element in markers} | handles.store.claims.claimants()
    return named - set(handles.store.identities()) - {""}


def rebuild_network(handles: Handles, network: str) -> None:
    """Rebuilds all lost records of a network, for GC to judge."""
    for ident in sorted(_lost_identities(handles)):
        if ident.partition("/")[0] == network:
            rebuild_one(handles, ident, f"the record of {ident} is lost")


def rebuild_living(handles: Handles) -> bool:
    """Rebuilds the lost records of attachments whose link exists. Returns whether there were any."""
    lost = [ident for ident in sorted(_lost_identities(handles)) if get_link(handles.rtnl, host_link(ident))]
    for ident in lost:
        rebuild_one(handles, ident, f"the record of {ident} is lost")
    return bool(lost)


def add_in_place_of_orphans(handles: Handles, item: Attachment, add: Callable[[], None], conflict: Conflict) -> None:
    """Removes orphans, then calls `add`, which met `conflict` before. Raises CniError 100, 102 or 11 where a living
    attachment holds the key."""
    if not _remove_orphans(handles, item):
        raise _refusal(conflict) from None
    try:
        add()
    except Conflict as again:
        raise _refusal(again) from None


def _refusal(conflict: Conflict) -> CniError:
    if conflict.held is None:
        return CniError(TRY_AGAIN_LATER, f"table inet {TABLE} changed while elements were added", "try again")
    text = element_text(conflict.held).split(" comment ")[0]
    holder = f"{conflict.held.comment or 'an element without a comment'} holds it in table inet {TABLE}"
    if conflict.wanted.set.startswith("dnat"):
        return CniError(PORT_TAKEN, f"host port {text} is taken: {holder}")
    return CniError(ADDRESS_TAKEN, f"{conflict.wanted.set} {text} is taken: {holder}")


def _remove_orphans(handles: Handles, item: Attachment) -> bool:
    """Makes the table hold what all records except `item`'s ask for. False if it did so already."""
    rebuild_living(handles)
    others = [other for other in all_records(handles) if other.ident != item.ident]
    wanted = {(element.set, element.key): element for element in wanted_elements(handles, others)}
    held = {(element.set, element.key): element for element in handles.table.elements()}
    gone = [element for key, element in held.items() if wanted.get(key) != element]
    if gone:
        handles.table.exchange(gone, [element for key, element in wanted.items() if held.get(key) != element])
    return bool(gone)
