"""The one hash: stands for an attachment in the table, for rules as they were loaded, for names that do not fit."""

from __future__ import annotations

from .stdlib import blake2b


def digest(*parts: str, size: int = 16) -> bytes:
    """A hash of the parts as a whole; NUL keeps ("ab", "c") apart from ("a", "bc")."""
    return blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=size).digest()
