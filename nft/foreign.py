"""Other people's tables: which of their chains drop what containers send, whether somebody has seen to it there, and
whether they forward ports of the host.

For STATUS, `doctor` and the last DEL; reads only. A rule that names a bridge in any form counts: what it does is its
author's affair.
"""

from __future__ import annotations

import errno

from . import messages
from .framing import attr
from .netlink import Netlink
from .schema import TABLE


def forward_drops(netlink: Netlink, bridges: list[str]) -> list[str]:
    """Base chains on forward with policy drop, `family table chain`, in tables that name none of the bridges. One
    listing of all chains, and of the rules and sets of such tables. Raises OSError."""
    names = [bridge.encode("utf-8", "surrogateescape") for bridge in bridges if bridge]
    found = []
    for payload in netlink.dump(messages.GETCHAIN, messages.nfgen(0)):
        chain, family = messages.read_chain(payload), payload[0]
        if chain.drops_forward and chain.table != TABLE:
            in_rules = any(_rules_name(netlink, family, chain.table, name) for name in names)
            if not in_rules and not any(_sets_name(netlink, family, chain.table, name) for name in names):
                found.append(f"{chain.family} {chain.table} {chain.name}")
    return found


def dropping_chains(netlink: Netlink, table: str, chain: str) -> list[str]:
    """`family table chain` of chains by that name whose own rules drop something. Raises OSError."""
    found = []
    for family in (2, 10):  # NFPROTO_IPV4 and _IPV6: where iptables keeps its chains
        try:
            payloads = netlink.dump(messages.GETRULE, messages.list_rules(table, family, chain))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            continue
        # Kernels before 5.6 list the whole table.
        rules = [code for owner, code in map(messages.read_rule, payloads) if owner == chain]
        if any(map(messages.drops, rules)):
            found.append(f"{messages.FAMILY_NAMES[family]} {table} {chain}")
    return found


def forwards_ports(netlink: Netlink) -> bool:
    """Whether somebody else's rule leads packets to another address. One listing of all chains, and of the rules of
    tables that translate. Raises OSError."""
    chains = (
        (payload[0], messages.read_chain(payload)) for payload in netlink.dump(messages.GETCHAIN, messages.nfgen(0))
    )
    tables = {(family, chain.table) for family, chain in chains if chain.translates and chain.table != TABLE}
    payloads = (
        payload
        for family, table in tables
        for payload in netlink.dump(messages.GETRULE, messages.list_rules(table, family))
    )
    return any(messages.leads_elsewhere(code) for _chain, code in map(messages.read_rule, payloads))


def _rules_name(netlink: Netlink, family: int, table: str, name: bytes) -> bool:
    """As nft compares an interface's name (16 bytes), as iptables-nft does (with its NUL), or by the beginning of it
    (`br-*`; `br-+` of iptables). One byte alone is more often a protocol's number."""
    forms = [name.ljust(16, b"\0"), name + b"\0", *(name[:length] for length in range(2, len(name) + 1))]
    values = [attr(messages.NFTA_DATA_VALUE, form) for form in forms]
    payloads = netlink.dump(messages.GETRULE, messages.list_rules(table, family))
    rules = map(messages.read_rule, payloads)
    return any(value in code for _chain, code in rules for value in values)


def _sets_name(netlink: Netlink, family: int, table: str, name: bytes) -> bool:
    """Sets and maps of interface names, anonymous ones too; in those of intervals `br-*` begins with `br-`."""
    for found in map(messages.read_set, netlink.dump(messages.GETSET, messages.list_sets(table, family))):
        if not found.names_links:
            continue
        for payload in netlink.dump(messages.GETSETELEM, messages.list_elements(found.name, table, family)):
            for element in messages.read_elements(payload):
                begins = element.key.rstrip(b"\0")
                if name.ljust(16, b"\0") in element.key or found.interval and begins and name.startswith(begins):
                    return True
    return False
