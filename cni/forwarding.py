"""What the host forwards because of us, and which of its sysctls follow from that: set when a container needs them,
given back when the last one that did has gone.

Noted in the state folder before it is done: of a bridge `port-LINK` for each attachment whose ports need
route_localnet, where the bridge is somebody else's also `answers-ADDRESS`, `sysctl-KEY=VALUE BEFORE`, and `queue` if
the one that holds our filter is ours (`cni.kernel.loopback_guard`); of the host the links between which it did not
forward before (`cni.state.notes`). Noted after it is done, for CHECK, as not every kernel has it: `guarded` and
`bridge-guarded`. The bridge itself is `bridge`, what the table does with those links `nft.ruleset`.
"""

from __future__ import annotations

from cni.handles import Handles
from cni.kernel import sysctl
from cni.kernel.links import all_links, link_name
from cni.model.attachment import Attachment
from cni.model.names import bridge_mac
from cni.model.projection import unrouted_elements
from nft.addresses import parse_address
from nft.elements import NFPROTO, Element
from nft.framing import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.loopback_guard import Program

RTPROT_RA = 9  # include/uapi/linux/rtnetlink.h
FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
OWN_FORWARDING = {
    4: {"routing": "ipv4/conf/{}/forwarding"},
    6: {"routing": "ipv6/conf/{}/force_forwarding", "on": "ipv6/conf/{}/forwarding"},
}
ANSWERS, GUARDED, BRIDGE_GUARDED, QUEUE = "answers-", "guarded", "bridge-guarded", "queue"  # facts of a bridge


def host_sysctls(item: Attachment) -> list[tuple[str, str]]:
    """Forwarding, of the host and of the link: a host may list which of its links forward. And on the bridge
    route_localnet, without which 127.0.0.1 cannot reach a published port."""
    wanted = []
    for version in (4, 6):
        if item.address_of(version) is None or not _needs_forwarding(item, version):
            continue
        if version == 6 and item.kind.own_link:
            wanted.append((f"ipv6/conf/{item.bridge}/disable_ipv6", "0"))
        wanted.append((FORWARDING[version], "1"))
        if item.bridge:
            wanted.append((f"ipv{version}/conf/{item.bridge}/forwarding", "1"))
    if item.bridge and needs_localnet(item):
        wanted += [(_localnet(link), "1") for link in _receiving(item)]
    return wanted


def _needs_forwarding(item: Attachment, version: int) -> bool:
    return item.is_routed(version) or any(port.host_ip and port.host_ip.version == version for port in item.mappings)


def needs_localnet(item: Attachment) -> bool:
    return any(
        port.host_ip and port.host_ip.version == 4 and (port.host_ip.is_unspecified or port.host_ip.is_loopback)
        for port in item.mappings
    )


def _receiving(item: Attachment) -> tuple[str, ...]:
    """By which links the host gets what the container sends: with br_netfilter, where that is decided before a VLAN's
    frames reach the host's link in it, the bridge as well (br_nf_pre_routing_finish)."""
    return tuple(dict.fromkeys((item.bridge, item.master)))


def _localnet(bridge: str) -> str:
    return f"ipv4/conf/{bridge}/route_localnet"


def set_host_sysctls(handles: Handles, item: Attachment) -> None:
    note_localnet(handles, item)
    for key, value in host_sysctls(item):
        before = sysctl.read(key)
        link = next((link for link in _receiving(item) if key == _localnet(link)), "")
        if link and before == value:
            _guard_bridge(handles, item, link)
        if before in (value, ""):
            continue
        version = next((version for version, name in FORWARDING.items() if name == key), 0)
        if version:
            if version == 6:
                _keep_router_advertisements(handles)
            _close_others(handles, version)
        else:
            note_before(handles, link or item.bridge, key, before)
        if link:
            _guard_ports(handles, item.bridge)
            _guard_bridge(handles, item, link)
        sysctl.write(key, value)


def _guard_ports(handles: Handles, bridge: str) -> None:
    """Those that are there before one of them needs route_localnet."""
    from cni.kernel.loopback_guard import guard

    for link in handles.store.bridges.links(bridge):
        guard(handles.rtnl, link)


def guard_port(handles: Handles, item: Attachment) -> None:
    """After its rates are set or taken away, whose queue is made anew and takes the guard with it. May be repeated."""
    if item.bridge and sysctl.read(_localnet(item.bridge)) == "1":
        from cni.kernel.loopback_guard import guard

        if guard(handles.rtnl, item.link) and not handles.store.bridges.knows(item.bridge, GUARDED):
            handles.store.bridges.note(item.bridge, GUARDED)


