"""Whatever the README shows for a runtime is what some test here runs or writes."""

from __future__ import annotations

from pathlib import Path

import readme

SOURCES = sorted(Path(__file__).parent.glob("*.py"))


def test_every_block_of_the_readme_is_run() -> None:
    shown = readme.blocks()
    assert len(shown) >= 15
    used = set().union(*(readme.used(path.read_text()) for path in SOURCES))
    assert used == shown
