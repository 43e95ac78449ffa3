"""Which nft is too old: by what nft of several distributions says of itself, and by programs that say it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from nft.errors import LoadError
from nft.version import PROGRAMS, read_version, refuse_old, said_by


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("nftables v0.9.8 (E.D.S.)\n", (0, 9, 8)),
        ("nftables v1.0.6 (Lester Gooch #5)\n", (1, 0, 6)),
        ("nftables v1.1.3 (Commodore Bullmoose #4)\n", (1, 1, 3)),
        ("nftables v1.10 (x)", (1, 10)),
        ("", ()),
        ("nftables", ()),
        ("nftables v1.0.x", ()),
        ("error: no permission", ()),
    ],
)
def test_reading(said: str, version: tuple[int, ...]) -> None:
    assert read_version(said) == version


def program(folder: Path, said: str) -> str:
    path = folder / "nft"
    path.write_text(f"#!/bin/sh\necho '{said}'\necho noise >&2\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("version", ["0.9.8", "0.9.9", "0.8"])
def test_too_old(tmp_path: Path, version: str) -> None:
    with pytest.raises(LoadError, match=rf"^nft {re.escape(version)} is too old, 1\.0\.0 is needed$"):
        refuse_old(("/nonexistent/nft", program(tmp_path, f"nftables v{version} (x)")))


@pytest.mark.parametrize("said", ["nftables v1.0.0 (x)", "nftables v1.1.3 (x)", "nftables v2.0 (x)", "what?"])
def test_not_refused(tmp_path: Path, said: str) -> None:
    refuse_old((program(tmp_path, said),))


def test_no_nft_is_not_judged() -> None:
    refuse_old(("/nonexistent/nft",))


def test_this_machines_own_leaves_no_descriptor_and_no_child() -> None:
    def held() -> list[object]:
        return [os.listdir("/proc/self/fd"), Path("/proc/thread-self/children").read_text()]

    before = held()
    assert read_version(said_by(PROGRAMS)) == read_version(subprocess.check_output(["nft", "-v"], text=True))
    refuse_old()
    assert held() == before
