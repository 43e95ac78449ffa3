"""Network namespaces: opens the one that CNI_NETNS names, and enters it for a moment.

`pair` and `sysctl` do the work inside. pyroute2's netns.setns would create a namespace from a mistyped name.
"""

from __future__ import annotations

import errno
import posix

from cni.protocol.errors import INVALID_NETNS, CniError, kernel_refused
from cni.stdlib import setns
from nft.system import same_file, variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

# These errors say nothing about the path: we, or the host, ran out of something.
LACKS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EINTR, errno.ENOSPC)
OWN = "/proc/thread-self/ns/net"


def open_netns(path: str) -> int:
    """A descriptor of the container's namespace. Raises CniError 8, also for the host's own namespace.

    `CNI_NETNS_OVERRIDE` allows the host's own, as in pkg/skel of libcni.
    """
    try:
        # stat comes before open, which may block (a FIFO) or have an effect (a tape, a watchdog).
        if posix.stat(path).st_dev != posix.stat(OWN).st_dev:
            raise _not_one(path)
        fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in LACKS:
            raise kernel_refused(f"opening CNI_NETNS {path[:200]!r}", error) from None
        reason = posix.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        if isinstance(error, OSError) and error.errno == errno.ENOENT:
            reason = "there is no such namespace"  # go-cni would take the C library's words for success
        raise CniError(INVALID_NETNS, f"CNI_NETNS: {path[:200]!r}: {reason}") from None
    try:
        with Inside(fd):  # setns(2) refuses other kinds of namespaces
            pass
    except OSError as error:
        posix.close(fd)
        if error.errno == errno.EINVAL:
            raise _not_one(path) from None
        raise kernel_refused(f"entering CNI_NETNS {path[:200]!r}", error) from None
    if same_file(fd, OWN) and variable("CNI_NETNS_OVERRIDE").lower() not in ("1", "true"):
        posix.close(fd)
        raise CniError(
            INVALID_NETNS,
            f"CNI_NETNS: {path[:200]!r} is the network namespace of the host itself",
            "containers on the host's network are not attached at all",
        )
    return fd


def _not_one(path: str) -> CniError:
    return CniError(INVALID_NETNS, f"CNI_NETNS: {path[:200]!r} is not a network namespace")


class Inside:
    """`with Inside(fd):` works in that network namespace; /proc/sys/net and new sockets are then the container's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._home = -1

    def __enter__(self) -> None:
        self._home = posix.open(OWN, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            setns(self._fd)
        except OSError:
            posix.close(self._home)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            setns(self._home)
        except OSError:
            setns(self._home)  # again, in case memory was short: in here we could not clean up
        posix.close(self._home)
