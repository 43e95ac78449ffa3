"""resolv.conf(5) as a `Dns` value, for `ipam.resolvConf`. Loaded only when that key is used."""

from __future__ import annotations

from cni.protocol.spec import Dns


def read_resolv_conf(path: str) -> Dns:
    """Raises OSError, and ValueError for a file that is not text."""
    with open(path, encoding="utf-8") as file:
        return parse_resolv_conf(file.read())


def parse_resolv_conf(text: str) -> Dns:
    """The last `search` and `domain` line win, as in resolv.conf(5); unknown keywords are passed over."""
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
