"""Published ports at the host's 127.0.0.1: which links accept its packets (route_localnet), and who is kept out there.

It is set when a port needs it and restored with the last such port. Notes about a bridge come first: `port-LINK`
for each attachment with such a port; if the bridge is somebody else's, also `answers-ADDRESS`, `sysctl-KEY=VALUE
BEFORE`, and `queue` if we made the queue that holds our filter (`cni.kernel.loopback_guard`). `guarded` and
`bridge-guarded` come afterwards, for CHECK, because not every kernel can filter.
"""

from __future__ import annotations

from cni.handles import Handles
from cni.kernel import sysctl
from cni.kernel.links import get_link
from cni.model.attachment import Attachment
from nft.addresses import parse_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.kernel.links import Link
    from cni.kernel.loopback_guard import Program

# Notes of a bridge; the first two are beginnings.
PORT, ANSWERS, GUARDED, BRIDGE_GUARDED, QUEUE = "port-", "answers-", "guarded", "bridge-guarded", "queue"


def needs_localnet(item: Attachment) -> bool:
    """Whether a published port of the attachment answers at 127.0.0.1."""
    return any(
        port.host_ip and port.host_ip.version == 4 and (port.host_ip.is_unspecified or port.host_ip.is_loopback)
        for port in item.mappings
    )


def _receiving(item: Attachment) -> tuple[str, ...]:
    """The links by which the host receives what the container sends. With br_netfilter the bridge is one too, because
    routing is decided before a VLAN's frames reach the host's link in it (br_nf_pre_routing_finish)."""
    return tuple(dict.fromkeys((item.bridge, item.master)))


def _opened(item: Attachment) -> tuple[str, ...]:
    """Those of the receiving links that must accept packets for 127.0.0.1."""
    return _receiving(item) if item.bridge and needs_localnet(item) else ()


def _key(link: str) -> str:
    return f"ipv4/conf/{link}/route_localnet"


def localnet_sysctls(item: Attachment) -> list[tuple[str, str]]:
    """(key, value) of the sysctls that 127.0.0.1 needs to reach a published port."""
    return [(_key(link), "1") for link in _opened(item)]


def set_localnet(handles: Handles, item: Attachment) -> None:
    """Opens 127.0.0.1 for the attachment's ports, and guards it before. May be repeated."""
    note_localnet(handles, item)
    for link in _opened(item):
        before = sysctl.read(_key(link))
        if not before:
            continue
        if before != "1":
            handles.store.bridges.note_before(link, _key(link), before)
            _guard_ports(handles, link)
        _guard_bridge(handles, item, link)
        if before != "1":
            sysctl.write(_key(link), "1")


def _guard_ports(handles: Handles, bridge: str) -> None:
    """Guards the existing ports of a bridge before one of them needs route_localnet."""
    from cni.kernel.loopback_guard import guard

    for link in handles.store.bridges.ports(bridge):
        guard(handles.rtnl, link)


def guard_port(handles: Handles, item: Attachment) -> None:
    """Guards a port, after its rates were set or removed: that replaces the queue, and the guard goes with the old one.
    May be repeated."""
    if item.bridge and sysctl.read(_key(item.bridge)) == "1":
        from cni.kernel.loopback_guard import guard

        if guard(handles.rtnl, item.link) and not handles.store.bridges.knows(item.bridge, GUARDED):
            handles.store.bridges.note(item.bridge, GUARDED)


def _is_ours_to_guard(handles: Handles, item: Attachment, link: str) -> bool:
    """Whether to guard somebody else's bridge: only if it accepted no packets to 127.0.0.1 before us. If its owner
    wanted them, unknown machines may answer there."""
    bridges = handles.store.bridges
    return not item.made and (bridges.knows(link, f"sysctl-{_key(link)}=0") or bridges.knows(link, "created"))


def _guard_bridge(handles: Handles, item: Attachment, link: str) -> None:
    bridges = handles.store.bridges
    if not _is_ours_to_guard(handles, item, link):
        return
    from cni.kernel.loopback_guard import guard, has_hook

    guarded = bridges.knows(link, BRIDGE_GUARDED)
    if not guarded:
        for other in handles.store.sharing(item):  # earlier versions did not note who may answer
            if other is not None and needs_localnet(other):
                note_localnet(handles, other)
        if not has_hook(handles.rtnl, link):
            bridges.note(link, QUEUE)
    if guard(handles.rtnl, link, _answers(handles, link), guarded) and not guarded:
        bridges.note(link, BRIDGE_GUARDED)


