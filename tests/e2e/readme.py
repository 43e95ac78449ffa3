"""The README's sections about runtimes, as data: the tests run the very commands and write the very files it shows."""

from __future__ import annotations

import functools
import re

from support.scratch import CHECKOUT

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@functools.cache
def section(name: str) -> str:
    text = (CHECKOUT / "README.md").read_text()
    found = re.search(rf"^### {re.escape(name)}\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert found, f"the README has no section {name}"
    return found.group(1)


def commands(name: str, block: int = 0) -> list[str]:
    """The lines of one block of shell commands."""
    blocks = [body for language, body in BLOCK.findall(section(name)) if language == "sh"]
    return [line for line in blocks[block].splitlines() if line.strip()]


def settings(name: str) -> str:
    """The section's file in TOML."""
    return str(next(body for language, body in BLOCK.findall(section(name)) if language == "toml"))
