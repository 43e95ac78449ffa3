"""How things look on a terminal: columns with a header, and colours if wanted; plain text for programs."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COLOURS = {"red": 31, "green": 32, "yellow": 33, "bold": 1, "dim": 2}
OF_VERDICT = {"ok": "green", "note": "dim", "warn": "yellow", "stop": "red"}


class CannotLook(Exception):
    """The host could not be looked at, so nothing can be said about it."""


def is_terminal() -> bool:
    return sys.stdout.isatty()


def paint(text: str, colour: str) -> str:
    if not is_terminal() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\033[{COLOURS[colour]}m{text}\033[0m"


def columns(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table with a header. Columns are as wide as needed; the last one has no padding."""
    lines = [header, *rows]
    widths = [max(len(line[number]) for line in lines) for number in range(len(header))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    return "\n".join([paint(text[0], "bold"), *text[1:]])


def short_id(container: str) -> str:
    """A long ID's first twelve digits, as runtimes print it, without the namespace that nerdctl puts in front."""
    head, dash, tail = container.rpartition("-")
    if len(tail) == 64 and all(one in "0123456789abcdef" for one in tail):
        return tail[:12] if head in ("", "default") else f"{head}{dash}{tail[:12]}"
    return container


def age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(int(seconds), 0)}s"


def print_json(document: object) -> None:
    import json

    print(json.dumps(document, indent=2))
