"""Removes a pair by its end in the container, if the host's end is not where the record says: somebody renamed it or
moved it to another network namespace.

`deletion` removes links of the host; that is the usual way, and does not enter the container's namespace.
"""

from __future__ import annotations

import errno
import posix

from cni.kernel import rtnetlink
from cni.kernel.links import get_link
from cni.kernel.netns import Inside
from cni.model.attachment import Attachment
from nft.netlink import Netlink, is_missing

# What open and setns say of a path that leads to the container's namespace no more: nothing is there, or a file, or
# another user's process of the same number. Every other error says that we could not look, and DEL must not go on.
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESRCH, errno.EACCES, errno.EINVAL)


def remove_far_end(item: Attachment) -> None:
    """The MAC address says whose the interface is: by now, the path may be another namespace's. One that the user chose
    says nothing, because the next container may have it. Raises OSError."""
    if item.asked_for_mac:
        return
    try:
        inside = _socket_in(item.sandbox)
    except OSError as error:
        if error.errno not in GONE:
            raise
        return  # and the pair with it
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
