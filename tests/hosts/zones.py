"""A host with firewalld: Debian's own, with its D-Bus and polkit, in a folder of its own on a scratch host."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from support import kept
from support.debian import Apt, settle, unpack
from support.scratch import Host

SUITE = "bookworm"
PACKAGES = ("firewalld", "polkitd", "dbus", "python3", "nftables", "netbase", "kmod", "dash", "coreutils", "libc-bin")
ROOT = "/run/firewalld"  # on the scratch host
# What maintainer scripts would have done (firewalld.postinst, dbus.postinst, polkitd.postinst).
USERS = "messagebus:x:101:101::/:/bin/false\npolkitd:x:102:102::/:/bin/false\nsystemd-network:x:103:103::/:/bin/false\n"
GROUPS = "messagebus:x:101:\npolkitd:x:102:\n"
POLICY = "usr/share/polkit-1/actions/org.fedoraproject.FirewallD1"


def made() -> Path:
    """Raises debian.Unavailable."""
    return kept.kept("firewalld", f"{SUITE} {' '.join(PACKAGES)}", [__file__], _make)


def _make(work: Path, place: Path) -> None:
    unpack(Apt(SUITE, work / "apt").fetch(PACKAGES), place)
    settle(place)
    for name, more in (("passwd", USERS), ("group", GROUPS)):
        with (place / "etc" / name).open("a") as file:
            file.write(more)
    (place / f"{POLICY}.policy").symlink_to(f"{Path(POLICY).name}.server.policy.choice")


class Firewalld:
    """Running on a scratch host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.log = host.file("/run/firewalld.log")
        host.run("mkdir", "-p", ROOT, "/run/upper", "/run/dbus")
        host.run("mount", "-t", "tmpfs", "upper", "/run/upper")
        host.run("mkdir", "/run/upper/up", "/run/upper/work")
        layers = f"lowerdir={made()},upperdir=/run/upper/up,workdir=/run/upper/work"
        host.run("mount", "-t", "overlay", "-o", layers, "firewalld", ROOT)
        host.run("mkdir", "-p", *(f"{ROOT}/{path}" for path in ("proc", "dev", "run/dbus", "var/log", "tmp")))
        host.run("mount", "-t", "proc", "proc", f"{ROOT}/proc")
        host.run("mount", "--rbind", "/dev", f"{ROOT}/dev")
        host.run("mount", "--bind", "/run/dbus", f"{ROOT}/run/dbus")
        host.run("mkdir", "-p", "/run/bin")
        host.file("/run/bin/firewall-cmd").write_text(f'#!/bin/sh\nexec chroot {ROOT} firewall-cmd "$@"\n')
        host.file("/run/bin/firewall-cmd").chmod(0o755)
        host.env["PATH"] = f"/run/bin:{os.environ['PATH']}"
        self._running: list[subprocess.Popen[str]] = []
        self._start("dbus-daemon", "--system", "--nofork", "--nopidfile")
        self._wait("busctl", "--system", "list")
        self._start("/usr/lib/polkit-1/polkitd", "--no-debug")
        self.start()

    def _start(self, *words: str) -> None:
        with self.log.open("a") as log:
            self._running.append(self.host.popen("chroot", ROOT, *words, stdout=log, stderr=log))

    def start(self) -> None:
        self._start("python3", "/usr/sbin/firewalld", "--nofork", "--nopid", "--log-target", "console")
        self._wait("firewall-cmd", "--state")

    def _wait(self, *words: str) -> None:
        """Until the command succeeds. Raises AssertionError with the programs' own words."""
        for _ in range(120):
            done = self.host.call(*words)
            if done.returncode == 0:
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._running[-1].wait(0.5)
                break
        raise AssertionError(f"{' '.join(words)}: {done.stdout}{done.stderr}\n{self.log.read_text()}")

    def cmd(self, *words: str) -> str:
        return self.host.run("firewall-cmd", *words).strip()

    def sources(self, zone: str) -> list[str]:
        return self.cmd(f"--zone={zone}", "--list-sources").split()

    def stop(self) -> None:
        """firewalld alone; its rules go with it."""
        process = self._running.pop()
        process.terminate()
        process.wait()

    def close(self) -> None:
        for process in reversed(self._running):
            process.terminate()
            process.wait()
