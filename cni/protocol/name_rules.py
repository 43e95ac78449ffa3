"""The rules for names that come from a caller: networks, containers, interfaces. Pure, and loaded at every start."""

from __future__ import annotations

DATA_DIR = "/run/nftcni"  # the default of `dataDir`

NOT_LINKS = ("all", "default")  # in /proc/sys/net/ipv4/conf these mean every link
_NAME_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME_REST = _NAME_FIRST | frozenset("_.-")


def is_name(text: str) -> bool:
    """Whether the text is valid as a network name or container ID, whatever its length ("Network configuration" and
    "Parameters" of SPEC.md)."""
    return text[:1] in _NAME_FIRST and _NAME_REST.issuperset(text) and bool(text)


def check_host_link(text: str) -> str:
    """`check_ifname` for a link of the host. Also refuses the loopback device, which leads to no container and whose
    sysctls serve the host."""
    if text == "lo":
        raise ValueError("is the loopback device, which leads to no container")
    return check_ifname(text)


def check_ifname(text: str) -> str:
    """The name. Raises ValueError with the rule that it breaks (the kernel's dev_valid_name, and ours).

    `%` would make the kernel choose a number, `*` means any interface to nft, and quotes and control characters would
    end nft's strings.
    """
    if not text or len(text) > 15:
        raise ValueError("an interface name has 1 to 15 characters")
    if text in (".", "..", *NOT_LINKS):  # the kernel gives no link these names (sysctl_dev_name_is_allowed)
        raise ValueError("is not an interface name")
    if not all("!" <= char <= "~" and char not in "/:%*\"'\\`" for char in text):
        raise ValueError("holds a character that interface names may not have")
    return text
