"""What the suites with real engines share: the programs, and which of them were run."""

from __future__ import annotations

from collections.abc import Iterator

import programs
import pytest
from lan import Lan


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    made = Lan(2)
    yield made
    made.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    versions = {**programs.surroundings(), **programs.VERSIONS}
    for name, version in sorted(versions.items()):
        terminalreporter.write_line(f"cluster: {name}: {version}")
    for name, problem in sorted(programs.NOT_RUN.items()):
        terminalreporter.write_line(f"cluster: NOT RUN: everything with {name}: {problem}")
