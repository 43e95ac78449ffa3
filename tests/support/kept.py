"""What tests make once and use again: a folder in the cache, made anew when it is old or its recipe has changed.

The cache is NFTCNI_CACHE, or nftcni in the user's own. A folder that is there is whole: it is made beside and renamed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Callable

DAYS = 30  # what is older is made anew, with the updates that its packages have had


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    found = Path(os.environ.get("NFTCNI_CACHE") or Path(base) / "nftcni")
    found.mkdir(parents=True, exist_ok=True)
    return found


def kept(name: str, of: str, code: list[str], make: Callable[[Path, Path], None]) -> Path:
    """The folder that `make` fills: its second argument; the first one is for its work. It stays the same as long as
    `of`, what it is made of, does, and what is in the files `code`, how it is made."""
    recipe = hashlib.sha256(of.encode() + b"".join(Path(path).read_bytes() for path in code)).hexdigest()
    folder, stamp = cache() / name, cache() / f"{name}.recipe"
    fresh = stamp.exists() and stamp.read_text() == recipe and time.time() - stamp.stat().st_mtime < DAYS * 86400
    if fresh and folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(prefix="making.", dir=cache()) as work:
        made = Path(work) / "made"
        made.mkdir()
        make(Path(work), made)
        stamp.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    stamp.write_text(recipe)
    return folder