def _answers(handles: Handles, bridge: str) -> Program:
    """The program that passes answers of all attachments there with ports at 127.0.0.1."""
    from cni.kernel.loopback_guard import answers_of

    notes = handles.store.bridges.notes(bridge)
    return answers_of(parse_address(note[len(ANSWERS) :]) for note in notes if note.startswith(ANSWERS))


def guard_problems(
    handles: Handles, item: Attachment, port: Link | None, read: Callable[[str], str] = sysctl.read
) -> list[str]:
    """A missing or altered guard, as sentences. Only a guard that existed counts: not every kernel can filter. `port`
    is the host end, `read` gives a sysctl's value."""
    bridges = handles.store.bridges
    if not item.bridge or read(_key(item.bridge)) != "1":
        return []
    from cni.kernel.loopback_guard import NOBODY, is_guarded

    guards = [(port, NOBODY)] if bridges.knows(item.bridge, GUARDED) else []
    for name in _receiving(item):
        if bridges.knows(name, BRIDGE_GUARDED):
            guards.append((get_link(handles.rtnl, name), _answers(handles, name)))
    return [
        f"the filter of {link.name} that guards the host's 127.0.0.0/8 without the table is missing or altered"
        for link, program in guards
        if link is not None and not is_guarded(handles.rtnl, link, program)
    ]


def note_localnet(handles: Handles, item: Attachment) -> None:
    for link in _opened(item):
        for note in (f"{PORT}{item.link}", *_answering(item)):
            handles.store.bridges.note(link, note)


def _answering(item: Attachment) -> list[str]:
    """The notes of who may answer; none on our own bridge, which has no other ports."""
    return [f"{ANSWERS}{address}" for address in item.addresses if address.version == 4 and not item.made]


def note_guard(handles: Handles, item: Attachment) -> None:
    """Notes the guard again, for a state folder that was lost: a bridge has our filter only if its route_localnet was
    0."""
    if not item.bridge or not needs_localnet(item):
        return
    from cni.kernel.loopback_guard import has_guard

    if has_guard(handles.rtnl, item.link):
        handles.store.bridges.note(item.bridge, GUARDED)
    for link in () if item.made else _receiving(item):
        if has_guard(handles.rtnl, link):
            handles.store.bridges.note_before(link, _key(link), "0")
            handles.store.bridges.note(link, BRIDGE_GUARDED)


def release_localnet(handles: Handles, items: list[Attachment]) -> None:
    """Restores what the bridges of these attachments no longer need, once no port at 127.0.0.1 is left there."""
    bridges = handles.store.bridges
    leaving: dict[str, set[str]] = {}
    for item in items:
        for link in _receiving(item):
            if link and bridges.knows(link, f"{PORT}{item.link}"):
                leaving.setdefault(link, set()).update([*_answering(item), f"{PORT}{item.link}"])
    for bridge, gone in leaving.items():
        last = not bridges.has_note(bridge, PORT, gone)
        if last:
            notes = bridges.notes(bridge)
            before = next((note for note in notes if note.startswith(f"sysctl-{_key(bridge)}=")), "")
            if before or "created" in notes:
                is_back = sysctl.try_to_write(_key(bridge), before.rpartition("=")[2] or "0")
                if before and is_back:  # from now on it is the owner's to set
                    bridges.remove(bridge, before)
            bridges.remove(bridge, GUARDED)
        if bridges.knows(bridge, BRIDGE_GUARDED) or bridges.knows(bridge, QUEUE):
            _release_guard(handles, bridge, gone, last)
        for note in sorted(gone):  # the port comes last: it leads a second DEL here
            bridges.remove(bridge, note)


def _release_guard(handles: Handles, bridge: str, gone: set[str], last: bool) -> None:
    from cni.kernel import loopback_guard

    bridges = handles.store.bridges
    if last:
        loopback_guard.release(handles.rtnl, bridge, bridges.knows(bridge, QUEUE))
        for note in (BRIDGE_GUARDED, QUEUE):
            bridges.remove(bridge, note)
        return
    for note in gone:
        if note.startswith(ANSWERS):
            bridges.remove(bridge, note)
    loopback_guard.guard(handles.rtnl, bridge, _answers(handles, bridge), True)