def _is_ours_to_guard(handles: Handles, item: Attachment, link: str) -> bool:
    """A bridge with ports of others that would hear no packet to 127.0.0.1 without us. Where its owner wanted it to,
    others may answer there whom we do not know."""
    bridges = handles.store.bridges
    return not item.made and (bridges.knows(link, f"sysctl-{_localnet(link)}=0") or bridges.knows(link, "created"))


def _guard_bridge(handles: Handles, item: Attachment, link: str) -> None:
    bridges = handles.store.bridges
    if not _is_ours_to_guard(handles, item, link):
        return
    from cni.kernel.loopback_guard import guard, has_hook

    if not bridges.knows(link, BRIDGE_GUARDED):
        for other in handles.store.sharing(item):  # an earlier version did not note who may answer
            if other is not None and needs_localnet(other):
                note_localnet(handles, other)
        if not has_hook(handles.rtnl, link):
            bridges.note(link, QUEUE)
    if guard(handles.rtnl, link, _answers(handles, link)):
        bridges.note(link, BRIDGE_GUARDED)


def _answers(handles: Handles, bridge: str) -> Program:
    """Of all attachments there whose ports are the host's 127.0.0.1's as well."""
    from cni.kernel.loopback_guard import answers_of

    facts = handles.store.bridges.facts(bridge)
    return answers_of(parse_address(fact[len(ANSWERS) :]) for fact in facts if fact.startswith(ANSWERS))


def guard_problems(handles: Handles, item: Attachment) -> list[str]:
    """Only of a guard that was there: not every kernel has it."""
    bridges = handles.store.bridges
    if not item.bridge or sysctl.read(_localnet(item.bridge)) != "1":
        return []
    from cni.kernel.loopback_guard import is_guarded

    guarded = []
    if bridges.knows(item.bridge, GUARDED) and item.kind.own_link:
        guarded.append(is_guarded(handles.rtnl, item.link) or item.link)
    for link in _receiving(item):
        if bridges.knows(link, BRIDGE_GUARDED):
            guarded.append(is_guarded(handles.rtnl, link, _answers(handles, link)) or link)
    return [
        f"the filter of {link} that keeps the host's 127.0.0.0/8 without the table is missing or another one"
        for link in guarded
        if link is not True
    ]


def enable_ipv6(handles: Handles, item: Attachment) -> None:
    """Before the bridge gets an address; that the host forwards comes only when the subnet is known to be free."""
    key = f"ipv6/conf/{item.bridge}/disable_ipv6"
    before = sysctl.read(key) if (key, "0") in host_sysctls(item) else ""
    if before not in ("", "0"):
        note_before(handles, item.bridge, key, before)
        sysctl.write(key, "0")


def note_localnet(handles: Handles, item: Attachment) -> None:
    if item.bridge and needs_localnet(item):
        for link in _receiving(item):
            for fact in (f"port-{item.link}", *_answering(item)):
                handles.store.bridges.note(link, fact)


def _answering(item: Attachment) -> list[str]:
    """A bridge of ours has no ports of others."""
    return [f"{ANSWERS}{address}" for address in item.addresses if address.version == 4 and not item.made]


def note_guard(handles: Handles, item: Attachment) -> None:
    """For a state folder that was lost: a filter of ours on a bridge is there only because its route_localnet was 0."""
    if not item.bridge or item.made or not needs_localnet(item):
        return
    from cni.kernel.loopback_guard import has_guard

    for link in _receiving(item):
        if has_guard(handles.rtnl, link):
            note_before(handles, link, _localnet(link), "0")
            handles.store.bridges.note(link, BRIDGE_GUARDED)


def note_before(handles: Handles, bridge: str, key: str, before: str) -> None:
    """For `leave_bridge`: nothing where the bridge, with all that is set on it, is ours."""
    facts = handles.store.bridges.facts(bridge)
    if "created" not in facts and not any(fact.startswith(f"sysctl-{key}=") for fact in facts):
        handles.store.bridges.note(bridge, f"sysctl-{key}={before}")


def release_localnet(handles: Handles, items: list[Attachment]) -> None:
    """Once no port of their bridges needs it any more."""
    bridges = handles.store.bridges
    leaving: dict[str, set[str]] = {}
    for item in items:
        for link in _receiving(item):
            if link and bridges.knows(link, f"port-{item.link}"):
                leaving.setdefault(link, set()).update([*_answering(item), f"port-{item.link}"])
    for bridge, gone in leaving.items():
        facts = bridges.facts(bridge)
        last = not any(fact.startswith("port-") and fact not in gone for fact in facts)
        if last:
            before = [fact.rpartition("=")[2] for fact in facts if fact.startswith(f"sysctl-{_localnet(bridge)}=")]
            if before or "created" in facts:
                sysctl.try_to_write(_localnet(bridge), before[0] if before else "0")
        if BRIDGE_GUARDED in facts or QUEUE in facts:
            _release_guard(handles, bridge, gone, last)
        for fact in sorted(gone):  # the port last: by it a second DEL comes here again
            bridges.forget(bridge, fact)


