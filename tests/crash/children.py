"""Runs the plugin and breaks the processes that it forks, not itself: children.py LOG EXPRESSION CALL PLUGIN [WORDS].

strace counts calls for each process it traces, so tracing everything would always meet the parent first. Here each
child has a strace of its own attached before it does anything.
"""

from __future__ import annotations

import os
import posix
import sys
import time


def main() -> None:
    log, expression, call, *words = sys.argv[1:]
    fork = posix.fork

    def broken_fork() -> int:
        child = fork()
        if child == 0:
            attach(log, expression, call)
        return child

    posix.fork = broken_fork
    sys.argv = words
    with open(words[0], encoding="utf-8") as file:
        exec(compile(file.read(), words[0], "exec"), {"__name__": "__main__", "__file__": words[0]})


def attach(log: str, expression: str, call: str) -> None:
    """Returns once this process is traced, without a call that strace would count, so the file stays open. The tracer
    has none of the runtime's descriptors."""
    status = os.open("/proc/self/status", os.O_RDONLY)
    command = ["strace", "-qq", "-A", "-o", log, "-e", f"trace={call}", "-e", expression, "-p", str(os.getpid())]
    silent = [(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in (0, 1, 2)]
    os.posix_spawnp("strace", command, os.environ, file_actions=silent)
    while b"\nTracerPid:\t0\n" in os.pread(status, 4096, 0):
        time.sleep(0.001)


main()
