"""Which parts of nf_tables a kernel lacks: each part is a module, which the kernel loads at its first use.

The kernel takes back a batch without an end message (nfnetlink_rcv_batch), so we ask by sending the change itself. It
answers ENOENT for a part that it lacks; for one that it has, it accepts the change or complains of missing attributes
(EINVAL).
"""

from __future__ import annotations

import errno

from . import expressions, messages
from .framing import NLA_F_NESTED as NESTED
from .framing import NLM_F_CREATE, attr, attr_name
from .netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CHAIN, NAT_CHAIN = "plain", "nat"
EXPRESSIONS = {"ct": "nft_ct", "fib": "nft_fib_inet", "nat": "nft_nat", "masq": "nft_masq"}  # with their modules
NFTA_HOOK_PRIORITY = 2
NFTA_LIST_ELEM = 1
PROBE = "nftcni-probe"


def lacking(
    netlink: Netlink, parts_of_rules: dict[str, str] = EXPRESSIONS, more: Sequence[tuple[str, int, bytes]] = ()
) -> list[str]:
    """`what (module)` for each missing part. Changes nothing. `more` are further questions about parts of the table
    PROBE, as (what, message type, payload). Raises OSError."""
    priority = attr(NFTA_HOOK_PRIORITY, (-100).to_bytes(4, "big", signed=True))
    hook = attr(expressions.NFTA_HOOK_HOOKNUM, bytes(4)) + priority
    base = attr(NESTED | expressions.NFTA_CHAIN_HOOK, hook) + attr_name(expressions.NFTA_CHAIN_TYPE, "nat")
    asked = [
        ("tables of the family inet (nf_tables_inet)", messages.NEWTABLE, attr_name(messages.NFTA_TABLE_NAME, PROBE)),
        ("chains", messages.NEWCHAIN, _chain(CHAIN)),
        *((f"{name} ({module})", messages.NEWRULE, _rule(name)) for name, module in parts_of_rules.items()),
        ("chains of the type nat (nft_chain_nat)", messages.NEWCHAIN, _chain(NAT_CHAIN) + base),
        *more,
    ]
    changes = [(kind, NLM_F_CREATE, messages.nfgen() + payload) for _what, kind, payload in asked]
    parts, sequences = messages.batch(changes, netlink.sequence + 1)
    netlink.sequence = sequences[-1] + 1
    errors = netlink.transact(parts[:-1], sequences)
    absent = {error.sequence for error in errors if error.errno in (errno.ENOENT, errno.EOPNOTSUPP)}
    return [what for (what, _kind, _payload), sequence in zip(asked, sequences[1:]) if sequence in absent]


def _chain(name: str) -> bytes:
    return attr_name(expressions.NFTA_CHAIN_TABLE, PROBE) + attr_name(expressions.NFTA_CHAIN_NAME, name)


def _rule(expression: str) -> bytes:
    place = attr_name(messages.NFTA_RULE_TABLE, PROBE) + attr_name(messages.NFTA_RULE_CHAIN, CHAIN)
    one = attr(NESTED | NFTA_LIST_ELEM, attr_name(expressions.NFTA_EXPR_NAME, expression))
    return place + attr(NESTED | messages.NFTA_RULE_EXPRESSIONS, one)