def _release_guard(handles: Handles, bridge: str, gone: set[str], last: bool) -> None:
    from cni.kernel import loopback_guard

    bridges = handles.store.bridges
    if last:
        loopback_guard.release(handles.rtnl, bridge, bridges.knows(bridge, QUEUE))
        for fact in (BRIDGE_GUARDED, QUEUE):
            bridges.forget(bridge, fact)
        return
    for fact in gone:
        if fact.startswith(ANSWERS):
            bridges.forget(bridge, fact)
    loopback_guard.guard(handles.rtnl, bridge, _answers(handles, bridge))


def _close_others(handles: Handles, version: int) -> None:
    """Before the host begins to forward: not between the links that it has now. Those that come later are somebody's
    who knows that it does; a link that was told to forward on its own does so."""
    noted = []  # lo among them: the note is never empty
    for link in all_links(handles.rtnl):
        if link.name == "lo" or not (link.master or handles.store.bridges.knows(link.name, "created")):
            noted.append(" ".join([link.name, link.kind or "device", *_own_forwarding(version, link.name)]))
    handles.store.notes.put_unrouted(version, noted)
    handles.table.add([], unrouted_elements(version, noted))


def _own_forwarding(version: int, link: str) -> list[str]:
    """`routing` for a link that forwards without the host's setting, `on` for one whose own is on. Of IPv6 that one
    makes it a router for its neighbours, and only force_forwarding (Linux 6.17) forwards."""
    return [word for word, key in OWN_FORWARDING[version].items() if sysctl.read(key.format(link)) == "1"]


def _put_back(version: int, line: str) -> None:
    """What the kernel has set to 0 on all links with the host's setting (inet_forward_change)."""
    link, _kind, *words = line.split()
    for word in words:
        sysctl.write(OWN_FORWARDING[version][word].format(link), "1")


def note_from_table(handles: Handles) -> None:
    """The links once more, for a state folder that was lost."""
    held = handles.table.elements(("unrouted", "routing", "same_net"))
    staying = {element.key[: len(element.key) // 2] for element in held if element.set == "same_net"}
    routing = {element.key for element in held if element.set == "routing"}
    for version in (4, 6):
        lines = []
        for element in held:
            if element.set == "unrouted" and element.key[0] == NFPROTO[version]:
                words = [text(element.key[4:]), "bridge" if element.key[4:] in staying else "device"]
                words += ["routing"] * (element.key in routing)
                lines.append(" ".join(words))
        handles.store.notes.put_unrouted(version, lines)


def unrouted(handles: Handles) -> list[Element]:
    """The elements of those links."""
    return [
        element for version in (4, 6) for element in unrouted_elements(version, handles.store.notes.unrouted(version))
    ]


def stop_forwarding(handles: Handles) -> None:
    """After the last attachment: as it was before the first. Unless links have come since, or somebody else forwards
    ports, who may count on it; what was not forwarded before is not forwarded then either."""
    for version, key in FORWARDING.items():
        noted = handles.store.notes.unrouted(version)
        if not noted:
            continue
        known = {line.split()[0] for line in noted}
        left = [link for link in all_links(handles.rtnl) if not link.master and link.name not in known]
        # A bridge of ours that is left has other ports.
        if all(link.mac == bridge_mac(link.name) for link in left) and not _do_others_forward(handles):
            sysctl.write(key, "0")
            for line in noted:
                _put_back(version, line)
            handles.table.delete(unrouted_elements(version, noted))
            handles.store.notes.put_unrouted(version, [])


def _do_others_forward(handles: Handles) -> bool:
    from nft.foreign import forwards_ports

    return forwards_ports(handles.table.netlink)


def _keep_router_advertisements(handles: Handles) -> None:
    """A router takes none (accept_ra 1), and the kernel removes the routes that came by them: a host that got its
    default route so would lose it with its first IPv6 container, its addresses when their time is over. accept_ra 2
    takes them even so (ip-sysctl.rst)."""
    for index in announced_links(handles):
        key = f"ipv6/conf/{link_name(handles.rtnl, index)}/accept_ra"
        if sysctl.read(key) == "1":
            sysctl.write(key, "2")


def announced_links(handles: Handles) -> set[int]:
    """Indexes of the links by which a router announces itself to this host."""
    from cni.kernel.listing import links_of_routes, links_of_temporary_addresses

    return links_of_routes(handles.rtnl, RTPROT_RA) | links_of_temporary_addresses(handles.rtnl)
