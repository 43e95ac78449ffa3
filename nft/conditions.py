"""Conditions of published ports: for each text a chain `when_ID`, and the two jumps that lead there.

A packet to a port with a condition goes by the maps `gated` to the condition's chain: what matches returns and meets
the port's DNAT, everything else leaves the hook. The chains and the jumps are in the table only while somebody asks for
them, so that nobody else's packets pay for the look-up. A chain's text is in its rules' comments, for a state folder
that was lost.
"""

from __future__ import annotations

from . import messages, rules
from .match import LIMIT
from .netlink import Netlink
from .rules import Chain, Rule
from .ruleset import GATE, WHEN, condition_chain
from .schema import GATES, TABLE
from .table import Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

HOOKS = ("nat_prerouting", "nat_output")
PART = LIMIT // 2  # characters of the text in each of the chain's two rules; nft takes 128 in a comment
NOBODY = "th dport 0"  # a condition that no packet meets


def has_chain(netlink: Netlink, text: str) -> bool:
    return rules.has_chain(netlink, _chain(condition_chain(text)))


def is_closed(netlink: Netlink, text: str) -> bool:
    """Whether the chain is there and asks nothing: it was loaded as `closed`."""
    found = rules.rules(netlink, "inet", TABLE, condition_chain(text))
    return bool(found) and messages.expression_names(found[0].code) == {"immediate"}


def probe_text(*texts: str) -> str:
    """A table of its own, for libnftables to parse and not to load."""
    found = "".join(f"\t\t{text} return\n" for text in texts)
    return f"table inet {TABLE}_probe {{\n\tchain when {{\n{found}\t}}\n}}\n"


def loading_text(texts: Iterable[str], closed: frozenset[str] = frozenset()) -> str:
    """The chains of these conditions, for a table that has none of them; a `closed` one is met by no packet."""
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
    """The jumps, for a table that has none."""
    return "".join(f"insert rule inet {TABLE} {chain} fib daddr type local jump {GATE}\n" for chain in HOOKS)


def hooks(netlink: Netlink) -> list[Rule]:
    return [rule for chain in HOOKS for rule in rules.rules(netlink, "inet", TABLE, chain) if rule.target == GATE]


def read_texts(netlink: Netlink) -> dict[str, str]:
    """Of the chains that are there: the name, and the text of the condition."""
    found: dict[str, str] = {}
    for rule in rules.rules(netlink, "inet", TABLE):
        if rule.chain.name.startswith(WHEN):
            found[rule.chain.name] = found.get(rule.chain.name, "") + rule.comment.replace("'", '"')
    return {name: text for name, text in found.items() if condition_chain(text) == name}


def remove(table: Table) -> None:
    """The chains that no element leads to, and the jumps after the last one. Also those that no record names any more:
    of an ADD that was killed, or whose record was lost."""
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
