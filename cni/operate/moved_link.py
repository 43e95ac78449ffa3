"""Finds the host end of a container's link if somebody renamed it or moved it to another network namespace. The other
end, in the container, knows its index and its namespace.

Nothing is changed. `repair` cannot make a second link beside one that the container still has, so `repair` and `doctor`
say which commands bring it back. Numbers are from include/uapi/linux/net_namespace.h and if_link.h.
"""

from __future__ import annotations

import contextlib
import os

from cni.kernel import rtnetlink
from cni.kernel.links import link_name, read_link
from cni.kernel.netns import OWN, Inside
from cni.model.attachment import Attachment
from nft.framing import attr_u32, attributes
from nft.netlink import Netlink, is_missing
from nft.value import Value

NAMED = "/run/netns"  # where `ip netns` keeps namespaces
RTM_GETNSID, NETNSA_NSID, NETNSA_FD = 90, 1, 3
IFLA_LINK_NETNSID = 37


class MovedLink(Value):
    """A moved link: `where` it is, in words, and the commands of the `remedy`."""

    where: str
    remedy: tuple[str, ...]


def moved_link(item: Attachment, netns: int) -> MovedLink | None:
    """The moved link, None if the container has no such link either, because it was deleted. `netns` is a descriptor of
    the container's namespace."""
    with Inside(netns):
        inside = Netlink()
    try:
        answer = inside.ask(rtnetlink.RTM_GETLINK, rtnetlink.get_link(item.ifname))
        index = read_link(answer).peer
        number = attributes(answer, rtnetlink.IFINFO.size).get(IFLA_LINK_NETNSID)
        if not index:
            return None
        for place in (OWN, *_places()) if number else (item.sandbox,):
            name = _name_at(inside, place, number, index)
            if name:
                return _found(item, name, "" if place == OWN else place)
    except OSError as error:
        if is_missing(error):
            return None
        raise
    finally:
        inside.close()
    again = f"# stop and start {item.container} by its runtime: its DEL and ADD make a new link"
    return MovedLink("it is in a network namespace that nothing of this host leads to", (again,))


def _name_at(inside: Netlink, place: str, number: bytes | None, index: int) -> str:
    """The link's name in that namespace, "" if it is not there."""
    try:
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        if number is not None:
            answer = inside.ask(RTM_GETNSID, b"\0" * 4 + attr_u32(NETNSA_FD, fd))
            if attributes(answer, 4).get(NETNSA_NSID) != number:
                return ""
        with Inside(fd):
            there = Netlink()
        try:
            return link_name(there, index)
        finally:
            there.close()
    finally:
        os.close(fd)


def _places() -> list[str]:
    """One path for each other network namespace: its name in `ip netns`, else a process's."""
    own = os.stat(OWN)
    names = sorted(os.listdir(NAMED)) if os.path.isdir(NAMED) else []
    paths = [*(f"{NAMED}/{name}" for name in names), *(f"/proc/{pid}/ns/net" for pid in os.listdir("/proc"))]
    found: dict[int, str] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            about = os.stat(path)
            if about.st_dev == own.st_dev and about.st_ino != own.st_ino:
                found.setdefault(about.st_ino, path)
    return list(found.values())


def _found(item: Attachment, name: str, place: str) -> MovedLink:
    if place:
        other = f" name {item.link}" if name != item.link else ""
        back = f"nsenter --net={place} ip link set {name} netns $${other}"  # $$: the shell's own namespace
        return MovedLink(f"somebody moved it to {place}, where it is called {name}", (back, "nftcni repair"))
    rename = (f"ip link set {name} down", f"ip link set {name} name {item.link}")
    return MovedLink(f"somebody called it {name}", (*rename, "nftcni repair"))
