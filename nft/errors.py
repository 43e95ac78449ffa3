"""What can go wrong here, as exceptions of this library; who calls it says what they mean for its own users."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .elements import Element


class KernelError(OSError):
    """An errno from the kernel. `sequence` says which message of a batch it refused, `step` what was tried, and `hint`
    what may be done, both "" where only the caller knows."""

    sequence = 0
    step = ""
    hint = ""


class LoadError(Exception):
    """libnftables refused a ruleset, or died of it; `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class TableMissing(Exception):
    """The table, or one of its sets, is not in the kernel."""


class Conflict(Exception):
    """Another element has the key of one to be added. `held` is None where it has gone again meanwhile."""

    def __init__(self, wanted: Element, held: Element | None) -> None:
        super().__init__(f"{wanted.set} has the key of an element to be added")
        self.wanted = wanted
        self.held = held
