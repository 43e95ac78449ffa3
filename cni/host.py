"""The host as the verbs see it: its handles under one lock, and every change that needs more than one of them.

A verb opens one transaction and holds the lock while it changes state and kernel; a kill anywhere leaves a record that
says what to undo. `bridge` handles the bridge.
"""

from __future__ import annotations

from cni.handles import Handles, open_handles
from cni.kernel.links import port_names
from cni.model.attachment import Attachment, attachment_key
from cni.model.names import host_link
from cni.model.projection import attachment_elements, direct_elements, mac_elements, marker, shared_elements
from cni.model.stamp import is_of_boot
from cni.protocol.errors import CniError, kernel_refused
from cni.state.store import Damaged
from nft.errors import Conflict, KernelError, TableMissing
from nft.table import rules_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from cni.model.ports import PortMapping
    from cni.state.store import Waiting
    from nft.addresses import Address

RECORDS = "cni.state.record"  # needed by every transaction; a STATUS that finds nothing wrong opens none


class Transaction:
    """`with host.transaction(what):` holds the lock. An OSError inside first rolls back an interrupted change of the
    state, then becomes a CniError that names `what`."""

    def __init__(self, host: Host, what: str, ahead: tuple[str, ...]) -> None:
        self._host = host
        self._what = what
        self._ahead = ahead

    def __enter__(self) -> Host:
        for name in (RECORDS, *self._ahead):
            __import__(name)
        try:
            self._host.lock()
        except BaseException:
            self._host.unlock()  # `__exit__` is not called then, and `watch` lives on
            raise
        return self._host

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, OSError):
                self._host.try_roll_back()
                raise kernel_refused(self._what, error) from None
        finally:
            self._host.unlock()


