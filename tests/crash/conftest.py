"""The suite's one line: how many points were tried, and what was left behind over all of them."""

from __future__ import annotations

from collections import Counter

import pytest

TALLY: Counter[str] = Counter()


@pytest.fixture
def tally() -> Counter[str]:
    return TALLY


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY:
        terminalreporter.write_line(
            f"crash: {TALLY['killed']} kill points, {TALLY['injected']} errors injected, "
            f"{TALLY['leftovers']} leftovers, {TALLY['improper']} improper answers"
        )
