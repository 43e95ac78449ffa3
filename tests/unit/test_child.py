"""A program that is run to its end: what it says and reads, and that it never outlives its caller's patience."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from pathlib import Path

import pytest

from cni.protocol import child

ENVIRONMENT = {b"PATH": os.environb[b"PATH"]}


def script(folder: Path, text: str) -> str:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def has_no_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def test_status_and_words(tmp_path: Path) -> None:
    assert child.run(script(tmp_path, "cat; exit 3"), b"asked", ENVIRONMENT, 10) == (3, b"asked")
    assert child.run(script(tmp_path, "kill -TERM $$"), b"", ENVIRONMENT, 10) == (-signal.SIGTERM, b"")
    assert child.run(script(tmp_path, 'echo "$GREETING"'), b"", {**ENVIRONMENT, "GREETING": "hi"}, 10) == (0, b"hi\n")


def test_arguments_stderr_and_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """busctl says on stderr what is wrong."""
    program = script(tmp_path, 'echo "$#" "$2"; echo wrong >&2')
    words = ("one", "two words")
    assert child.run(program, b"", ENVIRONMENT, 10, words, with_stderr=True) == (0, b"2 two words\nwrong\n")
    assert child.run(program, b"", ENVIRONMENT, 10, words) == (0, b"2 two words\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert child.run("program", b"", ENVIRONMENT, 10)[0] == 0


def test_both_pipes_may_be_full(tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    assert child.run(script(tmp_path, "exec cat"), data, ENVIRONMENT, 30) == (0, data)
    assert child.run(script(tmp_path, "exec 0<&-; echo done"), data, ENVIRONMENT, 30) == (0, b"done\n")


def test_signals_are_as_in_a_shell(tmp_path: Path) -> None:
    """Python ignores SIGPIPE, and a program that inherits that goes on writing for ever."""
    code, output = child.run(script(tmp_path, "grep -E 'SigIgn|SigBlk' /proc/self/status"), b"", ENVIRONMENT, 10)
    ignored = [int(line.split()[1], 16) for line in output.decode().splitlines()]
    assert code == 0 and all(not mask & 1 << (signal.SIGPIPE - 1) for mask in ignored)


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        child.run(script(tmp_path, "echo x"), b"x", ENVIRONMENT, 10)
        with pytest.raises(FileNotFoundError):
            child.run(str(tmp_path / "nothing"), b"", ENVIRONMENT, 10)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("when", ["slow", "slow and silent", "lost"])
def test_what_it_would_do_later_does_not_happen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """After an error the caller undoes what the program did: it must not do more behind its back. One that had closed
    its stdout was waited for without end."""
    close = "exec 1>&-; " if when == "slow and silent" else ""
    program = script(tmp_path, f"{close}sleep 1; touch {tmp_path}/late")
    if when == "lost":

        def refuse() -> object:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(select, "poll", refuse)
    with pytest.raises(OSError if when == "lost" else child.TooLong):
        child.run(program, b"x", ENVIRONMENT, 0.2)
    assert has_no_children()
    time.sleep(1.2)
    assert not (tmp_path / "late").exists()
