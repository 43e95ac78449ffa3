"""What CI does in turn, by the commit: all of it would take too long there. Elsewhere everything is done."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def in_turn(everything: Sequence[T], parts: int, rounds: int = 1) -> Sequence[T]:
    """One of so many equal parts of it, in CI. Two choices are independent if the second one's `rounds` are the first
    one's `parts`."""
    if not os.environ.get("CI"):
        return everything
    words = ["git", "-c", "safe.directory=*", "rev-parse", "HEAD"]
    commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return everything[int(commit, 16) // rounds % parts :: parts]
