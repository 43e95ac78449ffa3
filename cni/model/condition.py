"""`conditionsV4` and `conditionsV6` of the reference portmap: which packets a network's published ports are for. Pure.

With its nftables backend they are matches in nft's language; how they come into the table is `nft.conditions`.
"""

from __future__ import annotations

from cni.protocol.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from cni.protocol.fields import Fields
from nft.match import parse_match

EXAMPLE = 'write a match as nft does: ["ip daddr != 192.0.2.0/24"]'


def parse_condition(fields: Fields, key: str) -> str:
    """ "" for all packets. Raises CniError 2 for iptables' language, 7 for what is no match."""
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
