"""The rules of the older iptables, when its program does not do what it should."""

from __future__ import annotations

from pathlib import Path

import pytest

from cni import predecessor
from cni.model.reference import Traces


@pytest.mark.parametrize("failure", ["echo 'Another app is currently holding the xtables lock' >&2; exit 4", None])
def test_a_listing_that_fails_is_told_and_fails_no_del(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], failure: str | None
) -> None:
    """It ended DEL with code 999, whereas a program that is not there is only told."""
    if failure:
        (tmp_path / "iptables-legacy").write_text(f"#!/bin/sh\n{failure}\n")
        (tmp_path / "iptables-legacy").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    predecessor._remove_legacy("iptables-legacy", "nat", Traces("net0", "c1", "eth0"))
    assert "iptables-legacy -w 5 -t nat -S" in capfd.readouterr().err
