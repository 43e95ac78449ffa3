"""Conditions of published ports: a chain `when_ID` for each condition's text, and the two jumps that lead to them.

The maps `gated` send a packet for a port with a condition to the condition's chain. A packet that matches returns and
meets the port's DNAT; every other packet leaves the hook. The chains and jumps are in the table only while a network
asks for them, so that other packets do not pay for the look-up. A chain's rules carry its text as comments, which
survive the loss of the state folder.
"""

from __future__ import annotations

from . import expressions, rules
from .match import LIMIT
from .netlink import Netlink
from .rules import Chain, Rule
from .ruleset import GATE
from .schema import GATES, TABLE, WHEN, condition_chain
from .table import Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

HOOKS = ("nat_prerouting", "nat_output")
PART = LIMIT // 2  # characters of the text in the comment of each of the chain's two rules; nft allows 128
NOBODY = "th dport 0"  # a condition that no packet meets


def has_chain(netlink: Netlink, text: str) -> bool:
    return rules.has_chain(netlink, _chain(condition_chain(text)))


def is_closed(netlink: Netlink, text: str) -> bool:
    """Whether the chain exists without a match in it, because it was loaded as `closed`."""
    found = rules.rules(netlink, "inet", TABLE, condition_chain(text))
    return bool(found) and expressions.expression_names(found[0].code) == {"immediate"}


def probe_text(*texts: str) -> str:
    """A separate table with these matches, which libnftables parses and does not load."""
    found = "".join(f"\t\t{text} return\n" for text in texts)
    return f"table inet {TABLE}_probe {{\n\tchain when {{\n{found}\t}}\n}}\n"


def loading_text(texts: Iterable[str], closed: frozenset[str] = frozenset()) -> str:
    """Commands that add these conditions' chains to a table that has none of them. No packet meets a `closed` one."""
    found = ""
    for text in texts:
        chain = f"inet {TABLE} {condition_chain(text)}"
        first, second = (part.replace('"', "'") for part in (text[:PART], text[PART:]))
        found += f"add chain {chain}\n"
        match = "accept" if text in closed else f"{text} return"
        found += f'add rule {chain} {match} comment "{first}"\n'
        found += f"add rule {chain} accept" + (f' comment "{second}"\n' if second else "\n")
    return found


def hooking_text() -> str:
    """Commands that add the jumps to a table that has none."""
    return "".join(f"insert rule inet {TABLE} {chain} fib daddr type local jump {GATE}\n" for chain in HOOKS)


def hooks(netlink: Netlink) -> list[Rule]:
    return [rule for chain in HOOKS for rule in rules.rules(netlink, "inet", TABLE, chain) if rule.target == GATE]


def read_texts(netlink: Netlink) -> dict[str, str]:
    """The text of each condition in the table, by its chain's name."""
    found: dict[str, str] = {}
    for rule in rules.rules(netlink, "inet", TABLE):
        if rule.chain.name.startswith(WHEN):
            found[rule.chain.name] = found.get(rule.chain.name, "") + rule.comment.replace("'", '"')
    return {name: text for name, text in found.items() if condition_chain(text) == name}


def remove(table: Table) -> None:
    """Deletes the chains that no element leads to, and the jumps with the last chain.

    Elements decide and records do not: a killed ADD, or one whose record was lost, leaves a chain that no record names.
    """
    used = {element.data.decode() for element in table.elements(GATES)}
    there = rules.chains(table.netlink, "inet", TABLE)
    chains = [chain for chain in there if chain.name.startswith(WHEN) and chain.name not in used]
    gone = [
        rule
        for rule in rules.rules(table.netlink, "inet", TABLE)
        if rule.chain in chains or (not used and rule.target == GATE)
    ]
    rules.delete(table.netlink, gone, chains)


def _chain(name: str) -> Chain:
    return Chain("inet", TABLE, name)
