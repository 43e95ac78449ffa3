"""Names and MAC addresses that follow from what is attached: the same attachment always gets the same ones.

Determinism is what lets DEL work without state, prevResult or a network namespace. Pure.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b  # hashlib costs 3 ms, it loads OpenSSL
except ImportError:
    from hashlib import blake2b

COMMENT_LIMIT = 128  # characters; the longest comment that nft's own parser takes (NFTNL_UDATA_COMMENT_MAXLEN)
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


def digest(*parts: str, size: int = 16) -> bytes:
    """A hash of the parts as a whole; NUL keeps ("ab", "c") apart from ("a", "bc")."""
    return blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=size).digest()


def host_link(ident: str) -> str:
    """The host end's name: 15 bytes, and `veth` first, which network managers leave alone by default."""
    return "veth" + digest("link", ident, size=6).hex()[:11]


def derived_mac(*parts: str) -> bytes:
    """A locally administered unicast MAC address (IEEE 802, bits 0x02 and 0x01 of the first byte)."""
    raw = digest("mac", *parts, size=6)
    return bytes([raw[0] & 0xFC | 0x02]) + raw[1:]
