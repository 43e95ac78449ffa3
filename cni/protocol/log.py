"""What a verb says besides its answer: a line on stderr, which runtimes put into their log.

Nobody may be listening (a closed pipe, a full disk), and that is no reason for a verb to fail.
"""

from __future__ import annotations

import sys


def say(message: str) -> None:
    try:
        sys.stderr.write(f"nftcni: {printable(message)}\n")
        sys.stderr.flush()
    except OSError:
        return


def printable(message: str) -> str:
    """Values are quoted in messages, and a terminal obeys control characters."""
    return "".join(char if char.isprintable() or char == "\n" else f"\\x{ord(char):02x}" for char in message)
