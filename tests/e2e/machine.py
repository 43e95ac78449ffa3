"""A scratch host to run real container runtimes on: its own processes, /etc, /usr, /var/lib and /run.

Here lives the host, without iptables and without reference plugins, and how its programs are started and ended. When it
is closed every process on it dies with its process namespace. What the programs do there is in the tests.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from programs import BIN
from support.scratch import CHECKOUT, Host, Namespace
from support.traffic import open_socket

# All that is written lands in memory of the scratch host; what must not be there is taken away from the copy.
FRESH = """
mkdir /run/layers && mount -t tmpfs layers /run/layers
for folder in etc usr; do
    mkdir -p /run/layers/$folder /run/layers/$folder.work
    mount -t overlay -o lowerdir=/$folder,upperdir=/run/layers/$folder,workdir=/run/layers/$folder.work over /$folder
done
for folder in /opt /var/lib /var/tmp; do mount -t tmpfs scratch $folder; done
mkdir -p /var/lib/cni /opt/cni/bin
rm -rf /etc/cni /etc/containers /etc/containerd /etc/nftables.d /usr/lib/cni /usr/libexec/cni /usr/local/lib/cni
rm -rf /usr/local/lib/nftcni /usr/local/libexec/cni
rm -f /usr/*bin/ip*tables* /usr/*bin/xtables* /usr/local/*bin/ip*tables* /usr/local/*bin/nftcni
echo e2e >/etc/hostname
printf '127.0.0.1 localhost\\n' >/etc/hosts
printf 'nameserver 198.51.100.53\\n' >/etc/resolv.conf
"""
# The first process of the host: it collects what dies, as init does.
INIT = "mount -t proc proc /proc; ip link set lo up; while :; do sleep 3600 & wait; done"
PATH = f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REFERENCE_PLUGINS = ("bridge", "firewall", "host-local", "loopback", "macvlan", "portmap", "ptp", "static", "tuning")
OURS = re.compile("/usr/local/lib/nftcni/|/opt/(nft)?cni/bin/nftcni$", re.MULTILINE)
CGROUPS = Path("/sys/fs/cgroup")


class Machine(Host):
    def __init__(self) -> None:
        super().__init__()
        self.env = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "XDG_RUNTIME_DIR": "/run"}
        self.run("sh", "-ec", FRESH)
        self.lan = self.neighbour()
        self._outer = self.pid
        self._cgroups = cgroups()
        words = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "sh", "-ec", INIT]
        self._init = self.popen(*words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        children = Path(f"/proc/{self._init.pid}")
        self.pid = wait_for(lambda: _descendant(children), "the first process of the scratch host")
        wait_for(lambda: self.call("test", "-d", "/proc/1/ns").returncode == 0, "its /proc")

    def popen(self, *words: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """On the host that is being made, then with its processes."""
        if not hasattr(self, "_init"):
            return super().popen(*words, env=env, **options)
        enter = ["nsenter", "-t", str(self.pid), "--net", "--mount", "--pid", "--", "env", "--chdir=/", *words]
        return subprocess.Popen(enter, env={**self.env, **(env or {})}, text=True, **options)

    def foreign(self) -> list[str]:
        """What would do the plugin's work for it: iptables that is not our answerer, reference plugins."""
        named = ["-name", "ip*tables*", "-o", "-name", "xtables*"]
        found = self.run("find", *PATH.split(":")[1:], "(", *named, ")").split()
        plugins = [word for name in REFERENCE_PLUGINS for word in ("-o", "-name", name)][1:]
        places = ("/opt", "/usr/lib", "/usr/libexec", "/usr/local")
        found += self.run(
            "find", *places, "(", "-type", "l", "-o", "-perm", "/111", "!", "-type", "d", ")", "(", *plugins, ")"
        ).split()
        return sorted(path for path in found if not OURS.match(self.run("readlink", "-f", path)))

    def shell(self, line: str, image: str = "who") -> str:
        """A line of the README, in the checkout."""
        return self.run("sh", "-ec", f"cd {CHECKOUT}; {line.replace('IMAGE', image)}")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        place = self.file(path)
        self.run("mkdir", "-p", str(Path(path).parent))
        place.write_text(text)
        place.chmod(mode)

    def start(self, name: str, *words: str) -> None:
        """A service; what it says goes to /run/NAME.log, its number on this host to /run/NAME.pid."""
        script = f'echo $$ >/run/{name}.pid; exec "$@" >>/run/{name}.log 2>&1'
        self.popen("sh", "-c", script, "sh", *words, stdin=subprocess.DEVNULL)

    def stop(self, name: str, signal: str = "TERM") -> None:
        number = self.file(f"/run/{name}.pid").read_text().strip()
        self.run("kill", f"-{signal}", number)
        wait_for(lambda: not self.file(f"/proc/{number}/exe").exists(), f"the end of {name}")

    def inside(self, name: str, pid: str) -> Namespace:
        """The network namespace of a process of this host, which may be in a container."""
        return self.opened(name, f"/proc/{pid}/ns/net")

    def opened(self, name: str, path: str) -> Namespace:
        return self._keep(Namespace(name, path, os.open(self.file(path), os.O_RDONLY)))

    def state(self) -> dict[str, Any]:
        """What a container may change on the host: network, plugin state, processes and what libcni remembers."""
        cached = [path.name for path in self.file("/var/lib/cni").rglob("*") if path.is_file()]
        return {**self.snapshot(), "cached": sorted(cached), "processes": self.processes()}

    def elements(self) -> dict[str, Any]:
        """There are no other tables than ours, and nft lists them without an error."""
        tables = self.run("nft", "list", "tables").splitlines()
        assert set(tables) <= {"table inet nftcni", "table bridge nftcni"}, f"somebody made tables: {tables}"
        if tables:
            self.run("nft", "-j", "list", "table", "inet", "nftcni")
        return super().elements()

    def routes(self) -> list[str]:
        """Without what comes with being an IPv6 router, which a host is from its first container on."""
        return [line for line in super().routes() if not line.startswith("anycast")]

    def processes(self) -> list[str]:
        """What runs on the host, by name; what has ended and is not collected yet has no executable any more."""
        names = []
        for path in self.file("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                os.readlink(path / "exe")
                names.append((path / "comm").read_text().strip())
        return sorted(names)

    def check_unchanged(self, before: dict[str, Any]) -> None:
        """Programs may end a moment after the command that ended them; everything else must be gone by then."""
        wait_for(lambda: self.processes() == before["processes"], f"the end of all but {before['processes']}")
        assert self.state() == before

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 9)
        self._init.wait()
        self.pid = self._outer
        super().close()
        for path in sorted(cgroups() - self._cgroups, key=lambda item: -len(item.parts)):
            with contextlib.suppress(OSError):
                path.rmdir()


def cgroups() -> set[Path]:
    """Runtimes make control groups outside of any namespace."""
    return {Path(folder) for folder, _, _ in os.walk(CGROUPS)}


def _descendant(process: Path) -> int:
    """nsenter becomes unshare, whose only child is the first process."""
    text = (process / "task" / process.name / "children").read_text().split()
    return int(text[0]) if text else 0


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """The condition's first true value. The limit only ends a test that has failed already."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            found = condition()
            if found:
                return found
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def browse(namespace: Namespace, address: str, port: int, timeout: float = 2) -> str:
    """What the image's web server says, `NAME CLIENT`; "refused" for an immediate no, "silence" for none in time."""
    request = b"GET /cgi-bin/who HTTP/1.0\r\n\r\n"
    with open_socket(namespace, socket.AF_INET6 if ":" in address else socket.AF_INET, "tcp") as sock:
        sock.settimeout(timeout)
        try:
            sock.connect((address, port))
            sock.sendall(request)
            with sock.makefile("rb") as answer:
                return answer.read().decode().partition("\r\n\r\n")[2].strip() or "closed"
        except (TimeoutError, socket.timeout):
            return "silence"
        except OSError:
            return "refused"


def start_containerd(machine: Machine) -> None:
    machine.start("containerd", "containerd", "--log-level", "warn")
    wait_for(lambda: machine.call("ctr", "version").returncode == 0, "containerd")
