"""What every suite shares: scratch hosts that are closed when the test ends, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from support.installed import FRESH
from support.scratch import Host


@pytest.fixture
def host() -> Iterator[Host]:
    """A scratch host. Without root there is nothing to test on: that is an error, not a skip."""
    assert os.geteuid() == 0, "the kernel tests need root: they make network namespaces"
    made = Host()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def fresh(host: Host) -> Host:
    """One on which nothing of nftcni, of the reference plugins and of iptables is installed."""
    host.run("sh", "-ec", FRESH)
    return host


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many broken situations were found and mended as printed."""
    passed = [report.nodeid for report in terminalreporter.stats.get("passed", ())]
    count = sum("test_doctor_" in name and "[" in name for name in passed)
    if count:
        terminalreporter.write_line(f"{count} broken situations were found by explain or doctor and mended as printed")
