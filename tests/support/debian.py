"""Debian packages of any suite, fetched and unpacked beside this machine's own: an apt with its own state.

Signatures are checked against the machine's debian-archive-keyring; the mirror is that of the machine's apt, or
NFTCNI_DEBIAN_MIRROR. No maintainer script runs: `settle` does what those would do for programs that are only run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
SECONDS = 900  # for one call of apt: the slowest is some 200 MB, on a machine that does other things


NOT_NEEDED_OF_PYTHON = ("test", "idlelib", "ensurepip", "lib2to3", "pydoc_data", "turtledemo", "tkinter")
ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "machine-id": "0123456789abcdef0123456789abcdef\n",
}


class Unavailable(Exception):
    """What could not be had, with the tool's own words."""


def run(*words: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        raise Unavailable(
            f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-3000:]}"
        )
    return done.stdout


def mirror() -> str:
    known = run("apt-get", "indextargets", "--format", "$(REPO_URI)").split()
    found = os.environ.get("NFTCNI_DEBIAN_MIRROR") or next((u for u in known if u.rstrip("/").endswith("/debian")), "")
    if not found:
        raise Unavailable("no mirror of Debian in apt's sources; set NFTCNI_DEBIAN_MIRROR")
    return found


class Apt:
    """The apt of one suite in a folder of its own; nothing counts as installed. The packages are this machine's, or
    those of another `architecture`."""

    def __init__(self, suite: str, folder: Path, architecture: str = "") -> None:
        self.archives = folder / "cache" / "archives"
        for path in (folder / "lists" / "partial", self.archives / "partial"):
            path.mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(f"deb [signed-by={KEYS}] {mirror()} {suite} main\n")
        # How the machine reaches its mirror stays (proxies, for example); its hooks and further indexes do not.
        kept = [
            line
            for line in run("apt-config", "dump", "Acquire").splitlines()
            if line.startswith("Acquire::") and not line.startswith("Acquire::IndexTargets")
        ]
        options = {
            "Dir::State": folder,
            "Dir::State::status": folder / "status",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder / "cache",
            "Dir::Etc::Parts": "/dev/null",
            "Dir::Etc::Main": "/dev/null",
            "Dir::Etc::SourceList": folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Acquire::Retries": "3",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
        }
        lines = [f'{key} "{value}";' for key, value in options.items()]
        if architecture:
            lines += [f'APT::Architecture "{architecture}";', "#clear APT::Architectures;"]
            lines += [f'APT::Architectures {{ "{architecture}"; }};']
        (folder / "apt.conf").write_text("\n".join([*kept, *lines, ""]))
        self._env = {"APT_CONFIG": str(folder / "apt.conf")}
        self._run("apt-get", "update", "-qq")

    def _run(self, *words: str) -> str:
        return run(*words, env=self._env)

    def fetch(self, names: Iterable[str]) -> list[Path]:
        """The packages with all that they depend on."""
        self._run("apt-get", "install", "-qq", "-y", "--download-only", *names)
        return sorted(self.archives.glob("*.deb"))

    def fetch_alone(self, name: str) -> Path:
        """The package without what it depends on."""
        before = set(self.archives.glob("*.deb"))
        run("sh", "-c", 'cd "$1" && apt-get download -qq "$2"', "sh", str(self.archives), name, env=self._env)
        return (set(self.archives.glob("*.deb")) - before).pop()

    def dependencies(self, name: str) -> Iterator[str]:
        for line in self._run("apt-cache", "depends", "--important", name).splitlines():
            kind, _, other = line.strip().partition(": ")
            if kind.lstrip("|") == "Depends" and not other.startswith("<"):
                yield other


def unpack(debs: Iterable[Path], root: Path) -> None:
    """Into a tree where /bin, /sbin and /lib* lead into /usr: older packages still have files there."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for deb in debs:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as data:
            tar = ["tar", "-x", "--keep-directory-symlink", "-C", str(root)]
            subprocess.run(tar, stdin=data.stdout, check=True, timeout=SECONDS)
        if data.returncode:
            raise Unavailable(f"{deb.name} cannot be unpacked")


def settle(root: Path, runs_here: bool = True) -> None:
    """What maintainer scripts would have done, as far as programs need it; Python's bytecode with it, which serves
    whatever time its source has. Programs of another processor are not run: this machine's Python makes the bytecode,
    which is the same for all processors, and no use but no harm to a Python of another version."""
    for name, target in (("sh", "dash"), ("awk", "mawk")):
        if not os.path.lexists(root / "usr/bin" / name):
            (root / "usr/bin" / name).symlink_to(target)
    for name, text in ETC.items():
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc" / name).write_text(text)
    if runs_here:
        run("ldconfig", "-r", str(root))
    for unneeded in root.glob("usr/lib/python3*/*"):
        if unneeded.name in NOT_NEEDED_OF_PYTHON:
            shutil.rmtree(unneeded)
    own = f"/usr/lib/{os.readlink(root / 'usr/bin/python3')}"  # there may be parts of other versions
    words = ("python3", "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")
    if runs_here:
        run("chroot", str(root), *words, "/usr/lib/python3", own)
    else:
        run(*words, "-s", str(root), f"{root}/usr/lib/python3", f"{root}{own}")
