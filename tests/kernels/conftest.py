"""Which kernels a run boots, and the table of what was tried, in Markdown, at its end.

In CI one kernel, by the commit, so that all of them have their turn; elsewhere and with --all every one.
"""

from __future__ import annotations

import os
import subprocess

import pytest
from kernels.suites import MACHINES, SCENARIOS, Machine
from kernels.trial import Trial

TRIALS = pytest.StashKey[list[Trial]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="in CI, too: boot every kernel")
    parser.addoption("--scenario", action="append", choices=SCENARIOS, help="this one alone; may be repeated")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TRIALS] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "machine" in metafunc.fixturenames:
        machines = MACHINES if metafunc.config.getoption("--all") or not os.environ.get("CI") else in_turn()
        metafunc.parametrize("machine", machines, ids=[machine.name for machine in machines])


def in_turn() -> tuple[Machine, ...]:
    """One kernel with each userland that it has."""
    words = ["git", "-c", "safe.directory=*", "rev-parse", "HEAD"]
    commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    kernels = sorted({machine.kernel for machine in MACHINES})
    chosen = kernels[int(commit, 16) % len(kernels)]
    return tuple(machine for machine in MACHINES if machine.kernel == chosen)


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> list[Trial]:
    """Of the whole run; a test adds its own."""
    return request.config.stash[TRIALS]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    trials = config.stash[TRIALS]
    if trials:
        terminalreporter.section("what was tried")
        terminalreporter.write_line("| Linux | userland | " + " | ".join(SCENARIOS) + " |")
        terminalreporter.write_line("| --- " * (len(SCENARIOS) + 2) + "|")
        for trial in trials:
            terminalreporter.write_line(trial.row())
        for trial in trials:
            for figure in trial.figures:
                terminalreporter.write_line(figure)
