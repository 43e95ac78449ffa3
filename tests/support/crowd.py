"""Somebody who seems to wait for the lock of a host's state folder, so that every DEL makes room and comes back later.

`cni.state.files` says how a waiting process is seen: it has a shared flock on the folder.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

PERIOD = 0.002  # seconds


def name_of(file: os.stat_result) -> str:
    """As /proc/locks calls it."""
    return f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"


def waits(file: os.stat_result, process: int | None = None) -> bool:
    """Whether /proc/locks has a process, or that process, waiting for a flock on this file."""
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1:3] == ["->", "FLOCK"] and words[6] == name_of(file) and process in (None, int(words[5])):
            return True
    return False


class Crowd(threading.Thread):
    """Steps aside whenever a process waits until nobody is there, and is there again afterwards. It ends with the
    folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self._queue = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._queue, fcntl.LOCK_SH)
        self.start()

    def run(self) -> None:
        queue = os.fstat(self._queue)
        while self._folder.exists():
            if waits(queue):
                fcntl.flock(self._queue, fcntl.LOCK_UN)
                while waits(queue):
                    time.sleep(PERIOD)
                fcntl.flock(self._queue, fcntl.LOCK_SH)
            time.sleep(PERIOD)
        os.close(self._queue)
