"""Runs in the virtual machine: a line of JSON to the host for each check.

A scenario is one file here, a check one test function in it; a new file is named in `suites.SCENARIOS`, a new function
needs nothing else; what it measures it says by `record_property`. It makes its scratch host with `support.scratch` and
asks by `support.traffic`, as the kernel tests do; `scene` has what most of them start from. All of it is emulated on a
machine that may be loaded: what must be heard is waited for with PATIENCE, and nothing is skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scratch import Host

REPORTS = os.environ.get("NFTCNI_REPORTS", "/dev/stderr")  # set in the virtual machine


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "call" and report.passed:
        return
    scenario, _, check = report.nodeid.partition("::")
    line: dict[str, object] = {
        "scenario": Path(scenario).stem,
        "check": check,
        "held": report.passed,
        "words": str(report.longrepr or ""),
    }
    line["figures"] = dict(report.user_properties)
    with open(REPORTS, "a") as file:
        file.write(json.dumps(line) + "\n")


@pytest.fixture
def host() -> Iterator[Host]:
    """A scratch host. (The conftest files above this folder are not read in the virtual machine.)"""
    made = Host()
    try:
        yield made
    finally:
        made.close()
