"""Which kernels a run boots, and the table of what was tried, in Markdown, at its end.

In CI one kernel and one of the long scenarios, by the commit, so that all of them have their turn; elsewhere and with
--all every one.
"""

from __future__ import annotations

import pytest
from kernels.suites import LONG, MACHINES, SCENARIOS
from kernels.trial import Trial
from support.turn import in_turn

KERNELS = sorted({machine.kernel for machine in MACHINES})
TRIALS = pytest.StashKey[list[Trial]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="in CI, too: boot every kernel")
    parser.addoption("--scenario", action="append", choices=SCENARIOS, help="this one alone; may be repeated")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TRIALS] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "machine" in metafunc.fixturenames:
        chosen = KERNELS if metafunc.config.getoption("--all") else in_turn(KERNELS, len(KERNELS))
        machines = [machine for machine in MACHINES if machine.kernel in chosen]
        metafunc.parametrize("machine", machines, ids=[machine.name for machine in machines])


@pytest.fixture
def scenarios(request: pytest.FixtureRequest) -> list[str]:
    """Those of this run."""
    config = request.config
    named = config.getoption("--scenario")
    if named or config.getoption("--all"):
        return named or list(SCENARIOS)
    now = in_turn(LONG, len(LONG), len(KERNELS))
    return [name for name in SCENARIOS if name in now or name not in LONG]


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
