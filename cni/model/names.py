"""Names and MAC addresses that follow from what is attached: the same attachment always gets the same ones.

Determinism is what lets DEL work without state, prevResult or a network namespace. Pure, but for the host's own name.
"""

from __future__ import annotations

import os

from nft.digest import digest
from nft.schema import COMMENT_LIMIT

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~")


def identity(network: str, container: str, ifname: str) -> str:
    """`network/container/interface`, bounded to a comment's length and characters.

    What does not fit is replaced by `~` and a hash; container IDs cannot have a `~`, and no sane interface has one.
    """
    if not _PLAIN.issuperset(ifname):
        ifname = "~" + digest(ifname, size=7).hex()
    text = f"{network}/{container}/{ifname}"
    if len(text) > COMMENT_LIMIT:
        text = f"{network}/~{digest(container, size=15).hex()}/{ifname}"
    return text


def host_link(ident: str) -> str:
    """The host end's name: 15 bytes, and `veth` first, which network managers leave alone by default."""
    return "veth" + digest("link", ident, size=6).hex()[:11]


def vlan_link(bridge: str, vlan: int) -> str:
    """The host's own link in a VLAN of a bridge, named as by the reference bridge plugin and by ifupdown."""
    return f"{bridge}.{vlan}"


def shaper_link(ident: str) -> str:
    """The device that limits what the container sends, named as by the reference bandwidth plugin."""
    return "bwp" + digest("shaper", ident, size=6).hex()


def derived_mac(*parts: str) -> bytes:
    """A locally administered unicast MAC address (IEEE 802, bits 0x02 and 0x01 of the first byte)."""
    raw = digest("mac", *parts, size=6)
    return bytes([raw[0] & 0xFC | 0x02]) + raw[1:]


def bridge_mac(name: str) -> bytes:
    """The same at every start of one host, different on two hosts whose bridges may share a wire (machine-id(5)).

    Images have an empty machine-id until their first boot is over, systemd writes "uninitialized" meanwhile, and hosts
    without systemd have none: they get another address at each boot, as all of them may have one name.
    """
    try:
        with open("/etc/machine-id", encoding="utf-8") as file:
            host = file.read().strip()
    except (FileNotFoundError, ValueError):  # any other error would change the address for this one time
        host = ""
    if host in ("", "uninitialized"):
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            host = f"{os.uname().nodename} {file.read().strip()}"
    return derived_mac("bridge", host, name)
