"""The fast path: a flowtable and the chain that fills it, in the table only while a network asks for them.

A kernel without nf_flow_table refuses what names a flowtable, so they are no part of the table's text: they are loaded
beside it and taken away again. Which links the flowtable listens on changes with the host; the rules are written once,
and where the flowtable is made anew they are carried over as the kernel's own bytes. Numbers are from
include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from . import messages
from .framing import NLA_F_NESTED as NESTED
from .framing import NLM_F_APPEND, NLM_F_CREATE, attr, attr_name, attributes, items, text
from .lacking import PROBE
from .lacking import lacking as lacking_parts
from .netlink import Netlink, is_missing
from .rules import DELCHAIN, DELRULE
from .ruleset import FAST_PATH
from .schema import TABLE
from .table import Table

NEWFLOWTABLE, GETFLOWTABLE, DELFLOWTABLE = (messages.SUBSYSTEM | number for number in (22, 23, 24))
NFTA_FLOWTABLE_TABLE, NFTA_FLOWTABLE_NAME, NFTA_FLOWTABLE_HOOK, NFTA_FLOWTABLE_FLAGS = 1, 2, 3, 7
NFTA_FLOWTABLE_HOOK_NUM, NFTA_FLOWTABLE_HOOK_PRIORITY, NFTA_FLOWTABLE_HOOK_DEVS = 1, 2, 3
NFTA_DEVICE_NAME = 1
NFT_FLOWTABLE_COUNTER = 2  # what passes is counted in the connection tracker as well
GROUP = 200  # links in one message; the kernel takes 256 (NFT_NETDEVICE_MAX)
EXPRESSIONS = {"flow_offload": "nft_flow_offload"}

Change = tuple[int, int, bytes]


def links(netlink: Netlink) -> list[str] | None:
    """The links that the flowtable listens on, None without a flowtable. The kernel takes out what disappears."""
    try:
        reply = netlink.ask(GETFLOWTABLE, _flowtable())
    except OSError as error:
        if not is_missing(error):
            raise
        return None
    hook = attributes(attributes(reply, 4).get(NFTA_FLOWTABLE_HOOK, b""))
    return [text(name) for name in items(hook.get(NFTA_FLOWTABLE_HOOK_DEVS, b""))]


def lacking(netlink: Netlink) -> list[str]:
    """What the kernel has not of what this takes; nothing is changed. Raises OSError."""
    return lacking_parts(
        netlink, EXPRESSIONS, [("flowtables (nf_flow_table_inet)", NEWFLOWTABLE, _listening_on(PROBE, []))]
    )


def add_links(table: Table, names: list[str]) -> None:
    """To the flowtable that is there. Raises KernelError ENOENT for a link that is not there any more."""
    table.change(_listening(names), f"adding {' '.join(names)} to flowtable {FAST_PATH}")


def renew(table: Table, names: list[str]) -> None:
    """A new flowtable in the place of the one that is there, in one transaction: every flow that it had goes the usual
    way with its next packet, and may come back."""
    place = messages.list_rules(chain=FAST_PATH)
    codes = [code for _chain, code in map(messages.read_rule, table.netlink.dump(messages.GETRULE, place))]
    rules = [
        (messages.NEWRULE, NLM_F_CREATE | NLM_F_APPEND, place + attr(NESTED | messages.NFTA_RULE_EXPRESSIONS, code))
        for code in codes
    ]
    old: list[Change] = [(DELFLOWTABLE, 0, _flowtable())]
    table.change([*_emptying(), *old, *_listening(names), *rules], f"making flowtable {FAST_PATH} anew")


def remove(table: Table) -> None:
    """The chain and the flowtable, with all flows."""
    gone: list[Change] = [(DELCHAIN, 0, _chain()), (DELFLOWTABLE, 0, _flowtable())]
    table.change([*_emptying(), *gone], f"removing flowtable {FAST_PATH}")


def _emptying() -> list[Change]:
    """The chain without rules, whether or not somebody has deleted it by hand."""
    return [(messages.NEWCHAIN, NLM_F_CREATE, _chain()), (DELRULE, 0, messages.list_rules(chain=FAST_PATH))]


def _listening(names: list[str]) -> list[Change]:
    """One message at least: it makes the flowtable where there is none."""
    groups = [names[start : start + GROUP] for start in range(0, len(names) or 1, GROUP)]
    return [(NEWFLOWTABLE, NLM_F_CREATE, messages.nfgen() + _listening_on(TABLE, group)) for group in groups]


def _listening_on(table: str, names: list[str]) -> bytes:
    """With the ingress hook, priority filter. The flags are said each time: without them they would be taken away."""
    devices = b"".join(attr_name(NFTA_DEVICE_NAME, name) for name in names)
    hook = attr(NFTA_FLOWTABLE_HOOK_NUM, bytes(4)) + attr(NFTA_FLOWTABLE_HOOK_PRIORITY, bytes(4))
    hook += attr(NESTED | NFTA_FLOWTABLE_HOOK_DEVS, devices)
    flags = attr(NFTA_FLOWTABLE_FLAGS, NFT_FLOWTABLE_COUNTER.to_bytes(4, "big"))
    return _named(table) + attr(NESTED | NFTA_FLOWTABLE_HOOK, hook) + flags


def _chain() -> bytes:
    head = messages.nfgen() + attr_name(messages.NFTA_CHAIN_TABLE, TABLE)
    return head + attr_name(messages.NFTA_CHAIN_NAME, FAST_PATH)


def _flowtable() -> bytes:
    return messages.nfgen() + _named(TABLE)


def _named(table: str) -> bytes:
    return attr_name(NFTA_FLOWTABLE_TABLE, table) + attr_name(NFTA_FLOWTABLE_NAME, FAST_PATH)
