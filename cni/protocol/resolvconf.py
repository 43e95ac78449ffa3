"""resolv.conf(5) as a `Dns` value, for `ipam.resolvConf`. Loaded only when that key is used."""

from __future__ import annotations

import posix
import stat

from cni.protocol.spec import Dns

LIMIT = 1 << 20


def read_resolv_conf(path: str) -> Dns:
    """Raises OSError, and ValueError for anything but a regular text file: a FIFO would block, a device may be
    endless."""
    flags = posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC
    with open(posix.open(path, flags), encoding="utf-8") as file:
        if not stat.S_ISREG(posix.fstat(file.fileno()).st_mode):
            raise ValueError("not a regular file")
        text = file.read(LIMIT + 1)
    if len(text) > LIMIT:
        raise ValueError(f"more than {LIMIT} characters")
    return parse_resolv_conf(text)


def parse_resolv_conf(text: str) -> Dns:
    """The last `search` line and the last `domain` line win, as in resolv.conf(5); unknown keywords are ignored."""
    nameservers: list[str] = []
    options: list[str] = []
    domain = ""
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        keyword, values = words[0], words[1:]
        if keyword == "nameserver":
            nameservers.append(values[0])
        elif keyword == "domain":
            domain = values[0]
        elif keyword == "search":
            search = tuple(values)
        elif keyword == "options":
            options += values
    return Dns(tuple(nameservers), domain, search, tuple(options))
