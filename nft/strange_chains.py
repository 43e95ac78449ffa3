"""Finds chains in our tables that are not as `ruleset` writes them. `table.rules_digest` compares their rules."""

from __future__ import annotations

from . import expressions, messages
from .layer2 import PORTS
from .netlink import Netlink
from .ruleset import CHAINS
from .schema import FAST_PATH, TABLE, WHEN


def strange_chains(netlink: Netlink) -> list[str]:
    """Chains in our tables that are not ours, and policies that somebody changed, as sentences."""
    ours = {words[1] for words in map(str.split, (CHAINS + PORTS).splitlines()) if words[:1] == ["chain"]}
    found = []
    for family in (messages.NFPROTO_INET, messages.NFPROTO_BRIDGE):
        for payload in netlink.dump(messages.GETCHAIN, messages.nfgen(family)):
            chain = expressions.read_chain(payload)
            if payload[0] != family or chain.table != TABLE:
                continue
            name = f"the chain {chain.name} of table {chain.family} {TABLE}"
            if chain.name not in ours and chain.name != FAST_PATH and not chain.name.startswith(WHEN):
                found.append(f"{name} is not ours: it may drop what this table lets pass")
            elif expressions.has_policy_drop(payload):
                found.append(f"{name} has the policy drop")
    return found
