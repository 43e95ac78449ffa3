"""Conditions of a network's published ports: parsed before anything is changed, in the table while a port has them.

Which ports have one is elements, as everything is; here is the rest, the chains that those lead to (`nft.conditions`).
"""

from __future__ import annotations

import errno

from cni.handles import Handles
from cni.model.attachment import Attachment
from cni.model.condition import EXAMPLE
from cni.protocol.errors import INVALID_CONFIG, IO_FAILURE, CniError, kernel_refused
from cni.protocol.log import say
from nft import conditions
from nft.errors import KernelError, LoadError
from nft.libnftables import parse_text, run_text
from nft.ruleset import condition_chain
from nft.schema import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def refuse_invalid(handles: Handles, condition4: str, condition6: str) -> None:
    """Raises CniError 7 with what nft says of one that it cannot read. What the table has was read before."""
    for key, text in (("conditionsV4", condition4), ("conditionsV6", condition6)):
        netlink = handles.table.netlink
        if not text or (conditions.has_chain(netlink, text) and not conditions.is_closed(netlink, text)):
            continue
        try:
            parse_text(conditions.probe_text(text))
        except LoadError as problem:
            said = str(problem).partition("\n")[0]  # below it nft points at a line of the probe
            raise CniError(INVALID_CONFIG, f'{key}: "{text}" is no match: {said}', EXAMPLE) from None


def ensure(handles: Handles, item: Attachment) -> None:
    """The chains that the attachment's ports are to lead to, and the jumps. May be repeated. Raises CniError 5."""
    netlink = handles.table.netlink
    lacking = [text for text in item.conditions if not conditions.has_chain(netlink, text)]
    commands = conditions.loading_text(lacking)
    if not conditions.hooks(netlink):
        commands += conditions.hooking_text()
    if not commands:
        return
    try:
        handles.change_rules(lambda: run_text(commands))
    except LoadError as problem:
        raise CniError(IO_FAILURE, f"loading the conditions of {item.ident}: {problem}", problem.hint) from None


def unaskable(item: Attachment, error: KernelError) -> Exception:
    """A match is looked at by the kernel once something leads there: not each is for NAT, before routing and on output
    alike (nft_chain_validate)."""
    if error.errno != errno.ENOTSUP or not item.conditions:
        return error
    texts = " and ".join(f'"{text}"' for text in item.conditions)
    what = f"{item.ident}: the kernel cannot ask {texts} where published ports are translated: {error.strerror}"
    return CniError(INVALID_CONFIG, what, "that is before routing, and on output for what this host sends itself")


def whole_text(items: Iterable[Attachment]) -> str:
    """All of it, for a table that is made anew. A condition that this nft cannot read any more lets nothing pass: the
    others are served all the same."""
    texts = list(dict.fromkeys(text for item in items for text in item.conditions))
    if not texts:
        return ""
    return conditions.loading_text(texts, _unreadable(texts)) + conditions.hooking_text()


def _unreadable(texts: list[str]) -> frozenset[str]:
    """One by one only where not all can be read: each is a process."""
    try:
        parse_text(conditions.probe_text(*texts))
        return frozenset()
    except LoadError:
        found = set()
    for text in texts:
        try:
            parse_text(conditions.probe_text(text))
        except LoadError as problem:
            say(f'ports with the condition "{text}" are closed: {problem}')
            found.add(text)
    return frozenset(found)


def release(handles: Handles) -> None:
    """After elements have gone: what no port leads to any more."""
    try:
        handles.change_rules(lambda: conditions.remove(handles.table))
    except OSError as error:
        raise kernel_refused(f"removing conditions from table inet {TABLE}", error) from None


def problems(handles: Handles, item: Attachment) -> list[str]:
    """What keeps an attachment's conditions from being asked: then everybody reaches its ports, or nobody."""
    netlink = handles.table.netlink
    found = [
        f"chain {condition_chain(text)} of table inet {TABLE} is missing"
        for text in item.conditions
        if not conditions.has_chain(netlink, text)
    ]
    found += [
        f'nobody reaches the ports with the condition "{text}": nft could not read it when the table was loaded'
        for text in item.conditions
        if conditions.is_closed(netlink, text)
    ]
    if len(conditions.hooks(netlink)) != len(conditions.HOOKS):
        found.append(f"nothing in table inet {TABLE} leads to the conditions of published ports")
    return found
