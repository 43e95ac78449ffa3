"""This library's exceptions; its callers say what they mean to their own users."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .elements import Element


class KernelError(OSError):
    """An errno from the kernel. `sequence` is the number of the message that it refused; `step` says what was tried, ""
    where only the caller knows."""

    sequence = 0
    step = ""


class LoadError(Exception):
    """libnftables refused a ruleset, or crashed on it; `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class TableMissing(Exception):
    """The table, or one of its sets, is not in the kernel."""


class Conflict(Exception):
    """`held`, an element in the table, has the key of `wanted`; `held` is None if it has gone again meanwhile."""

    def __init__(self, wanted: Element, held: Element | None) -> None:
        super().__init__(f"{wanted.set} has the key of an element to be added")
        self.wanted = wanted
        self.held = held
