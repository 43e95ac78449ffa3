"""The chains, rules and sets of any table, nft's or iptables-nft's, as far as we ask what they do to packets. Pure.

`messages` has our own table's messages; `foreign`, `conditions` and `rules` ask the kernel. Numbers are from
include/uapi/linux/netfilter/{nf_tables,nf_tables_compat}.h.
"""

from __future__ import annotations

from .framing import attr_name, attributes, items, text
from .messages import FAMILY_NAMES, FORWARDING, NFGEN, NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE, nfgen
from .value import Value

NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTA_IMMEDIATE_DATA, NFTA_TARGET_NAME = 2, 1
NFTA_NAT_TYPE, NFT_NAT_DNAT, NFTA_CMP_DATA = 1, 1, 3
UNCONDITIONAL = {"immediate", "reject", "target", "counter", "log"}
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE = 1, 3, 4, 5, 7
NFTA_HOOK_HOOKNUM = 1
NF_INET_FORWARD, NF_DROP = 2, 0
NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_FLAGS, NFTA_SET_KEY_TYPE = 1, 2, 3, 4
NFT_SET_INTERVAL = 4
KIND_BITS, IFNAME_KIND = 6, 41  # nft numbers its types; a concatenation has six bits for each field's number


def list_sets(table: str, family: int) -> bytes:
    return nfgen(family) + attr_name(NFTA_SET_TABLE, table)


class Chain(Value):
    """A chain, and what its type, hook and policy do."""

    family: str
    table: str
    name: str
    on_forward: bool
    drops_forward: bool
    translates: bool


def read_chain(payload: bytes) -> Chain:
    """A chain of any table. `on_forward` is a base chain on the forward hook, `drops_forward` one with policy drop,
    `translates` a chain of type nat."""
    parts = attributes(payload, NFGEN.size)
    hook = attributes(parts.get(NFTA_CHAIN_HOOK, b"")).get(NFTA_HOOK_HOOKNUM, b"")
    on_forward = int.from_bytes(hook, "big") == NF_INET_FORWARD and bool(hook) and payload[0] in FORWARDING
    drops = has_policy_drop(payload)
    table, name = (text(parts.get(kind, b"")) for kind in (NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME))
    translates = text(parts.get(NFTA_CHAIN_TYPE, b"")) == "nat"
    return Chain(
        FAMILY_NAMES.get(payload[0], str(payload[0])), table, name, on_forward, on_forward and drops, translates
    )


def has_policy_drop(payload: bytes) -> bool:
    """Whether a chain is a base chain that drops what none of its rules accepts."""
    policy = attributes(payload, NFGEN.size).get(NFTA_CHAIN_POLICY, b"\1")
    return int.from_bytes(policy, "big") == NF_DROP


def drops(code: bytes) -> bool:
    """Whether a rule with these expressions, nft's or iptables-nft's, drops or rejects what it matches."""
    for packed in items(code):
        parts = attributes(packed)
        name, data = text(parts.get(NFTA_EXPR_NAME, b"")), attributes(parts.get(NFTA_EXPR_DATA, b""))
        if name == "immediate":
            verdict = attributes(attributes(data.get(NFTA_IMMEDIATE_DATA, b"")).get(NFTA_DATA_VERDICT, b""))
            if verdict and int.from_bytes(verdict.get(NFTA_VERDICT_CODE, b"\1"), "big") == NF_DROP:
                return True
        elif name == "reject" or (name == "target" and text(data.get(NFTA_TARGET_NAME, b"")) in ("REJECT", "DROP")):
            return True
    return False


def drops_all(code: bytes) -> bool:
    """Whether a rule with these expressions drops or rejects every packet."""
    return expression_names(code) <= UNCONDITIONAL and drops(code)


def expression_names(code: bytes) -> set[str]:
    return {text(attributes(packed).get(NFTA_EXPR_NAME, b"")) for packed in items(code)}


def compared(code: bytes) -> list[bytes]:
    """The values that a rule with these expressions compares with, directly or after a mask."""
    found = []
    for packed in items(code):
        parts = attributes(packed)
        if text(parts.get(NFTA_EXPR_NAME, b"")) == "cmp":
            data = attributes(attributes(parts.get(NFTA_EXPR_DATA, b"")).get(NFTA_CMP_DATA, b""))
            found.append(data.get(NFTA_DATA_VALUE, b""))
    return found


def leads_elsewhere(code: bytes) -> bool:
    """Whether a rule with these expressions, nft's or iptables-nft's, gives packets another destination (DNAT)."""
    for packed in items(code):
        parts = attributes(packed)
        name, data = text(parts.get(NFTA_EXPR_NAME, b"")), attributes(parts.get(NFTA_EXPR_DATA, b""))
        if name == "nat" and int.from_bytes(data.get(NFTA_NAT_TYPE, b""), "big") == NFT_NAT_DNAT:
            return True
        if name == "target" and text(data.get(NFTA_TARGET_NAME, b"")) == "DNAT":
            return True
    return False


class Set(Value):
    """A set or map of any table; `names_links` says whether its keys hold interface names."""

    name: str
    names_links: bool
    interval: bool


def read_set(payload: bytes) -> Set:
    """A set or map from its NEWSET payload."""
    parts = attributes(payload, NFGEN.size)
    flags, kinds = (int.from_bytes(parts.get(kind, b""), "big") for kind in (NFTA_SET_FLAGS, NFTA_SET_KEY_TYPE))
    fields = (kinds >> shift & (1 << KIND_BITS) - 1 for shift in range(0, 32, KIND_BITS))
    return Set(text(parts.get(NFTA_SET_NAME, b"")), IFNAME_KIND in fields, bool(flags & NFT_SET_INTERVAL))
