"""A match in nft's language that a user wrote: it must hold nothing but a match. Pure.

libnftables parses the words; this refuses whatever would turn the text into more than a match.
"""

from __future__ import annotations

LIMIT = 240  # characters
STATEMENTS = (
    *("accept", "drop", "reject", "return", "continue", "queue", "jump", "goto", "vmap", "dnat", "snat", "masquerade"),
    *("redirect", "tproxy", "notrack", "dup", "fwd", "synproxy", "set", "add", "update", "delete", "comment"),
    # These change their own rule with each packet, which would look as if somebody had edited the rules.
    *("counter", "quota", "last", "log", "reset"),
)


def parse_match(text: str) -> str:
    """The text with single spaces. Raises ValueError for a statement, a second command, or what is not printable."""
    text = " ".join(word for word in text.split(" ") if word)
    if len(text) > LIMIT:
        raise ValueError(f"longer than {LIMIT} characters")
    outside = "".join(text.split('"')[::2])
    if not (text.isascii() and text.isprintable()) or set(text) & set(";#'\\`$") or text.count('"') % 2:
        raise ValueError("holds a character that no match in nft's language needs")
    if not _is_balanced(outside):
        raise ValueError("its braces do not match")
    words = set(STATEMENTS).intersection(outside.replace("{", " ").replace("}", " ").split())
    if words:
        raise ValueError(f"{min(words)} is a statement, not a match")
    return text


def _is_balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth not in (0, 1):
            return False
    return depth == 0
