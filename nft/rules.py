"""Rules and chains of any table, iptables-nft's included: read with their handles, deleted in one transaction.

The caller decides which of them may go.
"""

from __future__ import annotations

import errno

from . import expressions, messages
from .errors import KernelError
from .framing import attr, attr_name, attributes, items, text
from .netlink import Netlink
from .stdlib import Struct
from .table import transact
from .value import Value

FAMILIES = {messages.FAMILY_NAMES[number]: number for number in messages.FORWARDING}
DELCHAIN, DELRULE = (messages.SUBSYSTEM | number for number in (5, 8))
NFTA_RULE_HANDLE, NFTA_RULE_USERDATA = 3, 7
_HANDLE = Struct(">Q")


class Chain(Value):
    """A chain by its full name; it prints as `family table name`."""

    family: str
    table: str
    name: str

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


class Rule(Value):
    """`code` holds the expressions. `comment` is nft's comment; iptables keeps its own in an expression."""

    chain: Chain
    handle: int
    code: bytes
    comment: str

    @property
    def target(self) -> str:
        """The chain that the rule jumps or goes to, "" for none."""
        for packed in items(self.code):
            parts = attributes(packed)
            if text(parts.get(expressions.NFTA_EXPR_NAME, b"")) == "immediate":
                immediate = attributes(parts.get(expressions.NFTA_EXPR_DATA, b""))
                data = attributes(immediate.get(expressions.NFTA_IMMEDIATE_DATA, b""))
                name = attributes(data.get(messages.NFTA_DATA_VERDICT, b"")).get(messages.NFTA_VERDICT_CHAIN)
                if name:
                    return text(name)
        return ""

    def compares(self, value: bytes) -> bool:
        """Whether the rule compares something with exactly this value, for example an address."""
        return attr(messages.NFTA_DATA_VALUE, value) in self.code


def tables(netlink: Netlink) -> set[tuple[str, str]]:
    """(family, name) of every table of the FAMILIES."""
    found = (messages.read_table(payload)[0] for payload in netlink.dump(messages.GETTABLE, messages.nfgen(0)))
    return {(messages.FAMILY_NAMES[family], table) for family, table in found if family in messages.FORWARDING}


def rules(netlink: Netlink, family: str, table: str, chain: str = "") -> list[Rule]:
    """The rules of one chain, or of all chains, in their order; [] without the table. Raises KernelError."""
    try:
        payloads = netlink.dump(messages.GETRULE, messages.list_rules(table, FAMILIES[family], chain))
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        return []
    return [_read_rule(family, payload) for payload in payloads]


def _read_rule(family: str, payload: bytes) -> Rule:
    parts = attributes(payload, 4)
    table, chain = (text(parts.get(kind, b"")) for kind in (messages.NFTA_RULE_TABLE, messages.NFTA_RULE_CHAIN))
    return Rule(
        Chain(family, table, chain),
        int.from_bytes(parts.get(NFTA_RULE_HANDLE, b""), "big"),
        parts.get(messages.NFTA_RULE_EXPRESSIONS, b""),
        messages.read_comment(parts.get(NFTA_RULE_USERDATA, b"")),
    )


def chains(netlink: Netlink, family: str, table: str) -> list[Chain]:
    found = map(expressions.read_chain, netlink.dump(messages.GETCHAIN, messages.nfgen(FAMILIES[family])))
    return [Chain(family, chain.table, chain.name) for chain in found if (chain.family, chain.table) == (family, table)]


def has_chain(netlink: Netlink, chain: Chain) -> bool:
    """Asks for the one chain, where `chains` lists all."""
    try:
        netlink.ask(messages.GETCHAIN, _chain(chain))
    except KernelError:
        return False
    return True


def delete(
    netlink: Netlink, rules: list[Rule], chains: list[Chain], tables: list[tuple[str, str]] | None = None
) -> None:
    """Deletes all or nothing: rules, then chains, which must be empty and unused by then, then tables with their
    contents. Raises KernelError."""
    changes = [(DELRULE, 0, _rule(rule)) for rule in rules] + [(DELCHAIN, 0, _chain(chain)) for chain in chains]
    for family, table in tables or ():
        payload = messages.nfgen(FAMILIES[family]) + attr_name(messages.NFTA_TABLE_NAME, table)
        changes.append((messages.DELTABLE, 0, payload))
    errors = transact(netlink, changes)
    if errors:
        raise errors[0]


def _rule(rule: Rule) -> bytes:
    head = messages.nfgen(FAMILIES[rule.chain.family]) + attr_name(messages.NFTA_RULE_TABLE, rule.chain.table)
    head += attr_name(messages.NFTA_RULE_CHAIN, rule.chain.name)
    return head + attr(NFTA_RULE_HANDLE, _HANDLE.pack(rule.handle))


def _chain(chain: Chain) -> bytes:
    head = messages.nfgen(FAMILIES[chain.family]) + attr_name(expressions.NFTA_CHAIN_TABLE, chain.table)
    return head + attr_name(expressions.NFTA_CHAIN_NAME, chain.name)
