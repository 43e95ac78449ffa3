"""What the host forwards because of us, and which of its sysctls follow from that: set when a container needs them,
given back when the last one that did has gone.

Noted in the state folder before it is done: of a bridge that is somebody else's `sysctl-KEY=VALUE BEFORE`, of the host
the links between which it did not forward before (`cni.state.notes`). The bridge itself is `bridge`, what the table
does with those links `nft.ruleset`, published ports at 127.0.0.1 `localnet`.
"""

from __future__ import annotations

from cni.handles import Handles
from cni.kernel import sysctl
from cni.kernel.links import all_links, link_name
from cni.localnet import localnet_sysctls, set_localnet
from cni.model.attachment import Attachment
from cni.model.names import bridge_mac
from cni.model.projection import unrouted_elements
from nft.elements import NFPROTO, Element
from nft.framing import text

RTPROT_RA = 9  # include/uapi/linux/rtnetlink.h
FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
OWN_FORWARDING = {
    4: {"routing": "ipv4/conf/{}/forwarding"},
    6: {"routing": "ipv6/conf/{}/force_forwarding", "on": "ipv6/conf/{}/forwarding"},
}


def host_sysctls(item: Attachment) -> list[tuple[str, str]]:
    return _forwarding_sysctls(item) + localnet_sysctls(item)


def _forwarding_sysctls(item: Attachment) -> list[tuple[str, str]]:
    """Of the host and of the link: a host may list which of its links forward."""
    wanted = []
    for version in (4, 6):
        if item.address_of(version) is None or not _needs_forwarding(item, version):
            continue
        if version == 6 and item.kind.own_link:
            wanted.append((f"ipv6/conf/{item.bridge}/disable_ipv6", "0"))
        wanted.append((FORWARDING[version], "1"))
        if item.bridge:
            wanted.append((f"ipv{version}/conf/{item.bridge}/forwarding", "1"))
    return wanted


def _needs_forwarding(item: Attachment, version: int) -> bool:
    return item.is_routed(version) or any(port.host_ip and port.host_ip.version == version for port in item.mappings)


def set_host_sysctls(handles: Handles, item: Attachment) -> None:
    for key, value in _forwarding_sysctls(item):
        before = sysctl.read(key)
        if before in (value, ""):
            continue
        version = next((version for version, name in FORWARDING.items() if name == key), 0)
        if version:
            if version == 6:
                _keep_router_advertisements(handles)
            _close_others(handles, version)
        else:
            handles.store.bridges.note_before(item.bridge, key, before)
        sysctl.write(key, value)
    set_localnet(handles, item)


def enable_ipv6(handles: Handles, item: Attachment) -> None:
    """Before the bridge gets an address; that the host forwards comes only when the subnet is known to be free."""
    key = f"ipv6/conf/{item.bridge}/disable_ipv6"
    before = sysctl.read(key) if (key, "0") in _forwarding_sysctls(item) else ""
    if before not in ("", "0"):
        handles.store.bridges.note_before(item.bridge, key, before)
        sysctl.write(key, "0")


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
