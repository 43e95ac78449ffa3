"""The suite's one line: how many sequences and inputs were tried, and what came of them."""

from __future__ import annotations

import pytest
from examples import load_profile
from tally import TALLY

load_profile()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY:
        terminalreporter.write_line(
            f"fuzz: {TALLY['sequences']} sequences of {TALLY['steps']} steps on the kernel, {TALLY['crashes']} of them "
            f"killed, {TALLY['inputs']} inputs to {TALLY['parsers']} parsers, {TALLY['leftovers']} leftovers"
        )
