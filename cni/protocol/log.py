"""What a verb says besides its answer: a line on stderr, which runtimes put into their log.

Nobody may be listening (a closed pipe, a full disk), and that is no reason for a verb to fail.
"""

from __future__ import annotations

import os


def say(message: str) -> None:
    try:
        os.write(2, f"nftcni: {message}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return
