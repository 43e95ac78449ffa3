"""What a verb says besides its answer: a line on stderr, which runtimes put into their log.

Nobody may be listening (a closed pipe, a full disk), and that is no reason for a verb to fail.
"""

from __future__ import annotations

import sys


def say(message: str) -> None:
    try:
        sys.stderr.write(f"nftcni: {message}\n")
        sys.stderr.flush()
    except OSError:
        return
