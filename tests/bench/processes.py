"""Processes and network namespaces: starting one with little overhead, timing it to its end, being in a namespace.

Everything here runs inside the scratch host. What is measured with it is `worker`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
PR_SET_CHILD_SUBREAPER = 36
FOLDER = Path("/run/bench")
BARE = ["/usr/bin/python3", "-IS", "-c", "pass"]  # as the plugin is started
_libc = ctypes.CDLL(None, use_errno=True)


class CallFailed(Exception):
    """A plugin, or a program that prepares for it, ended with another exit status than 0."""


def _checked(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


@dataclass
class Space:
    """A network namespace with a path of its own, as runtimes make it."""

    name: str
    path: str
    fd: int

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _checked(_libc.setns(self.fd, CLONE_NEWNET), "setns")
            yield
        finally:
            _checked(_libc.setns(home, CLONE_NEWNET), "setns")
            os.close(home)


def new_space(name: str) -> Space:
    path = f"/run/netns/{name}"
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.unshare(CLONE_NEWNET), "unshare")
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        _checked(_libc.mount(b"/proc/self/ns/net", path.encode(), b"none", MS_BIND, None), "mount")
    finally:
        _checked(_libc.setns(home, CLONE_NEWNET), "setns")
        os.close(home)
    return Space(name, path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def run(*words: str, text: str = "") -> str:
    """A program that prepares something."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CallFailed(
            f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout


@dataclass
class Call:
    """One process: what it is given. `out` gets its stdout, `err` its stderr; both are files on tmpfs."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    stdin: str = "/dev/null"
    out: str = str(FOLDER / "out")
    err: str = str(FOLDER / "err")

    def start(self) -> int:
        write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, self.stdin, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, self.out, write, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, self.err, write, 0o600),
        ]
        return os.posix_spawn(self.argv[0], self.argv, self.env, file_actions=actions)

    def check(self, status: int) -> None:
        if status:
            said = Path(self.out).read_text()[-1500:] + Path(self.err).read_text()[-1500:]
            verb = self.env.get("CNI_COMMAND", "")
            raise CallFailed(f"{' '.join(self.argv)} {verb}: wait status {status}\n{said}")

    def __call__(self) -> None:
        self.check(os.waitpid(self.start(), 0)[1])

    def peak(self) -> int:
        """Its largest memory in KiB. An intermediate shell forks it: what a process was before its exec counts too,
        and this interpreter would be the larger one."""
        _checked(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")
        words = ["/bin/sh", "-c", 'i=$1 o=$2; shift 2; "$@" <"$i" >"$o" 2>&1 &', "sh", self.stdin, self.out, *self.argv]
        shell = os.posix_spawn(words[0], words, self.env)
        largest = 0
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, 0)
                self.check(status)
                if pid != shell:
                    largest = max(largest, usage.ru_maxrss)
        _checked(_libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0), "prctl")
        return largest


class Series:
    """Samples of one thing, in milliseconds unless its user says otherwise."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def time(self, call: Call) -> None:
        start = time.perf_counter()
        call()
        self.values.append((time.perf_counter() - start) * 1e3)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles."""
        if len(self.values) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    def summary(self) -> dict[str, float]:
        low, high = self.spread
        return {"samples": len(self.values), "median": self.median, "low": low, "high": high, "min": min(self.values)}
