"""What a verb says besides its answer: lines on stderr, which runtimes put into their log.

If nobody can read them (a closed pipe, a full disk), the verb goes on all the same.
"""

from __future__ import annotations

import sys


def say(message: str) -> None:
    """Writes one line to stderr, if somebody reads it."""
    try:
        sys.stderr.write(f"nftcni: {printable(message)}\n")
        sys.stderr.flush()
    except OSError:
        return


def printable(message: str) -> str:
    """The message without control characters: messages quote values, and a terminal would obey them."""
    return "".join(char if char.isprintable() or char == "\n" else f"\\x{ord(char):02x}" for char in message)
