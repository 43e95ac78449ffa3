"""The README's table of protections: each line names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_protection_names_a_test() -> None:
    section = (ROOT / "README.md").read_text().partition("\n## Protections\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert len(rows) > 10 and rows[0][-1] == "test"
    for row in rows[2:]:
        named = re.fullmatch(r"`(\w+)`(?:: (.+))?", row[-1])
        assert named, row
        source = (ROOT / "tests" / "kernel" / f"test_{named[1]}.py").read_text()
        words = (named[2] or "").replace(" ", "_")
        assert re.search(rf"^def test_\w*{words}", source, re.MULTILINE), row
