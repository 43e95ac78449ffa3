"""The host's forwarding for containers, and its sysctls: set when a container needs them, restored after the last one.

Before a change, the state folder notes `sysctl-KEY=VALUE BEFORE` of somebody else's bridge, and the links between which
the host did not forward before (`cni.state.notes`). `bridge` handles the bridge itself, `nft.ruleset` packets between
those links, `localnet` published ports at 127.0.0.1.
"""

from __future__ import annotations

from cni.handles import Handles
from cni.kernel import sysctl
from cni.kernel.links import all_links, link_index, link_name
from cni.localnet import localnet_sysctls, set_localnet
from cni.model.attachment import Attachment
from cni.model.projection import unrouted_elements
from nft.elements import NFPROTO, Element
from nft.framing import text

RTPROT_RA = 9  # include/uapi/linux/rtnetlink.h
OWN_FORWARDING = {
    4: {"routing": "ipv4/conf/{}/forwarding"},
    6: {"routing": "ipv6/conf/{}/force_forwarding", "on": "ipv6/conf/{}/forwarding"},
}
REDIRECTS = "ipv4/conf/all/accept_redirects"
ACCEPT_RA = "ipv6/conf/{}/accept_ra"
# Further words in a link's note. On lo: the host refused redirects. On any other link: it took router advertisements.
# The last one is its index, by which it is known after somebody renamed it: `#7`.
REFUSING, HEARING = "refusing", "hearing"


def host_sysctls(item: Attachment) -> list[tuple[str, str]]:
    return _forwarding_sysctls(item) + localnet_sysctls(item)


def _forwarding_sysctls(item: Attachment) -> list[tuple[str, str]]:
    """(key, value) of the host's and the link's forwarding sysctls: a host may enable single links."""
    wanted = []
    for version in (4, 6):
        if item.address_of(version) is None or not _needs_forwarding(item, version):
            continue
        if version == 6 and item.kind.own_link:
            wanted.append((f"ipv6/conf/{item.bridge}/disable_ipv6", "0"))
        wanted.append((sysctl.FORWARDING[version], "1"))
        if item.bridge:
            wanted.append((f"ipv{version}/conf/{item.bridge}/forwarding", "1"))
    return wanted


def _needs_forwarding(item: Attachment, version: int) -> bool:
    return item.is_routed(version) or any(port.host_ip and port.host_ip.version == version for port in item.mappings)


def set_host_sysctls(handles: Handles, item: Attachment) -> None:
    """Sets the sysctls of the host that the attachment needs. May be repeated. Raises CniError 5."""
    for key, value in _forwarding_sysctls(item):
        before = sysctl.read(key)
        if before in (value, ""):
            continue
        version = next((version for version, name in sysctl.FORWARDING.items() if name == key), 0)
        if version:
            _close_others(handles, version)
            if version == 6:
                _keep_router_advertisements(handles)
        else:
            handles.store.bridges.note_before(item.bridge, key, before)
        sysctl.write(key, value)
    set_localnet(handles, item)


def enable_ipv6(handles: Handles, item: Attachment) -> None:
    """Enables IPv6 before the bridge gets an address. Forwarding waits until the subnet is known to be free."""
    key = f"ipv6/conf/{item.bridge}/disable_ipv6"
    before = sysctl.read(key) if (key, "0") in _forwarding_sysctls(item) else ""
    if before not in ("", "0"):
        handles.store.bridges.note_before(item.bridge, key, before)
        sysctl.write(key, "0")


def _close_others(handles: Handles, version: int) -> None:
    """Before the host begins to forward, forbids forwarding between the links that it has now. Whoever adds a link
    later knows that the host forwards. A link whose own forwarding was on keeps it."""
    noted = []  # lo among them: the note is never empty
    earlier = _hearing(handles)
    for link in all_links(handles.rtnl):
        if link.name == "lo" or not (link.master or handles.store.bridges.knows(link.name, "created")):
            words = _own_forwarding(version, link.name)
            if (version, link.name) == (4, "lo") and sysctl.read(REDIRECTS) == "0":
                words.append(REFUSING)
            if version == 6 and link.name != "lo" and _hears(link.name, earlier):
                words.append(HEARING)
            noted.append(" ".join([link.name, link.kind or "device", *words, f"#{link.index}"]))
    handles.store.notes.put_unrouted(version, noted)
    handles.table.add([], unrouted_elements(version, noted))