class Host:
    """The network namespace in which the process runs: `rtnl`, `table` and `store`."""

    def __init__(self, data_dir: str) -> None:
        self.handles: Handles = open_handles(data_dir)
        self.rtnl = self.handles.rtnl
        self.table = self.handles.table
        self.store = self.handles.store

    def close(self) -> None:
        """Closes the sockets, for processes that live on; a verb leaves this to its exit."""
        self.rtnl.close()
        self.table.netlink.close()

    # The lock

    def transaction(self, what: str, *ahead: str) -> Transaction:
        """`ahead` are modules that will be needed: loaded under the lock, they would make all others wait, a tenth of
        the time for which an ADD holds it."""
        return Transaction(self, what, ahead)

    def lock(self) -> None:
        """Takes the lock. Raises CniError 11 after a bounded wait, 5 for a state folder that cannot be used."""
        what = f"opening the state folder {self.store.folder.root}"
        try:
            self.store.lock.acquire(self._fill)
            what = "finishing a change that was interrupted"
            if self.store.is_interrupted():
                self.roll_back()
            what = "noting the table's rules"
            if not self.store.notes.rules() and self.table_is_current():
                from nft.ruleset import is_whole

                rules = self.table.rules()  # after a kill right behind loading them, or lost state
                self.store.notes.put_rules(rules_digest(rules) if is_whole(rules) else "")
        except OSError as error:
            raise kernel_refused(what, error) from None

    def unlock(self) -> None:
        self.store.lock.release()

    def _fill(self) -> None:
        """Fills a fresh state folder from the table, and removes a table of another boot."""
        comment = self.table.comment()
        if comment is None:
            return
        if not is_of_boot(comment, self.store.boot):
            from cni.protocol.log import say

            self.table.remove()
            say("removed the table of an earlier boot, which a saved ruleset brought back: its containers are gone")
            return
        from cni.recovery import refill_state

        refill_state(self.handles)

    # Records

    def record(self, ident: str) -> Attachment | None:
        """The attachment's record, None without one. A damaged or lost record is rebuilt if the table knows it."""
        try:
            item = self.store.load(ident)
        except Damaged as damage:
            return self._rebuilt(ident, str(damage))
        if item is None and self.table.get(marker(attachment_key(ident))):
            return self._rebuilt(ident, f"the record of {ident} is lost")
        return item

    def lost_record(self, ident: str) -> Attachment | None:
        """A lost record that the table does not know either, rebuilt from its claims. It lists them: for DEL only."""
        if not self.store.bridges.of_link(host_link(ident)):
            return None
        return self._rebuilt(ident, f"the record of {ident} is lost")

    def _rebuilt(self, ident: str, reason: str) -> Attachment | None:
        from cni.recovery import rebuild_one

        return rebuild_one(self.handles, ident, reason)

    def records(self, network: str = "") -> list[Attachment]:
        from cni.recovery import all_records

        return list(all_records(self.handles, network))

    def is_last(self, item: Attachment) -> bool:
        """Whether no other attachment, of any network, is on this one's bridge. The kernel is asked as well, because
        what would be removed serves them all."""
        if not self.store.is_last(item):
            return False
        others = set(port_names(self.rtnl, item.master)) - {item.link}
        return not others or not any(
            host_link(ident) in others and self._is_on(ident, item.bridge) for ident in self.store.identities()
        )

    def _is_on(self, ident: str, bridge: str) -> bool:
        other = self.store.peek(ident)
        return other is None or other.bridge == bridge

    def remove_record(self, item: Attachment) -> None:
        """Removes a record and what it holds. Ports for which another interface of the container waits pass to that."""
        self._pass_on(self.store.remove(item))

    def shrink_record(self, before: Attachment, item: Attachment) -> None:
        self._pass_on(self.store.shrink(before, item))

    def roll_back(self) -> None:
        self._pass_on(self.store.roll_back())

    def try_roll_back(self) -> None:
        """Rolls back after an error. If that fails too, the next call's lock rolls back."""
        try:
            self.roll_back()
        except (CniError, OSError):
            return

    def _pass_on(self, waiting: Waiting) -> None:
        for ident, ports in waiting.items():
            self.hand_over(ident, ports)
        self.store.finish()

    def hand_over(self, ident: str, ports: list[PortMapping]) -> None:
        """Passes ports from an interface of a container that goes to another one (`podman network disconnect`). The
        other attachment must be complete; if it cannot publish a port, it keeps waiting.

        The claim is written last: after a kill before it, the port is still waited for, and all is repeated.
        """
        before = self.record(ident)
        if before is None or not before.done:
            return
        known = {*before.standby, *before.mappings}
        taken = dict.fromkeys(port for port in ports if port in known and before.can_publish(port))
        item = before.replace(
            mappings=tuple(dict.fromkeys((*before.mappings, *taken))),
            standby=tuple(port for port in before.standby if port not in taken),
        )
        self.store.update(item)
        self.add_elements(item, again=True)
        from cni.forwarding import set_host_sysctls

        set_host_sysctls(self.handles, item)
        self.forget_flows_to(tuple(taken), item.addresses)
        for port in taken:
            self.store.claims.promote(port, ident)

    def change(self, before: Attachment, item: Attachment) -> None:
        """Replaces a record by one with the same leases and ports, and exchanges the elements that differ."""
        from cni.withdrawal import unneeded_macs

        old = dict.fromkeys(attachment_elements(before) + unneeded_macs(self.handles, [before]))
        new = dict.fromkeys(attachment_elements(item) + mac_elements(item))
        self.store.update(item)
        gone, come = [one for one in old if one not in new], [one for one in new if one not in old]
        try:
            if gone or come:
                self.table.exchange(gone, come)
        except TableMissing:
            self.rebuild_table()

    # The table

    def add_elements(self, item: Attachment, again: bool) -> None:
        """Adds the attachment's and its bridge's elements; without a table, makes one with everybody's. Raises CniError
        100 and 102 for a key that another attachment holds."""
        if not item.in_table:
            return
        if not self.table_is_current():
            self.rebuild_table()
            return
        if item.conditions:
            from cni.conditions import ensure

            ensure(self.handles, item)
        own = attachment_elements(item)
        shared = shared_elements(item, self.store.of_container(item))
        other = next(self.store.sharing(item), None) if item.direct else None
        if other is None or not other.direct:
            shared += direct_elements(item)
        elif other.direct != item.direct:  # prefixes may overlap: the new table holds their union
            self.rebuild_table()
            return
        try:
            self.table.add(own, shared, again)
        except TableMissing:
            self.rebuild_table()
        except Conflict as conflict:
            if conflict.held is None and item.direct:  # a prefix of a third attachment on the bridge
                self.rebuild_table()
                return
            from cni.recovery import add_in_place_of_orphans

            add_in_place_of_orphans(self.handles, item, lambda: self.table.add(own, shared, again), conflict)
        except KernelError as error:
            from cni.conditions import unaskable

            raise unaskable(item, error) from None

    def table_is_current(self) -> bool:
        """Whether the table exists, is of this boot, has this version's rules, and names our records."""
        return self.table.comment() == self.handles.comment

    def rebuild_table(self) -> None:
        """Makes the whole table from all records, in one transaction. Raises CniError 5."""
        from cni.rebuilding import rebuild_table

        rebuild_table(self.handles)

    # Connections

    def forget_flows_to(self, mappings: tuple[PortMapping, ...], addresses: tuple[Address, ...]) -> None:
        """After ports were published, forgets UDP flows to them that lead elsewhere."""
        if not any(mapping.protocol == "udp" for mapping in mappings):
            return
        from cni.kernel.tracker import may_have_udp

        if may_have_udp():
            from cni.kernel.flows import forget_new_ports
            from cni.kernel.routes import is_local

            forget_new_ports(self.table.netlink, mappings, addresses, lambda address: is_local(self.rtnl, address))

    def forget_flows_of(self, addresses: tuple[Address, ...]) -> None:
        """After a container has gone, forgets all of its flows, or the address's next owner would inherit them."""
        from cni.kernel.tracker import may_have_sources

        if may_have_sources(addresses):
            from cni.kernel.flows import forget_addresses

            forget_addresses(self.table.netlink, addresses)

    def forget_flows_by(self, mappings: tuple[PortMapping, ...], addresses: tuple[Address, ...]) -> None:
        """After a living container gave up these ports, forgets the flows that came in by them, and no others."""
        from cni.kernel.tracker import may_have_sources

        if mappings and may_have_sources(addresses):
            from cni.kernel.flows import forget_ports

            forget_ports(self.table.netlink, mappings, addresses)
