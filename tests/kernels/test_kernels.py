"""Each kernel is booted, and the scenarios of the machine hold on it."""

from __future__ import annotations

import pytest
from kernels.machine import boot
from kernels.suites import Machine
from kernels.trial import Trial

SECONDS = 3000  # some ten times what an idle machine of two cores takes
COMMAND = (
    "PYTHONPATH=.:tests NFTCNI_REPORTS=/dev/ttyS1 python3 -m pytest --confcutdir=tests/kernels/scenarios "
    "-p no:cacheprovider --tb=short --color=no"
)


def test_scenarios(machine: Machine, scenarios: list[str], trials: list[Trial]) -> None:
    names = [name for name in machine.scenarios if name in scenarios]
    if not names:
        pytest.skip(f"NOT RUN: {machine.name} needs --scenario to name one of {', '.join(machine.scenarios)}")
    files = [f"tests/kernels/scenarios/{name}.py" for name in names]
    trial = Trial(machine, boot(machine, f"{COMMAND} {' '.join(files)}", SECONDS))
    trials.append(trial)
    assert not trial.failures, f"{trial.about}\n" + "\n".join(trial.failures)
    assert trial.outcome.status == 0, trial.outcome.console[-5000:]
    assert {item["scenario"] for item in trial.checks} == set(names)
