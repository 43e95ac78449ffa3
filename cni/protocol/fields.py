"""Reads typed fields from a JSON object; errors name the key's path and the value.

Keys match without regard to case, as in Go's decoder: go-cni sends `HostPort` (containerd/go-cni types.go has no json
tags) where podman sends `hostPort`. `null` counts as absent (kubernetes#92811). `config`, `ranges` and `ports` know
what the keys mean.
"""

from __future__ import annotations

from cni.protocol.errors import INVALID_CONFIG, CniError
from cni.protocol.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from cni.protocol.jsontext import Json

    T = TypeVar("T")


def quote(value: object) -> str:
    """A value for a message: JSON, cut at 120 characters so that the message stays on one line."""
    text = dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."


class Fields:
    """One JSON object and its path in the document. Every reader raises CniError 7 for a wrong type or value."""

    def __init__(self, value: Json, path: str = "") -> None:
        if not isinstance(value, dict):
            raise CniError(INVALID_CONFIG, f"{path or 'the document'} must be an object, not {quote(value)}")
        self.path = path
        self._values = {key.lower(): item for key, item in value.items() if item is not None}

    def name(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str, problem: str) -> CniError:
        return CniError(INVALID_CONFIG, f"{self.name(key)}: {quote(self._values.get(key.lower()))}: {problem}")

    def has(self, key: str) -> bool:
        return key.lower() in self._values

    def raw(self, key: str) -> Json:
        return self._values.get(key.lower())

    def text(self, key: str, default: str = "") -> str:
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.fail(key, "must be a string")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fail(key, "must be true or false")
        return value

    def number(self, key: str, default: int, lowest: int, highest: int) -> int:
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(key, "must be a whole number")
        if not lowest <= value <= highest:
            raise self.fail(key, f"must be from {lowest} to {highest}")
        return value

    def section(self, key: str) -> Fields:
        """The object under `key`, an empty one if it is absent."""
        value = self.raw(key)
        return Fields({} if value is None else value, self.name(key))

    def items(self, key: str) -> Iterator[tuple[str, Json]]:
        """Yields (path, value) of each entry of the list under `key`; an absent list is empty."""
        value = self.raw(key)
        if value is None:
            return
        if not isinstance(value, list):
            raise self.fail(key, "must be a list")
        for index, item in enumerate(value):
            yield f"{self.name(key)}[{index}]", item

    def sections(self, key: str) -> Iterator[Fields]:
        for path, item in self.items(key):
            yield Fields(item, path)

    def texts(self, key: str) -> tuple[str, ...]:
        found = []
        for path, item in self.items(key):
            if not isinstance(item, str):
                raise CniError(INVALID_CONFIG, f"{path}: {quote(item)}: must be a string")
            found.append(item)
        return tuple(found)

    def parsed(self, key: str, parse: Callable[[str], T]) -> T | None:
        """The string under `key`, parsed by `parse`, whose ValueError becomes the message; None if absent or ""."""
        text = self.text(key)
        if not text:
            return None
        try:
            return parse(text)
        except ValueError as problem:
            raise self.fail(key, str(problem)) from None

    def asked(self, key: str, neutral: tuple[Json, ...]) -> str:
        """`key: value` for the message about a key, "" if it is absent or has one of the `neutral` values."""
        value = self.raw(key)
        if value is None or any(value == item and type(value) is type(item) for item in neutral):
            return ""
        return f"{self.name(key)}: {quote(value)}"