def _own_forwarding(version: int, link: str) -> list[str]:
    """`routing` for a link that forwards without the host's setting, `on` for one whose own setting is on. For IPv6,
    `on` makes the link a router towards its neighbours; only force_forwarding (Linux 6.17) makes it forward."""
    return [word for word, key in OWN_FORWARDING[version].items() if sysctl.read(key.format(link)) == "1"]


def note_from_table(handles: Handles) -> None:
    """Notes the links again from the table, for a state folder that was lost. Whether the host accepted redirects is
    unknown then; refusing them harms least."""
    held = handles.table.elements(("unrouted", "routing", "same_net"))
    staying = {element.key[: len(element.key) // 2] for element in held if element.set == "same_net"}
    routing = {element.key for element in held if element.set == "routing"}
    for version in (4, 6):
        lines = []
        for element in held:
            if element.set == "unrouted" and element.key[0] == NFPROTO[version]:
                words = [text(element.key[4:]), "bridge" if element.key[4:] in staying else "device"]
                words += ["routing"] * (element.key in routing)
                words += [REFUSING] * (version == 4 and words[0] == "lo")
                lines.append(" ".join([*words, f"#{link_index(words[0])}"]))
        handles.store.notes.put_unrouted(version, lines)


def unrouted(handles: Handles) -> list[Element]:
    """The elements of the noted links."""
    return [
        element for version in (4, 6) for element in unrouted_elements(version, handles.store.notes.unrouted(version))
    ]


def unrouted_now(handles: Handles, version: int) -> list[str]:
    """The notes with the links' present names: an element knows a link by its name alone. A host may have thousands of
    links, so they are not listed."""
    return [_with_present_name(handles, line) for line in handles.store.notes.unrouted(version)]


def _with_present_name(handles: Handles, line: str) -> str:
    name, *words = line.split()
    index = next((int(word[1:]) for word in words if word.startswith("#")), 0)
    if index and link_index(name) != index:
        name = link_name(handles.rtnl, index) or name
    return " ".join([name, *words])


def follow_renamed(handles: Handles) -> None:
    """Notes the links' present names, before the table is made anew."""
    for version in (4, 6):
        now = unrouted_now(handles, version)
        if now != handles.store.notes.unrouted(version):
            handles.store.notes.put_unrouted(version, now)


def _hearing(handles: Handles) -> list[str]:
    lines = map(str.split, handles.store.notes.unrouted(6))
    return [name for name, _kind, *words in lines if HEARING in words]


def _hears(link: str, earlier: list[str]) -> bool:
    """Whether the link takes router advertisements as long as the host is no router. `earlier` are the links that an
    ADD noted before it was killed."""
    return sysctl.read(ACCEPT_RA.format(link)) == "1" or link in earlier


def _keep_router_advertisements(handles: Handles) -> None:
    """Sets accept_ra to 2 where it is 1 (ip-sysctl.rst): with 1 a forwarding host ignores advertisements, and the
    kernel removes the routes that came by them. The host would lose its default route with its first IPv6 container,
    its addresses when they expire, and find no router that is heard of later."""
    ports = (link_name(handles.rtnl, index) for index in announced_links(handles))  # of a VRF: those are not noted
    for link in dict.fromkeys([*_hearing(handles), *ports]):
        if sysctl.read(ACCEPT_RA.format(link)) == "1":
            sysctl.write(ACCEPT_RA.format(link), "2")


def announced_links(handles: Handles) -> set[int]:
    """Indexes of the links by which a router announces itself to this host."""
    from cni.kernel.dumps import links_of_routes, links_of_temporary_addresses

    return links_of_routes(handles.rtnl, RTPROT_RA) | links_of_temporary_addresses(handles.rtnl)
