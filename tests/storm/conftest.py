"""The suite's one line: how much was attached and killed, and what was left."""

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
            f"storm: {TALLY['attachments']} attachments by {TALLY['processes']} processes at once, "
            f"{TALLY['killed']} killed ({TALLY['killed at work']} amid their work), {TALLY['refused']} ports refused, "
            f"{TALLY['leftovers']} leftovers; GC of {TALLY['collected']} in {TALLY['milliseconds'] / 1000:.1f} s"
        )
