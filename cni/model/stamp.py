"""What the table's comment says of the table: whose rules, of which boot, and where its records are. Pure."""

from __future__ import annotations

from nft.schema import COMMENT_LIMIT

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-")


def table_comment(rules: str, boot: str, folder: str) -> str:
    """What the table says of itself. Which rules it has, for they change with a version of this plugin; the boot ID,
    because a ruleset that was saved to a file (`nft list ruleset >/etc/nftables.conf`) brings the containers of an
    earlier boot back with it; and the folder of its records, if a comment can hold it."""
    text = f"nftcni rules {rules} boot {boot}"
    full = f"{text} records {folder}"
    return full if len(full) <= COMMENT_LIMIT and _PLAIN.issuperset(folder) else text


def is_of_boot(comment: str, boot: str) -> bool:
    return f" boot {boot}" in comment


def records_folder(comment: str, boot: str) -> str:
    """The folder that a table of this boot names, or ""."""
    return comment.partition(f" boot {boot} records ")[2]
