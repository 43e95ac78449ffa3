"""The figures of a fuzz run and the one line that says them at its end."""

from __future__ import annotations

import pytest

FIGURES = {"sequences": 0, "steps": 0, "parsers": 0, "inputs": 0, "leftovers": 0}


@pytest.fixture
def figures() -> dict[str, int]:
    return FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    findings = len(terminalreporter.stats.get("failed", [])) + len(terminalreporter.stats.get("error", []))
    terminalreporter.write_line(
        "fuzz: {sequences} sequences of {steps} steps replayed on the kernel, {parsers} parsers with {inputs} inputs, "
        "{leftovers} leftovers, ".format(**FIGURES)
        + f"{findings} findings"
    )
