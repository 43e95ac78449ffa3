"""One value of /proc/sys/net: of any length, empty, missing. Most files here are plain ones; the kernel's are read too.

Which values are wanted is asked in the kernel tests.
"""

from __future__ import annotations

import errno
import os
import posix
from pathlib import Path
from typing import Any

import pytest

from cni.kernel import sysctl

LENGTHS = [0, 1, 63, 64, 65, 4095, 4096, 4097, 8192, 20000]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysctl, "ROOT", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("length", LENGTHS)
def test_a_value_is_read_whole(root: Path, length: int) -> None:
    """net.ipv4.ip_local_reserved_ports and the like used to end after 64 bytes, and never were what was asked."""
    value = ("12345," * length)[:length]
    (root / "key").write_text(value + "\n" if value else "")
    assert sysctl.read("key") == value.strip()


def test_a_value_that_comes_in_pieces(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel gives a page at most at a time, and the end is a short one."""
    (root / "key").write_text("x" * 10000)
    asked: list[int] = []
    read = os.read

    def counting(file: int, size: int) -> bytes:
        asked.append(size)
        return read(file, size)

    monkeypatch.setattr(posix, "read", counting)
    assert sysctl.read("key") == "x" * 10000
    assert len(asked) == 3 and set(asked) == {sysctl.PAGE}


def test_the_kernels_own_long_values() -> None:
    """As cat reads them. tcp_available_congestion_control and the bitmaps of ports may have any length."""
    found = 0
    for path in sorted(Path("/proc/sys/net/ipv4").iterdir()):
        try:
            text = path.read_text()
        except OSError:
            continue
        if path.is_file() and text == path.read_text():  # what changes by itself is no oracle
            assert sysctl.read(f"ipv4/{path.name}") == text.strip(), path
            found += 1
    assert found > 50


def test_empty_and_missing_read_alike_and_are_told_apart(root: Path) -> None:
    """ip_local_reserved_ports is empty on most hosts, and was said not to exist in this kernel."""
    (root / "empty").write_text("\n")
    assert (sysctl.read("empty"), sysctl.read("missing")) == ("", "")
    assert (sysctl.exists("empty"), sysctl.exists("missing")) == (True, False)


@pytest.mark.parametrize("length", LENGTHS[1:])
def test_a_value_is_written_whole(root: Path, length: int) -> None:
    (root / "key").write_text("")
    sysctl.write("key", "y" * length)
    assert (root / "key").read_text() == "y" * length


def test_a_key_that_the_kernel_lacks_is_passed_over(root: Path) -> None:
    sysctl.write("ipv6/conf/all/forwarding", "1")
    assert list(root.iterdir()) == []


def refuse(*_: object) -> Any:
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_refusal_names_key_and_value(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "key").write_text("0\n")
    monkeypatch.setattr(posix, "write", refuse)
    with pytest.raises(OSError) as caught:
        sysctl.write("key", "1")
    assert caught.value.errno == errno.EROFS
    assert f"{root}/key" in str(caught.value) and " 1 " in str(caught.value)


@pytest.mark.parametrize("value", ["1", "8080," * 100 + "9090"])
def test_a_refusal_of_what_is_so_already_is_none(root: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    (root / "key").write_text(value + "\n")
    monkeypatch.setattr(posix, "write", refuse)
    sysctl.write("key", value)
