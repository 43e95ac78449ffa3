"""Breaking the plugin at one system call: which calls a verb makes, and running it with one of them killed or failed.

strace counts the calls of each name for each process; a SIGKILL lands on the entry of the call, so that call N is not
executed and everything before it is. A call of the interpreter's own start is none of ours to survive. A child lives on
when its parent is killed, as it would anywhere.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.scratch import PLUGIN, Answer, Host, Json

# What changes something outside the process, or may block. fork is clone on most machines, symlink symlinkat on some.
CALLS = (
    *("openat", "write", "rename", "unlink", "rmdir", "mkdir", "symlink", "flock", "setns", "socket", "bind"),
    *("sendto", "sendmsg", "recvfrom", "recvmsg", "clone", "wait4", "setsockopt"),
    *("pipe2", "read", "close", "clock_nanosleep", "exit_group"),
)
FOR_A_KILL_ONLY = ("close", "clock_nanosleep", "exit_group")
# These change nothing outside the process: what is there when one of them is killed is there as well when the next call
# is that does. One way out of each is enough.
ONLY_WAIT = ("recvfrom", "recvmsg", "wait4", "read", "setsockopt", "socket", "bind", *FOR_A_KILL_ONLY)
END = "/run/strace.end"
CHILDREN = str(Path(__file__).with_name("children.py"))
OURS = re.compile(r'^\w+\(.*"(/run/(?!bin/)|/proc/|/dev/null|/etc/machine-id)')  # of openat, not its own start
WAITED_FOR = re.compile(r"^\w+\(\d+<(pipe|socket|/run/)")  # of read and close: not Python's reading of its modules
# What these calls do give in practice; of the others the plugin must know as little as the kernel tells.
ERRORS = {
    "openat": ("EMFILE", "EIO", "ENOMEM", "EPERM", "ENOSPC", "EROFS"),
    "write": ("ENOSPC", "EIO", "EINTR"),
    "rename": ("ENOSPC", "EROFS", "EIO"),
    "unlink": ("EROFS", "EIO", "EPERM"),
    "rmdir": ("EROFS", "EIO"),
    "mkdir": ("ENOSPC", "EROFS", "EPERM"),
    "symlink": ("ENOSPC", "EROFS", "EIO"),
    "flock": ("EINTR", "ENOMEM", "EIO"),
    "setns": ("EPERM", "ENOMEM"),
    "socket": ("EMFILE", "ENOMEM", "EPERM"),
    "bind": ("ENOMEM",),
    "sendto": ("ENOBUFS", "ENOMEM", "EPERM"),
    "sendmsg": ("ENOBUFS", "ENOMEM"),
    "recvfrom": ("ENOBUFS", "ENOMEM", "EINTR"),
    "recvmsg": ("ENOMEM", "EINTR"),
    "clone": ("ENOMEM", "EAGAIN"),
    "wait4": ("EINTR",),
    "setsockopt": ("ENOMEM",),
    "pipe2": ("EMFILE",),
    "read": ("EIO",),
}
EVERY = ("ENOSPC", "EROFS", "EMFILE", "ENOMEM", "ENOBUFS", "EINTR", "EIO", "EPERM")


@dataclass(frozen=True)
class Point:
    """The `number`-th call of that name in the plugin's own process, or in each child that it forks."""

    call: str
    number: int
    child: bool = False

    def __str__(self) -> str:
        return f"{self.call}#{self.number}" + (" of a child" if self.child else "")


@dataclass
class Run:
    """One command line of the plugin: a verb with its configuration, or an operator's command."""

    verb: str
    config: Json
    ifname: str = "eth0"
    plugin: str = PLUGIN
    words: tuple[str, ...] = ()

    def command(self, host: Host, prefix: tuple[str, ...]) -> Answer:
        variables: dict[str, str] = {}
        if self.verb:
            variables = {
                **{"CNI_COMMAND": self.verb, "CNI_CONTAINERID": "c1", "CNI_IFNAME": self.ifname},
                **{"CNI_NETNS": "/run/netns/c1", "CNI_PATH": "/run/bin"},
            }
        text = json.dumps(self.config) if self.config is not None else ""
        done = host.call(*prefix, self.plugin, *self.words, input=text, env=variables)
        return Lenient(done.returncode, done.stdout, done.stderr)


class Lenient(Answer):
    """stdout may be cut off, or a command's text."""

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
        except ValueError:
            self.document = None


def points(host: Host, run: Run) -> list[Point]:
    """Every call of the run that is ours, in the order of names and numbers, its children's last. The run takes
    effect."""
    path = "/run/strace.log"
    answer = run.command(host, ("strace", "-f", "-qq", "-y", "-o", path, "-e", "trace=execve," + ",".join(CALLS)))
    assert answer.status == 0, answer.stdout + answer.stderr
    counts: dict[tuple[str, str], int] = {}
    found: dict[Point, None] = {}
    lines = host.file(path).read_text(errors="replace").splitlines()
    first = lines[0].partition(" ")[0]
    others = {line.partition(" ")[0] for line in lines[1:] if "execve(" in line} - {first}  # programs that are not ours
    for line in lines:
        process, _, rest = line.partition(" ")
        match = re.match(r"\s*(\w+)\(", rest)
        if not match or process in others or match.group(1) == "execve" or "resumed>" in rest.split("(")[0]:
            continue
        name = match.group(1)
        counts[process, name] = counts.get((process, name), 0) + 1
        wanted = {"openat": OURS, "read": WAITED_FOR, "close": WAITED_FOR}.get(name)
        if wanted is None or wanted.search(rest.strip()):
            found[Point(name, counts[process, name], process != first)] = None
    return sorted(found, key=lambda point: (point.child, CALLS.index(point.call), point.number))


def killed(host: Host, run: Run, point: Point) -> bool:
    """Whether it came to that: how often a process asks whether a link is gone is not the same each time."""
    end = host.file(END)
    end.unlink(missing_ok=True)
    broken(host, run, point, "signal=KILL")
    for _ in range(20 if point.child else 1):  # a child's tracer may still be writing
        if end.exists() and "killed by SIGKILL" in end.read_text():
            return True
        time.sleep(0.01)
    return False


def failed(host: Host, run: Run, point: Point, error: str) -> Answer:
    return broken(host, run, point, f"error={error}")


def broken(host: Host, run: Run, point: Point, how: str) -> Answer:
    """Neither follows forks: strace counts for each process, and one fault at a time is what is asked."""
    expression = f"inject={point.call}:{how}:when={point.number}"
    prefix = ("timeout", "--signal=KILL", "20")
    if point.child:
        return run.command(host, (*prefix, "/usr/bin/python3", "-IS", CHILDREN, END, expression, point.call))
    strace = ("strace", "-qq", "-o", END, "-e", f"trace={point.call}", "-e", expression)
    return run.command(host, (*prefix, *strace))


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {key: (one[key], other[key]) for key in one if one[key] != other[key]}
