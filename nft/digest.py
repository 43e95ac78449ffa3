"""The one hash. It stands for an attachment in the table, for the loaded rules, and for names that are too long."""

from __future__ import annotations

from .stdlib import blake2b


def digest(*parts: str, size: int = 16) -> bytes:
    """A hash of `size` bytes over all parts; a NUL between them keeps ("ab", "c") apart from ("a", "bc")."""
    return blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=size).digest()
