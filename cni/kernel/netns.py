"""Network namespaces: opening the one that CNI_NETNS names, and working inside it for a moment.

What is done inside is `links` and `sysctl`. pyroute2's netns.setns would create a namespace from a mistyped name.
"""

from __future__ import annotations

import errno
import fcntl
import os

from cni.protocol.errors import INVALID_NETNS, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

NS_GET_NSTYPE = 0xB703  # _IO(0xb7, 3), include/uapi/linux/nsfs.h
CLONE_NEWNET = 0x40000000
OWN = "/proc/thread-self/ns/net"


def open_netns(path: str) -> int:
    """A descriptor of the container's namespace. Raises CniError code 8, also for the host's own namespace.

    `CNI_NETNS_OVERRIDE` allows the host's own, as pkg/skel of libcni does.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        if isinstance(error, OSError) and error.errno == errno.ENOENT:
            reason = "there is no such namespace"  # go-cni takes the C library's words for success
        raise CniError(INVALID_NETNS, f"CNI_NETNS: {path[:200]!r}: {reason}") from None
    try:
        kind = fcntl.ioctl(fd, NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != CLONE_NEWNET:
        os.close(fd)
        raise CniError(INVALID_NETNS, f"CNI_NETNS: {path[:200]!r} is not a network namespace")
    if same_file(fd, OWN) and os.environ.get("CNI_NETNS_OVERRIDE", "").lower() not in ("1", "true"):
        os.close(fd)
        raise CniError(
            INVALID_NETNS,
            f"CNI_NETNS: {path[:200]!r} is the network namespace of the host itself",
            "containers on the host's network are not attached at all",
        )
    return fd


def same_file(fd: int, path: str) -> bool:
    one, other = os.fstat(fd), os.stat(path)
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _setns(fd: int) -> None:
    if hasattr(os, "setns"):  # Python 3.12
        os.setns(fd, CLONE_NEWNET)
        return
    number = _library_setns(fd, CLONE_NEWNET)
    if number:
        raise OSError(number, os.strerror(number))


def _library_setns(fd: int, kind: int) -> int:
    """setns(2) of the C library by ctypes; 0 or the errno."""
    try:
        # What `import ctypes` would set up around this costs 1.2 of ADD's 16.7 ms.
        import _ctypes

        bare: Any = _ctypes

        class Int(bare._SimpleCData):  # type: ignore[misc]
            _type_ = "i"

        class Function(bare.CFuncPtr):  # type: ignore[misc]
            _flags_ = bare.FUNCFLAG_CDECL | bare.FUNCFLAG_USE_ERRNO
            _restype_ = Int

        setns = Function(bare.dlsym(bare.dlopen(None, 0), "setns"))
        return int(bare.get_errno()) if setns(fd, kind) else 0
    except (ImportError, AttributeError, TypeError):  # another Python implementation
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        return ctypes.get_errno() if library.setns(fd, kind) else 0


class Inside:
    """`with Inside(fd):` works in that network namespace; /proc/sys/net and new sockets are then the container's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._home = -1

    def __enter__(self) -> None:
        self._home = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
        _setns(self._fd)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            _setns(self._home)
        except OSError:
            _setns(self._home)  # once more for a moment's lack of memory: from in here nothing could be cleaned up
        os.close(self._home)
