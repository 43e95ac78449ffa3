"""The table in use: adding, deleting, comparing and listing its elements over one nfnetlink socket.

`messages` makes the bytes; `libnftables` loads the table's text.
"""

from __future__ import annotations

import errno

from . import messages
from .digest import digest
from .elements import Element
from .errors import Conflict, KernelError, TableMissing
from .netlink import NETLINK_NETFILTER, Netlink
from .schema import SETS, TABLE


class Table:
    """Our table in this network namespace. Its socket is closed at exit: closing after a delete waits 5-15 ms for the
    kernel."""

    def __init__(self) -> None:
        self.netlink = Netlink(NETLINK_NETFILTER)

    def comment(self) -> str | None:
        """The table's comment, None if there is no table. Raises KernelError."""
        try:
            return messages.read_table_comment(self.netlink.ask(messages.GETTABLE, messages.get_table()))
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return None
            raise _at(error, f"looking at table inet {TABLE}") from None

    def remove(self) -> None:
        """Deletes the table of each family that exists, with all that is in it. Raises KernelError."""
        there = self.tables()
        families = [family for family in (messages.NFPROTO_INET, messages.NFPROTO_BRIDGE) if (family, TABLE) in there]
        self.change(
            [(messages.DELTABLE, 0, messages.get_table(family)) for family in families], f"deleting table inet {TABLE}"
        )

    def add(self, own: list[Element], shared: list[Element], again: bool = False) -> None:
        """Adds all elements or none. The keys of `own` must be new; with `again` they may exist with the same data.
        Raises TableMissing, KernelError, and Conflict for a key that somebody else has."""
        errors = self._transact(messages.adding(shared, exclusive=False) + messages.adding(own, exclusive=not again))
        if not errors:
            return
        if any(error.errno == errno.EEXIST for error in errors):
            raise self._conflict(own)
        self._raise(errors, f"adding elements to table inet {TABLE}")

    def delete(self, elements: list[Element]) -> None:
        """Deletes those of the elements that exist, in one transaction. The caller knows whose they are. A missing
        table is no error. Raises KernelError."""
        try:
            errors = self._transact(messages.deleting(elements))
            if any(error.errno == errno.ENOENT for error in errors):
                present = [element for element in dict.fromkeys(elements) if self.get(element) is not None]
                errors = self._transact(messages.deleting(present)) if present else []
        except TableMissing:
            return
        if errors:
            self._raise(errors, f"deleting elements of table inet {TABLE}")

    def exchange(self, gone: list[Element], new: list[Element]) -> None:
        """Deletes existing elements and adds others, perhaps with the same keys, in one transaction. Raises
        TableMissing and KernelError."""
        errors = self._transact(messages.deleting(gone) + messages.adding(new, exclusive=False))
        if errors:
            self._raise(errors, f"putting elements of table inet {TABLE} right")

    def change(self, changes: list[tuple[int, int, bytes]], what: str) -> None:
        """Makes all changes or none; for everything but elements. Raises KernelError that names `what`."""
        errors = self._transact(changes)
        if errors:
            raise _at(errors[0], what)

    def get(self, element: Element) -> Element | None:
        """The element with this key as the kernel holds it, None if it or the table is missing. Raises KernelError.

        It takes 11 us whatever the set's size.
        """
        try:
            found = messages.read_elements(self.netlink.ask(messages.GETSETELEM, messages.get_element(element)))
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise _at(error, f"looking up an element of table inet {TABLE}") from None
            return None
        return found[0] if found else None

    def elements(self, names: tuple[str, ...] = tuple(SETS)) -> list[Element]:
        """All elements of these sets, [] without the table. For recovery, CHECK and listings. Raises KernelError."""
        found = []
        for name in names:
            try:
                for payload in self.netlink.dump(messages.GETSETELEM, messages.list_elements(name)):
                    found += messages.read_elements(payload)
            except KernelError as error:
                if error.errno != errno.ENOENT:
                    raise _at(error, f"listing {name} of table inet {TABLE}") from None
        return found

    def rules(self) -> list[tuple[str, bytes]]:
        """(chain, expressions) of all rules of both tables, in order; none of a missing table. Raises KernelError."""
        found: list[tuple[str, bytes]] = []
        for family in (messages.NFPROTO_INET, messages.NFPROTO_BRIDGE):
            try:
                payloads = self.netlink.dump(messages.GETRULE, messages.list_rules(family=family))
            except KernelError as error:
                if error.errno != errno.ENOENT:
                    raise _at(error, f"listing the rules of table {TABLE}") from None
                continue
            found += map(messages.read_rule, payloads)
        return found

    def tables(self) -> dict[tuple[int, str], bool]:
        """All tables of the network namespace: (family, name), and whether the table has an owner."""
        return dict(messages.read_table(payload) for payload in self.netlink.dump(messages.GETTABLE, messages.nfgen(0)))

    def dormant(self) -> list[tuple[int, str]]:
        """(family, name) of the dormant tables, whose chains the kernel skips."""
        found = self.netlink.dump(messages.GETTABLE, messages.nfgen(0))
        return [messages.read_table(payload)[0] for payload in found if messages.is_dormant(payload)]

    def _transact(self, changes: list[tuple[int, int, bytes]]) -> list[KernelError]:
        try:
            return transact(self.netlink, changes)
        except OSError as error:
            raise _at(error, f"changing table inet {TABLE}") from None

    def _raise(self, errors: list[KernelError], what: str) -> None:
        if all(error.errno == errno.ENOENT for error in errors):
            raise TableMissing
        first = next(error for error in errors if error.errno != errno.ENOENT)
        raise _at(first, what) from None

    def _conflict(self, own: list[Element]) -> Conflict:
        for element in own:
            held = self.get(element)
            if held is not None and held != element:
                return Conflict(element, held)
        return Conflict(own[0], None)


def transact(netlink: Netlink, changes: list[tuple[int, int, bytes]]) -> list[KernelError]:
    """Makes all of the changes, (type, flags, payload), or none. Returns the errors in message order. Raises
    OSError."""
    if not changes:
        return []  # the kernel does not answer an empty batch
    batch, sequences = messages.batch(changes, netlink.sequence + 1)
    netlink.sequence = sequences[-1] + 1
    return netlink.transact(batch, sequences)


def _at(error: OSError, step: str) -> KernelError:
    """The error as a KernelError that names the step it stopped."""
    refused = error if isinstance(error, KernelError) else KernelError(error.errno, error.strerror)
    refused.step = step
    return refused


def rules_digest(rules: list[tuple[str, bytes]]) -> str:
    """A hash of the rules, "" for none. It changes when somebody edits, flushes or reorders them."""
    return digest(*(f"{chain} {code.hex()}" for chain, code in rules)).hex() if rules else ""
