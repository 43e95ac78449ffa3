"""Another Debian system in a folder of a scratch host, for programs that would change this machine by running on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from support import kept
from support.debian import Apt, settle, unpack
from support.scratch import Host, Json, Namespace, network, port
from support.traffic import Server, ask

SUITE = "bookworm"
PACKAGES = (
    *("firewalld", "polkitd", "dbus", "ufw", "iptables", "systemd-resolved", "unbound"),
    *("python3", "nftables", "netbase", "kmod", "procps", "dash", "coreutils", "sed", "libc-bin"),
)
SUBNETS = ("10.88.0.0/24", "fd00:88::/64")
LAN, HERE = ("198.51.100.2", "2001:db8:100::2"), ("198.51.100.1", "2001:db8:100::1")  # of Host.neighbour
PORTS = [port(8080, 80), port(8080, 80, ip="::")]
# Who reaches whom where all is well, by IPv4 and IPv6.
OPEN = {"out": [True, True], "published": [True, True], "unpublished": [False, False]}
# Of users that maintainer scripts would make (dbus.postinst, polkitd.postinst and others).
USERS = ("messagebus", "polkitd", "systemd-network", "systemd-resolve", "unbound")


class System:
    """`root` is its folder on the scratch host, where what it changes lasts as long as that. `commands` of it can be
    called on the host by their names."""

    def __init__(self, host: Host, name: str, commands: Iterable[str]) -> None:
        self.host = host
        self.root = f"/run/{name}"
        self.log = host.file(f"/run/{name}.log")
        upper = f"/run/{name}.upper"
        host.run("mkdir", "-p", self.root, upper, "/run/bin")
        host.run("mount", "-t", "tmpfs", "upper", upper)
        host.run("mkdir", f"{upper}/up", f"{upper}/work")
        layers = f"lowerdir={_made()},upperdir={upper}/up,workdir={upper}/work"
        host.run("mount", "-t", "overlay", "-o", layers, name, self.root)
        host.run("mkdir", "-p", *(f"{self.root}/{path}" for path in ("proc", "dev", "run", "var/log", "tmp")))
        host.run("mount", "-t", "proc", "proc", f"{self.root}/proc")
        host.run("mount", "--rbind", "/dev", f"{self.root}/dev")
        for command in commands:
            wrapper = host.file(f"/run/bin/{command}")
            wrapper.write_text(f'#!/bin/sh\nexec chroot {self.root} {command} "$@"\n')
            wrapper.chmod(0o755)
        host.env["PATH"] = f"/run/bin:{os.environ['PATH']}"

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A daemon, in the foreground."""
        with self.log.open("a") as log:
            return self.host.popen("chroot", self.root, *words, stdout=log, stderr=log)


def _made() -> Path:
    """Raises debian.Unavailable."""
    return kept.kept("filters", f"{SUITE} {' '.join(PACKAGES)}", [__file__], _make)


def _make(work: Path, place: Path) -> None:
    unpack(Apt(SUITE, work / "apt").fetch(PACKAGES), place)
    settle(place)
    for number, user in enumerate(USERS, 101):
        with (place / "etc/passwd").open("a") as file:
            file.write(f"{user}:x:{number}:{number}::/:/bin/false\n")
        with (place / "etc/group").open("a") as file:
            file.write(f"{user}:x:{number}:\n")


def with_lan(host: Host) -> Namespace:
    """The host's way out, which knows a way to the containers too."""
    lan = host.neighbour()
    for subnet, there, here in zip(SUBNETS, LAN, HERE):
        six = ["-6"] if ":" in subnet else []
        host.run("ip", *six, "route", "add", "default", "via", there)
        lan.run("ip", *six, "route", "add", subnet, "via", here)
    return lan


def attached(host: Host, **keys: Json) -> tuple[Json, Json]:
    """A container c1 that publishes PORTS: its configuration and its result."""
    config = network("net0", *SUBNETS, ports=PORTS, **keys)
    return config, host.add(config)


def reached(host: Host, result: Json) -> dict[str, list[bool]]:
    """Whether c1 gets out, and who gets in: by a published port, and by a route to one that is not."""
    lan, inside = host.place("lan"), host.place("c1")
    own = [item["address"].split("/")[0] for item in result["ips"]]
    with Server(lan, 90), Server(inside, 80), Server(inside, 81):
        return {
            "out": [ask(inside, address, 90).startswith("lan") for address in LAN],
            "published": [ask(lan, address, 8080).startswith("c1") for address in HERE],
            "unpublished": [ask(lan, address, 81).startswith("c1") for address in own],
        }
