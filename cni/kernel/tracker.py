"""What the connection tracker says without a listing of its own, which takes 10 ms a family on 262144 buckets.

The text in /proc is read instead, 0.3 ms, while there are few flows: it takes longer with each of them. Not every
kernel has it, nor shows it to root of a user namespace; a listing is the answer then.
"""

from __future__ import annotations

import os

from cni.kernel import sysctl

FLOWS = "/proc/thread-self/net/nf_conntrack"
FEW = 100
SIZE = 1 << 16  # bytes, more than FEW lines take


def may_have_udp() -> bool:
    """False only if no UDP flow is known."""
    count = sysctl.read("netfilter/nf_conntrack_count")
    if not count.isdigit() or int(count) > FEW:
        return True
    try:
        file = os.open(FLOWS, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        text = b""
        while len(text) < SIZE:
            part = os.read(file, SIZE)
            if not part:
                return b" udp " in text
            text += part
    finally:
        os.close(file)
    return True
