"""Who holds a socket, while its process opens and closes others."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cni.kernel import listeners


def test_a_descriptor_that_is_closed_meanwhile_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy runtime reserves the port by one socket and closes files all the time."""
    with socket.socket() as held:
        inode = os.fstat(held.fileno()).st_ino
        gone = Path("/proc/self/fd/0").name
        readlink = os.readlink

        def closing(path: str) -> str:
            if path.endswith(f"/{gone}"):
                raise FileNotFoundError(path)
            return readlink(path)

        monkeypatch.setattr(listeners.posix, "readlink", closing)
        assert listeners.holders_of({inode})[inode].process == os.getpid()
