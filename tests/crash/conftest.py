"""The suite's one line: how many points were tried, and what was left behind over all of them.

Two situations run at once (pytest-xdist); the workers' numbers come together here.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

TALLY: Counter[str] = Counter()


@pytest.fixture
def tally() -> Counter[str]:
    return TALLY


@pytest.fixture
def every_error(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--every-error"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-error", action="store_true", help="every error at every call, not one in turn")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tally"] = dict(TALLY)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    TALLY.update(getattr(node, "workeroutput", {}).get("tally", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY:
        terminalreporter.write_line(
            f"crash: {TALLY['killed']} kill points, {TALLY['ways']} ways out of them, "
            f"{TALLY['injected']} errors injected, {TALLY['leftovers']} leftovers, {TALLY['improper']} improper answers"
        )
