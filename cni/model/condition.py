"""`conditionsV4` and `conditionsV6` of the reference portmap: which packets may use a network's published ports. Pure.

With the reference's nftables backend they are matches in nft's language; `nft.conditions` puts them into the table.
"""

from __future__ import annotations

from cni.protocol.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from cni.protocol.fields import Fields
from nft.match import parse_match

EXAMPLE = 'write a match as nft does: ["ip daddr != 192.0.2.0/24"]'


def parse_condition(fields: Fields, key: str) -> str:
    """The match, "" for all packets. Raises CniError 2 for iptables' language, 7 for anything that is not a match."""
    words = fields.texts(key)
    if words and words[0].startswith(("-", "!")):
        raise CniError(
            UNSUPPORTED_FIELD,
            f"{fields.asked(key, ())}: iptables syntax, which nothing on this host reads",
            EXAMPLE,
        )
    text = " ".join(words)
    try:
        return parse_match(text)
    except ValueError as problem:
        raise CniError(INVALID_CONFIG, f'{fields.name(key)}: "{text[:80]}": {problem}', EXAMPLE) from None
