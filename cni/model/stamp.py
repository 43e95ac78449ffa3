"""The table's comment, which says which rules the table has, of which boot it is, and where its records are. Pure."""

from __future__ import annotations

from nft.schema import COMMENT_LIMIT

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-")


def table_comment(rules: str, boot: str, folder: str) -> str:
    """The comment: the digest of the rules, which change with this plugin's version; the boot, because a saved ruleset
    (`nft list ruleset >/etc/nftables.conf`) brings back an earlier boot's containers; and the folder of the records, if
    it fits. `boot` is `ID.COOKIE`: a host inside another one has that one's boot ID, and a namespace of its own each
    time it is started."""
    text = f"nftcni rules {rules} boot {boot}"
    full = f"{text} records {folder}"
    return full if len(full) <= COMMENT_LIMIT and _PLAIN.issuperset(folder) else text


def is_of_boot(comment: str, boot: str) -> bool:
    """Whether the table was made in this boot and namespace. Earlier versions told the boot's ID alone."""
    return comment.partition(" boot ")[2].partition(" ")[0] in (boot, boot.partition(".")[0])


def records_folder(comment: str, boot: str) -> str:
    """The folder that the comment names, "" if it names none or is of another boot."""
    return comment.partition(" records ")[2] if is_of_boot(comment, boot) else ""
