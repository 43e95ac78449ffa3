"""What came of one machine's scenarios: read from the lines that the machine wrote, told as a row of a table."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from kernels.machine import Outcome
from kernels.suites import SCENARIOS, Machine


@dataclass
class Trial:
    machine: Machine
    outcome: Outcome
    about: str = "it did not start"
    checks: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for line in self.outcome.reports:
            if line.startswith("about "):
                self.about = line.partition(" ")[2]
            else:
                self.checks.append(json.loads(line))

    @property
    def failures(self) -> list[str]:
        return [f"{item['scenario']}: {item['check']}\n{item['words']}" for item in self.checks if not item["held"]]

    @property
    def figures(self) -> list[str]:
        linux = self.about.partition(", ")[0]
        return [f"{linux}: {name}: {told}" for item in self.checks for name, told in item["figures"].items()]

    def row(self) -> str:
        linux, _, userland = self.about.partition(", ")
        cells = [linux, f"Debian {self.machine.userland}: {userland}", *map(self._cell, SCENARIOS)]
        return f"| {' | '.join(cells)} |"

    def _cell(self, scenario: str) -> str:
        held = [item["held"] for item in self.checks if item["scenario"] == scenario]
        return f"{sum(held)} of {len(held)}" if held else "-"
