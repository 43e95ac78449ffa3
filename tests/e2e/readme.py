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


def settings(name: str, kind: str = "toml") -> str:
    """The section's file in TOML, or in the language that is named."""
    return str(next(body for language, body in BLOCK.findall(section(name)) if language == kind))


def blocks() -> set[tuple[str, str, int]]:
    """(section, language, number) of every block that is shown for a runtime."""
    text = (CHECKOUT / "README.md").read_text()
    runtimes = text[text.index("\n## Runtimes\n") :].split("\n## ")[1]
    found = set()
    for name in re.findall(r"^### (.+)$", runtimes, re.MULTILINE):
        languages = [language for language, _ in BLOCK.findall(section(name))]
        found |= {(name, language, languages[:at].count(language)) for at, language in enumerate(languages)}
    return found


def used(source: str) -> set[tuple[str, str, int]]:
    """The blocks that a test file runs or writes, by its text."""
    shown = re.findall(r'readme\.commands\("([^"]+)"(?:, (\d))?\)', source)
    files = re.findall(r'readme\.settings\("([^"]+)"(?:, "(\w+)")?\)', source)
    return {(name, "sh", int(number or 0)) for name, number in shown} | {
        (name, kind or "toml", 0) for name, kind in files
    }
