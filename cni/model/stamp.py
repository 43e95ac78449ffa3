"""The table's comment, which says which rules the table has, of which boot it is, and where its records are. Pure."""

from __future__ import annotations

from nft.schema import COMMENT_LIMIT

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-")


def table_comment(rules: str, boot: str, folder: str) -> str:
    """The comment: the digest of the rules, which change with this plugin's version; the boot ID, because a saved
    ruleset (`nft list ruleset >/etc/nftables.conf`) brings back an earlier boot's containers; and the folder of the
    records, if it fits."""
    text = f"nftcni rules {rules} boot {boot}"
    full = f"{text} records {folder}"
    return full if len(full) <= COMMENT_LIMIT and _PLAIN.issuperset(folder) else text


def is_of_boot(comment: str, boot: str) -> bool:
    return f" boot {boot}" in comment


def records_folder(comment: str, boot: str) -> str:
    """The folder that the comment names, "" if it names none or is of another boot."""
    return comment.partition(f" boot {boot} records ")[2]
