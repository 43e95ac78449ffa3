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


@pytest.mark.parametrize(
    ("answer", "runs", "said"),
    [
        ("Call failed: UNKNOWN_SOURCE: '192.0.2.1/32' not in any zone", True, False),
        ("Call failed: The name org.fedoraproject.FirewallD1 was not provided", False, False),
        ("Call failed: COMMAND_FAILED: nft: out of memory", True, True),
    ],
)
def test_an_address_that_stays_in_its_zone_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], answer: str, runs: bool, said: bool
) -> None:
    """Its next owner would be trusted, and nobody knew why."""
    monkeypatch.setattr(firewalld, "_silent_until", 0.0)
    monkeypatch.setattr(firewalld, "_call", Mock(return_value=(1, answer)))
    monkeypatch.setattr(firewalld, "is_running", Mock(return_value=runs))
    firewalld.leave(Mock(zone="trusted", addresses=[parse_address("192.0.2.1")]))
    told = capfd.readouterr().err
    assert ("192.0.2.1/32 stays in the zone trusted" in told and "COMMAND_FAILED" in told) if said else told == ""
