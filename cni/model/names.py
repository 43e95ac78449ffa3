"""Names and MAC addresses that follow from an attachment's identity: the same attachment always gets the same ones.

So DEL works without state, prevResult or a network namespace. Pure, except that `bridge_mac` reads the host's ID.
"""

from __future__ import annotations

import posix

from nft.digest import digest
from nft.schema import COMMENT_LIMIT

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~")


def identity(network: str, container: str, ifname: str) -> str:
    """`network/container/interface`, within a comment's length and characters.

    What does not fit is replaced by `~` and a hash; container IDs cannot hold a `~`, and no sane interface name does.
    """
    if not _PLAIN.issuperset(ifname):
        ifname = "~" + digest(ifname, size=7).hex()
    text = f"{network}/{container}/{ifname}"
    if len(text) > COMMENT_LIMIT:
        text = f"{network}/~{digest(container, size=15).hex()}/{ifname}"
    return text


def host_link(ident: str) -> str:
    """The host end's name: 15 bytes that begin with `veth`, which network managers leave alone by default."""
    return "veth" + digest("link", ident, size=6).hex()[:11]


def vlan_link(bridge: str, vlan: int) -> str:
    """The name of the host's link in a VLAN of a bridge, as the reference bridge plugin and ifupdown choose it."""
    return f"{bridge}.{vlan}"


def shaper_link(ident: str) -> str:
    """The name of the device that limits what the container sends, as the reference bandwidth plugin chooses it."""
    return "bwp" + digest("shaper", ident, size=6).hex()


def is_first(ifname: str) -> bool:
    """Whether it is the container's first interface: runtimes number them from eth0."""
    number = ifname[len(ifname.rstrip("0123456789")) :]
    return bool(ifname) and int(number or "0") == 0


def derived_mac(*parts: str) -> bytes:
    """A locally administered unicast MAC address (IEEE 802, bits 0x02 and 0x01 of the first byte)."""
    raw = digest("mac", *parts, size=6)
    return bytes([raw[0] & 0xFC | 0x02]) + raw[1:]


def bridge_mac(name: str) -> bytes:
    """A bridge's MAC address: the same at every boot of a host, different on two hosts whose bridges share a wire
    (machine-id(5)).

    A host without an ID gets another address at each boot, because many such hosts may share a name: images have an
    empty machine-id until their first boot is over, systemd writes "uninitialized" meanwhile, and other hosts have
    none.
    """
    try:
        with open("/etc/machine-id", encoding="utf-8") as file:
            host = file.read().strip()
    except (FileNotFoundError, ValueError):  # any other error is raised: it would change the address just this once
        host = ""
    if host in ("", "uninitialized"):
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            host = f"{posix.uname().nodename} {file.read().strip()}"
    return derived_mac("bridge", host, name)
