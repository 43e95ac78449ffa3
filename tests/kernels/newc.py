"""The kernel's initramfs format (Documentation/driver-api/early-userspace/buffer-format.rst): archives of it, written.

Several archives one after the other are one file system, so that parts are made once and put together for each boot.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Callable

HEADER = "070701" + "{:08X}" * 13
DEVICE = stat.S_IFCHR | 0o600


class Archive:
    """An archive that is being written; leaving the block ends it."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._number = 0

    def entry(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._number += 1
        raw = name.encode() + b"\0"
        head = HEADER.format(self._number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(raw), 0).encode()
        self._padded(head + raw)
        self._padded(data)

    def _padded(self, data: bytes) -> None:
        self._file.write(data + bytes(-len(data) % 4))

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        self.entry(name, stat.S_IFREG | mode, data)

    def folder(self, name: str) -> None:
        self.entry(name, stat.S_IFDIR | 0o755)

    def tree(self, root: Path, below: str = "", wanted: Callable[[str], bool] = lambda name: True) -> None:
        """Files, folders and links; `wanted` is asked with the path from `root`, a refused folder is left out whole."""
        for item in sorted(os.scandir(root), key=lambda item: item.name):
            name = f"{below}/{item.name}".lstrip("/")
            if not wanted(name):
                continue
            mode = item.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                self.entry(name, mode, os.readlink(item.path).encode())
            elif stat.S_ISDIR(mode):
                self.entry(name, mode)
                self.tree(Path(item.path), name, wanted)
            elif stat.S_ISREG(mode):
                self.entry(name, mode, Path(item.path).read_bytes())

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.entry("TRAILER!!!", 0)
        self._padded(b"")
        self._file.close()
