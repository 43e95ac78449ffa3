"""firewalld that does not answer."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from cni import firewalld
from nft.addresses import parse_address


def test_who_does_not_answer_is_not_asked_for_each_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute for each of hundreds, under the lock."""
    (tmp_path / "busctl").write_text(f"#!/bin/sh\necho asked >>{tmp_path}/log\nexec sleep 60\n")
    (tmp_path / "busctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(firewalld, "SECONDS", 1)
    monkeypatch.setattr(firewalld, "_silent_until", 0.0)
    item = Mock(zone="trusted", addresses=[parse_address("192.0.2.1"), parse_address("2001:db8::1")])
    assert len(firewalld.problems(item)) == 2
    firewalld.leave(item)
    assert (tmp_path / "log").read_text() == "asked\n"
