"""Other people's tables: which of their chains drop what containers send, and whether they forward ports of the host.

STATUS, `doctor` and the last DEL ask; nothing is changed. A table with a rule that names a bridge, in any form, counts
as one whose owner has provided for containers: what the rule does is its author's business.
"""

from __future__ import annotations

import errno

from . import expressions, messages
from .framing import NLA, attr, attr_name
from .netlink import Netlink
from .schema import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .addresses import Prefix


def forward_drops(netlink: Netlink, bridges: list[str], subnets: list[Prefix] | None = None) -> list[str]:
    """`family table chain` of each base chain on forward with policy drop in a table that names none of the bridges
    and subnets. With `subnets`, also of chains whose last rule drops everything (firewalld's). Raises OSError.

    It lists base chains, then those rules and elements of the tables in question that could name one.
    """
    spans = subnets or []
    names = [bridge.encode("utf-8", "surrogateescape") for bridge in bridges if bridge]
    found = []
    for payload in _base_chains(netlink, "filter"):
        chain, family = expressions.read_chain(payload), payload[0]
        if not chain.on_forward or chain.table == TABLE:
            continue
        if chain.drops_forward or (subnets is not None and _ends_with_a_drop(netlink, family, chain)):
            listed = _rules(netlink, family, chain.table, containing=_told_by(names, spans))
            codes = [code for _chain, code in listed]
            if not (
                any(_names_link(code, name) for name in names for code in codes)
                or any(_lies_in(value, spans) for code in codes for value in expressions.compared(code))
                or _sets_name(netlink, family, chain.table, names, spans)
            ):
                found.append(f"{chain.family} {chain.table} {chain.name}")
    return found


def _base_chains(netlink: Netlink, kind: str) -> list[bytes]:
    """The payloads of the base chains of one type. Only they have a type, and kube-proxy makes thousands of others."""
    return netlink.dump(messages.GETCHAIN, messages.nfgen(0), (attr_name(expressions.NFTA_CHAIN_TYPE, kind),))


def _ends_with_a_drop(netlink: Netlink, family: int, chain: expressions.Chain) -> bool:
    """Whether the chain's last rule drops everything. Kernels before 5.6 list the whole table."""
    rules = [code for owner, code in _rules(netlink, family, chain.table, chain.name) if owner == chain.name]
    return bool(rules) and expressions.drops_all(rules[-1])


def _rules(
    netlink: Netlink, family: int, table: str, chain: str = "", containing: Sequence[bytes] = ()
) -> list[tuple[str, bytes]]:
    listing = messages.list_rules(table, family, chain)
    return list(map(messages.read_rule, netlink.dump(messages.GETRULE, listing, containing)))


def dropping_chains(netlink: Netlink, table: str, chain: str) -> list[str]:
    """`family table chain` of each chain of that name with a rule that drops something. Raises OSError."""
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
        if any(map(expressions.drops, rules)):
            found.append(f"{messages.FAMILY_NAMES[family]} {table} {chain}")
    return found


def forwards_ports(netlink: Netlink) -> bool:
    """Whether somebody else's rule translates a destination. It lists base chains, then the rules of tables with a nat
    chain. Raises OSError."""
    chains = ((payload[0], expressions.read_chain(payload)) for payload in _base_chains(netlink, "nat"))
    tables = {(family, chain.table) for family, chain in chains if chain.translates and chain.table != TABLE}
    payloads = (
        payload
        for family, table in tables
        for payload in netlink.dump(messages.GETRULE, messages.list_rules(table, family))
    )
    return any(expressions.leads_elsewhere(code) for _chain, code in map(messages.read_rule, payloads))


def _names_link(code: bytes, name: bytes) -> bool:
    """Whether a rule compares with this interface's name: in 16 bytes as nft does, with its NUL as iptables-nft does,
    or with the beginning of it (`br-*`; `br-+` of iptables). A single byte is ignored: it is mostly a protocol's
    number."""
    forms = [name.ljust(16, b"\0"), name + b"\0", *(name[:length] for length in range(2, len(name) + 1))]
    return any(attr(messages.NFTA_DATA_VALUE, form) in code for form in forms)


def _lies_in(value: bytes, subnets: list[Prefix]) -> bool:
    """Whether the value is an address in one of the subnets, or the leading bytes of its network: nft compares with
    three bytes for 10.4.0.0/24."""
    for subnet in subnets:
        packed = subnet.network.address.packed
        if len(value) == len(packed):
            if subnet.first <= int.from_bytes(value, "big") <= subnet.last:
                return True
        elif 2 <= len(value) <= subnet.length // 8 and packed.startswith(value):
            return True
    return False


def _told_by(names: list[bytes], subnets: list[Prefix]) -> list[bytes]:
    """Byte strings of which a listing has one wherever `_names_link` or `_lies_in` finds something: the type of a value
    and its first two bytes, whatever its length. They narrow the listing down."""
    beginnings = [name[:2] for name in names]
    beginnings += [subnet.network.address.packed[: min(subnet.length // 8, 2)] for subnet in subnets]
    return [attr(messages.NFTA_DATA_VALUE, beginning)[2 : NLA.size + len(beginning)] for beginning in beginnings]


def _sets_name(netlink: Netlink, family: int, table: str, names: list[bytes], subnets: list[Prefix]) -> bool:
    """Whether a set or map of the table, anonymous ones included, holds one of the names or an address of the subnets.
    In an interval, `br-*` begins with `br-`."""
    for found in map(expressions.read_set, netlink.dump(messages.GETSET, expressions.list_sets(table, family))):
        if not found.names_links and not subnets:
            continue
        told = [] if found.names_links else _told_by([], subnets)
        for payload in netlink.dump(messages.GETSETELEM, messages.list_elements(found.name, table, family), told):
            for element in messages.read_elements(payload):
                if _lies_in(element.key, subnets):
                    return True
                begins = element.key.rstrip(b"\0") if found.interval else b""
                for name in names if found.names_links else ():
                    if name.ljust(16, b"\0") in element.key or begins and name.startswith(begins):
                        return True
    return False
