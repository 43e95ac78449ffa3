"""A host with firewalld: Debian's own, with its D-Bus and polkit."""

from __future__ import annotations

import contextlib
import subprocess

from support.scratch import Host
from system import System

POLICY = "org.fedoraproject.FirewallD1"  # of two for polkit, firewalld.postinst chooses one


class Firewalld:
    """Running on a scratch host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._system = System(host, "firewalld", ["firewall-cmd"])
        actions = f"{self._system.root}/usr/share/polkit-1/actions"
        host.run("ln", "-s", f"{POLICY}.server.policy.choice", f"{actions}/{POLICY}.policy")
        host.run("mkdir", "-p", "/run/dbus", f"{self._system.root}/run/dbus")
        host.run("mount", "--bind", "/run/dbus", f"{self._system.root}/run/dbus")
        self._running: list[subprocess.Popen[str]] = []
        self._start("dbus-daemon", "--system", "--nofork", "--nopidfile")
        self._wait("busctl", "--system", "list")
        self._start("/usr/lib/polkit-1/polkitd", "--no-debug")
        self.start()

    def _start(self, *words: str) -> None:
        self._running.append(self._system.start(*words))

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
        raise AssertionError(f"{' '.join(words)}: {done.stdout}{done.stderr}\n{self._system.log.read_text()}")

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
