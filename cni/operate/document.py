"""A configuration file as JSON, and the findings about it, each with its line and column.

`lint` knows what is right or wrong about a network.
"""

from __future__ import annotations

import json
import re
from typing import Any

from nft.addresses import Prefix, parse_prefix
from nft.value import Value

Json = Any
ERROR, WARNING = "error", "warning"
TYPE = "nftcni"


class Finding(Value):
    """A mistake or warning at a line and column of a file."""

    level: str
    line: int
    column: int
    text: str
    hint: str = ""


class Document(Value):
    """A file's text and JSON value, as far as it could be parsed, and its findings."""

    path: str
    text: str
    value: Json
    findings: tuple[Finding, ...]

    @property
    def plugins(self) -> list[dict[str, Json]]:
        """Our plugin objects, in a list or a single configuration."""
        if not isinstance(self.value, dict):
            return []
        listed = self.value.get("plugins")
        entries = listed if isinstance(listed, list) else [self.value]
        return [entry for entry in entries if isinstance(entry, dict) and entry.get("type") == TYPE]

    @property
    def name(self) -> str:
        return str(self.value.get("name", "")) if isinstance(self.value, dict) else ""

    @property
    def subnets(self) -> list[tuple[Prefix, str]]:
        """(subnet, its text in the file) of each of our networks."""
        found = []
        for plugin in self.plugins:
            for text in re.findall(r'"subnet":\s*"([^"]*)"', json.dumps(plugin.get("ipam") or {})):
                try:
                    found.append((parse_prefix(text), text))
                except ValueError:
                    continue
        return found


def parse(path: str, text: str) -> Document:
    """The document. If the text is not a JSON object, it has a finding, and its value is None or what it is instead."""
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates)
    except json.JSONDecodeError as error:
        found = Finding(ERROR, error.lineno, error.colno, f"no JSON: {error.msg}", _json_hint(text, error))
        return Document(path, text, None, (found,))
    except _Duplicate as problem:
        line, column = place(text, str(problem), last=True)
        found = Finding(ERROR, line, column, f'the key "{problem}" occurs twice', "only the last one counts")
        return Document(path, text, None, (found,))
    is_object = isinstance(value, dict)
    return Document(path, text, value, () if is_object else (Finding(ERROR, 1, 1, "a network is a JSON object"),))


class _Duplicate(ValueError):
    pass


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, value in pairs:
        if key in found:
            raise _Duplicate(key)
        found[key] = value
    return found


def _json_hint(text: str, error: json.JSONDecodeError) -> str:
    if not text.strip():
        return "the file is empty"
    if text.startswith("\ufeff"):
        return r"an editor put a byte order mark before it, which is not JSON: sed -i '1s/^\xef\xbb\xbf//' removes it"
    rest = text[error.pos :].lstrip()
    if rest[:2] in ("//", "/*") or rest[:1] == "#":
        return "JSON has no comments"
    if rest[:1] == "," or text[: error.pos].rstrip().endswith(","):
        return "a comma too many"
    if text[error.pos : error.pos + 1] == "'":
        return "JSON has double quotes only"
    return "is a comma or a quote missing before it?" if error.msg.startswith("Expecting") else ""


def place(text: str, word: str, last: bool = False, value: bool = False) -> tuple[int, int]:
    """(line, column) of a key, or of a value, in the file, both from 1."""
    pattern = re.compile(f'"{re.escape(word)}"' + ("" if value else r"\s*:"), re.IGNORECASE)
    matches = list(pattern.finditer(text))
    if not matches:
        return 1, 1
    start = matches[-1 if last else 0].start()
    return text.count("\n", 0, start) + 1, start - (text.rfind("\n", 0, start) + 1) + 1


def at(document: Document, level: str, word: str, text: str, hint: str = "", value: bool = False) -> Finding:
    line, column = place(document.text, word, value=value)
    return Finding(level, line, column, text, hint)
