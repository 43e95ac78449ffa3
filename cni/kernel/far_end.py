"""Removes a pair by its end in the container, if the host's end is not where the record says: somebody renamed it or
moved it to another network namespace.

`deletion` removes links of the host; that is the usual way, and does not enter the container's namespace.
"""

from __future__ import annotations

import posix

from cni.kernel import rtnetlink
from cni.kernel.links import get_link
from cni.kernel.netns import LACKS, Inside
from cni.model.attachment import Attachment
from cni.model.names import derived_mac
from nft.netlink import Netlink, is_missing


def remove_far_end(item: Attachment) -> None:
    """The MAC address says whose the interface is: by now, the path may be another namespace's. One that the user chose
    says nothing, because the next container may have it. Raises OSError."""
    if item.mac != derived_mac("container", item.ident):
        return
    try:
        inside = _socket_in(item.sandbox)
    except OSError as error:
        if error.errno in LACKS:
            raise
        return  # the namespace is gone, and the pair with it
    try:
        link = get_link(inside, item.ifname)
        if link is not None and link.kind == "veth" and link.mac == item.mac:
            inside.ask(rtnetlink.RTM_DELLINK, rtnetlink.link_at(link.index))
    except OSError as error:
        if not is_missing(error):
            raise
    finally:
        inside.close()


def _socket_in(path: str) -> Netlink:
    netns = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    try:
        with Inside(netns):
            return Netlink()
    finally:
        posix.close(netns)
