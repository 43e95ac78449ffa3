"""The rules for names that come from a caller: networks, containers, interfaces. Pure, and loaded at every start."""

from __future__ import annotations

DATA_DIR = "/run/nftcni"  # where nobody says otherwise

NOT_LINKS = ("all", "default")  # in /proc/sys/net/ipv4/conf they mean every link
_NAME_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME_REST = _NAME_FIRST | frozenset("_.-")


def is_name(text: str) -> bool:
    """The rule for network names and container IDs ("Network configuration", "Parameters" of SPEC.md), any length."""
    return text[:1] in _NAME_FIRST and _NAME_REST.issuperset(text) and bool(text)


def check_host_link(text: str) -> str:
    """Raises ValueError for the loopback device as well: no way to a container, and its sysctls are the host's."""
    if text == "lo":
        raise ValueError("is the loopback device, which leads to no container")
    return check_ifname(text)


def check_ifname(text: str) -> str:
    """Raises ValueError with the rule that an interface name breaks (dev_valid_name of the kernel, and our own).

    `%` would make the kernel choose a number, nft takes `*` for any interface, quotes and control characters
    would end its strings.
    """
    if not text or len(text) > 15:
        raise ValueError("an interface name has 1 to 15 characters")
    if text in (".", "..", *NOT_LINKS):  # the kernel gives no link one of these (sysctl_dev_name_is_allowed)
        raise ValueError("is not an interface name")
    if not all("!" <= char <= "~" and char not in "/:%*\"'\\`" for char in text):
        raise ValueError("holds a character that interface names may not have")
    return text
