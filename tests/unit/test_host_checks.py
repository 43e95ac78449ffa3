"""Checks of the whole host for what no scratch host can have: an old kernel, a full connection tracker."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from cni.operate import host_checks


@pytest.mark.parametrize(
    ("release", "old"), [("5.9.0-rc1", True), ("4.19.0-27-amd64", True), ("5.10.0-8-amd64", False), ("6.1", False)]
)
def test_a_kernel_that_is_too_old(monkeypatch: pytest.MonkeyPatch, release: str, old: bool) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    found = host_checks.versions(SimpleNamespace())
    assert [step.kind for step in found] == ["version"] * old
    assert not old or f"{release} is older than 5.10" in found[0].what


@pytest.mark.parametrize(("count", "limit", "near"), [("900", "1000", True), ("899", "1000", False), ("", "", False)])
def test_a_connection_tracker_near_its_limit(count: str, limit: str, near: bool) -> None:
    values = {"netfilter/nf_conntrack_count": count, "netfilter/nf_conntrack_max": limit}
    found = host_checks.conntrack(SimpleNamespace(kernel=SimpleNamespace(sysctl=values.get)))
    assert [step.kind for step in found] == ["conntrack"] * near
    assert not near or found[0].remedy == ("sysctl -w net.netfilter.nf_conntrack_max=2000",)
