"""A match in nft's language that somebody else wrote: nothing in it may be more than a match. Pure.

What its words mean libnftables says, which parses it; here is what would make more of it than a match.
"""

from __future__ import annotations

LIMIT = 240  # characters
STATEMENTS = (
    *("accept", "drop", "reject", "return", "continue", "queue", "jump", "goto", "vmap", "dnat", "snat", "masquerade"),
    *("redirect", "tproxy", "notrack", "dup", "fwd", "synproxy", "set", "add", "update", "delete", "comment"),
    # Numbers that change with each packet would look as if somebody had changed the rules.
    *("counter", "quota", "last", "log", "reset"),
)


def parse_match(text: str) -> str:
    """The text with single spaces. Raises ValueError for a statement, a second command, or what is not printable."""
    text = " ".join(word for word in text.split(" ") if word)
    if len(text) > LIMIT:
        raise ValueError(f"longer than {LIMIT} characters")
    outside = "".join(text.split('"')[::2])
    if not (text.isascii() and text.isprintable()) or set(text) & set(";#'\\`$") or text.count('"') % 2:
        raise ValueError("only what a match in nft's language is written with")
    if not _is_balanced(outside):
        raise ValueError("its braces do not match")
    words = set(STATEMENTS).intersection(outside.replace("{", " ").replace("}", " ").split())
    if words:
        raise ValueError(f"{min(words)} is no match but a statement")
    return text


def _is_balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth not in (0, 1):
            return False
    return depth == 0
