"""Reads and writes single values in /proc/sys/net. `pair` and `cni.forwarding` know which values are wanted."""

from __future__ import annotations

import errno
import posix

from nft import system

ROOT = "/proc/sys/net"
FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}  # the whole host's
PAGE = 4096


def read(key: str) -> str:
    """The value of a key such as `ipv4/ip_forward`, "" if this kernel lacks it. Raises OSError."""
    try:
        fd = posix.open(f"{ROOT}/{key}", posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        text = b""
        while True:
            part = posix.read(fd, PAGE)
            text += part
            if len(part) < PAGE:
                return text.decode("ascii", "replace").strip()
    finally:
        posix.close(fd)


def exists(key: str) -> bool:
    return system.exists(f"{ROOT}/{key}")


def write(key: str, value: str) -> None:
    """Sets a value. A key that the kernel lacks is ignored: IPv6 may be compiled out or disabled at boot. Raises
    OSError.

    A read-only /proc/sys is no error if the value is already right.
    """
    try:
        fd = posix.open(f"{ROOT}/{key}", posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(fd, value.encode())
        finally:
            posix.close(fd)
    except FileNotFoundError:
        return
    except OSError as error:
        if read(key) != value:
            raise OSError(error.errno, f"{error.strerror} writing {value} to {ROOT}/{key}") from None


def try_to_write(key: str, value: str) -> bool:
    """Sets a value that is only good to have. Returns whether it is set now. A read-only /proc/sys, as in an
    unprivileged container that acts as a host, must not keep a container from its network for it."""
    try:
        write(key, value)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return False
    return True


def disable_ipv6(link: str) -> bool:
    """Takes IPv6 off a link of the host that needs none. Returns whether it is off.

    Each link with IPv6 has three routes of its own, and the kernel walks all routes when a link comes or goes
    (fib6_ifup, fib6_ifdown): among 10 000 ports, ADD and DEL take half as long without it.
    """
    return try_to_write(f"ipv6/conf/{link}/disable_ipv6", "1")


def loosen_reverse_path(link: str) -> None:
    """Makes a strict rp_filter of our link loose: a container on several networks answers by the first one, whichever
    was asked. The table judges senders more strictly (`sender`). The kernel uses the larger of the link's and `all`'s
    values."""
    key = f"ipv4/conf/{link}/rp_filter"
    own = read(key)
    if own == "1" or (own == "0" and read("ipv4/conf/all/rp_filter") == "1"):
        try_to_write(key, "2")


def refuse_advertisements(link: str) -> None:
    """Makes a link of the host ignore router advertisements. A link that forwards ignores them anyway unless accept_ra
    is 2."""
    key = f"ipv6/conf/{link}/accept_ra"
    takes_none = read(key) == "1" and read(f"ipv6/conf/{link}/forwarding") == "1"
    (try_to_write if takes_none else write)(key, "0")
