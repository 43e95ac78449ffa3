"""Conditions of a network's published ports: checked before anything is changed, in the table while a port has one.

Elements say which ports have a condition. This handles the chains to which they lead (`nft.conditions`).
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
from nft.schema import TABLE, condition_chain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def refuse_invalid(handles: Handles, condition4: str, condition6: str) -> None:
    """Raises CniError 7 with nft's error for a condition that it cannot parse. Those in the table were parsed
    before."""
    for key, text in (("conditionsV4", condition4), ("conditionsV6", condition6)):
        netlink = handles.table.netlink
        if not text or (conditions.has_chain(netlink, text) and not conditions.is_closed(netlink, text)):
            continue
        try:
            parse_text(conditions.probe_text(text))
        except LoadError as problem:
            said = str(problem).partition("\n")[0]  # the other lines point into the probe
            raise CniError(INVALID_CONFIG, f'{key}: "{text}" is no match: {said}', EXAMPLE) from None


def ensure(handles: Handles, item: Attachment) -> None:
    """Loads the missing chains of the attachment's conditions, and the jumps. May be repeated. Raises CniError 5."""
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
    """The exception for elements that the kernel refused: CniError 7 if it refused the match. It validates a match only
    when something leads there, and not every match works in NAT both before routing and on output
    (nft_chain_validate)."""
    if error.errno != errno.ENOTSUP or not item.conditions:
        return error
    texts = " and ".join(f'"{text}"' for text in item.conditions)
    what = f"{item.ident}: the kernel cannot use {texts} where published ports are translated: {error.strerror}"
    return CniError(INVALID_CONFIG, what, "that is before routing, and on output for this host's own packets")


def whole_text(items: Iterable[Attachment]) -> str:
    """The chains and jumps of all attachments, for a new table. A condition that this nft can no longer parse lets
    nothing pass, so that the others are served all the same."""
    texts = list(dict.fromkeys(text for item in items for text in item.conditions))
    if not texts:
        return ""
    return conditions.loading_text(texts, _unreadable(texts)) + conditions.hooking_text()


def _unreadable(texts: list[str]) -> frozenset[str]:
    """The conditions that nft cannot parse. They are tried one by one only if all together fail, as each try is a
    process."""
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
    """After elements were deleted, removes the chains to which no port leads any more. Raises CniError 5."""
    try:
        handles.change_rules(lambda: conditions.remove(handles.table))
    except OSError as error:
        raise kernel_refused(f"removing conditions from table inet {TABLE}", error) from None


def problems(handles: Handles, item: Attachment) -> list[str]:
    """What keeps the table from applying an attachment's conditions, as sentences: everybody or nobody then reaches its
    ports."""
    netlink = handles.table.netlink
    found = [
        f"chain {condition_chain(text)} of table inet {TABLE} is missing"
        for text in item.conditions
        if not conditions.has_chain(netlink, text)
    ]
    found += [
        f'nobody reaches the ports with the condition "{text}": nft could not parse it when the table was loaded'
        for text in item.conditions
        if conditions.is_closed(netlink, text)
    ]
    if len(conditions.hooks(netlink)) != len(conditions.HOOKS):
        found.append(f"nothing in table inet {TABLE} leads to the conditions of published ports")
    return found
