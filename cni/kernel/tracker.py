"""Whether the connection tracker may know a flow, without listing it: that takes 10 ms a family on 262144 buckets.

While there are few flows, the text in /proc is read instead, in 0.3 ms; each flow makes it slower. Not every kernel has
it, or shows it to root of a user namespace.
"""

from __future__ import annotations

import posix

from cni.kernel import sysctl
from nft.addresses import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

FLOWS = "/proc/thread-self/net/nf_conntrack"
FEW = 100
SIZE = 1 << 16  # bytes, more than FEW lines take


def may_have_udp() -> bool:
    """False only if the tracker knows no UDP flow."""
    flows = _few()
    return flows is None or b" udp " in flows


def may_have_sources(addresses: Collection[Address]) -> bool:
    """False only if no flow has one of these addresses as the source of either direction."""
    flows = _few() if addresses else b""
    return flows is None or any(b" src=%b " % _text(address) in flows for address in addresses)


def _text(address: Address) -> bytes:
    """The address as the kernel prints it (%pI4, %pI6): an IPv6 address in full length."""
    if address.version == 4:
        return str(address).encode()
    return address.packed.hex(":", 2).encode()


def _few() -> bytes | None:
    """The tracker's text, a line for each flow; None if only a listing can tell."""
    count = sysctl.read("netfilter/nf_conntrack_count")
    if count == "0":
        return b""
    if not count.isdigit() or int(count) > FEW:
        return None
    try:
        file = posix.open(FLOWS, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            text = b""
            while len(text) < SIZE:
                part = posix.read(file, SIZE)
                text += part
                if not part or text.count(b"\n") >= int(count):  # each read goes through the whole table
                    return text
        finally:
            posix.close(file)
    except OSError:
        return None
    return None
