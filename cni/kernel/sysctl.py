"""Access to /proc/sys/net: reading and writing one value. Which values are wanted is said in `links`."""

from __future__ import annotations

import errno
import os

ROOT = "/proc/sys/net"
PAGE = 4096


def read(key: str) -> str:
    """The value of `ipv4/ip_forward` or the like, "" where this kernel has no such key."""
    try:
        fd = os.open(f"{ROOT}/{key}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        text = b""
        while True:
            part = os.read(fd, PAGE)
            text += part
            if len(part) < PAGE:
                return text.decode("ascii", "replace").strip()
    finally:
        os.close(fd)


def exists(key: str) -> bool:
    return os.path.exists(f"{ROOT}/{key}")


def write(key: str, value: str) -> None:
    """Sets a value. A key that the kernel lacks is passed over: IPv6 may be compiled out or disabled at boot.

    A read-only /proc/sys is no error as long as the value is already the wanted one.
    """
    try:
        fd = os.open(f"{ROOT}/{key}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except FileNotFoundError:
        return
    except OSError as error:
        if read(key) != value:
            raise OSError(error.errno, f"{error.strerror} writing {value} to {ROOT}/{key}") from None


def try_to_write(key: str, value: str) -> bool:
    """For what is good to have: a read-only /proc/sys, as in an unprivileged container that is a host itself, must not
    keep a container from its network for its sake. Whether the value is there now."""
    try:
        write(key, value)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return False
    return True


def can_write(key: str) -> bool:
    return os.access(f"{ROOT}/{key}", os.W_OK)


def loosen_reverse_path(link: str) -> None:
    """Of a link of ours, where it is strict: a container on several networks answers by the first one whichever was
    asked. Who may send what there the table judges, more strictly (`sender`). The larger of two values counts."""
    key = f"ipv4/conf/{link}/rp_filter"
    own = read(key)
    if own == "1" or (own == "0" and read("ipv4/conf/all/rp_filter") == "1"):
        try_to_write(key, "2")


def refuse_advertisements(link: str) -> None:
    """Of routers, on a link of the host. One that forwards takes none in any case, unless accept_ra is 2."""
    key = f"ipv6/conf/{link}/accept_ra"
    takes_none = read(key) == "1" and read(f"ipv6/conf/{link}/forwarding") == "1"
    (try_to_write if takes_none else write)(key, "0")
