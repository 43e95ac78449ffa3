"""The host as the verbs see it: the three doors (links, table, state) opened together, and what needs more than one.

A verb locks once and holds the lock while it changes state and kernel; a kill anywhere leaves a record that says what
to undo. The bridge has a room of its own.
"""

from __future__ import annotations

from cni.kernel import rtnetlink
from cni.kernel.links import get_link, port_names
from cni.model.attachment import Attachment, attachment_key
from cni.model.names import bridge_mac, host_link
from cni.protocol.errors import ADDRESS_TAKEN, PORT_TAKEN, CniError, kernel_refused
from cni.state.store import Damaged, State, first_folder, read_boot_id
from nft.elements import attachment_elements, bridge_elements, elements_text, marker, projection
from nft.netlink import Netlink
from nft.ruleset import RULES, is_whole, replacing_text
from nft.schema import is_of_boot, records_folder, table_comment
from nft.table import Table, TableMissing, rules_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.model.ports import PortMapping
    from nft.addresses import Address
    from nft.messages import Element


class Host:
    """`rtnl`, `table` and `state` of the network namespace that the process runs in. `with host:` locks it."""

    def __init__(self, data_dir: str) -> None:
        try:
            self.rtnl = Netlink()
        except OSError as error:
            raise kernel_refused("opening a netlink socket", error) from None
        self.table = Table()
        boot = read_boot_id()
        cookie = self.rtnl.netns_cookie()
        # The host's one table has one state folder, whatever a second network's `dataDir` says.
        folder = records_folder(self.table.comment() or "", boot) or first_folder(data_dir, boot, cookie)
        self.state = State(folder, boot, cookie)

    def close(self) -> None:
        """For processes that live on; a verb leaves this to its exit."""
        self.rtnl.close()
        self.table.netlink.close()

    def __enter__(self) -> Host:
        self.lock()
        return self

    def __exit__(self, *_error: object) -> None:
        self.unlock()

    def lock(self) -> None:
        """Raises CniError 11 after a bounded wait, 5 for a state folder that cannot be used."""
        try:
            self.state.lock(self._fill)
            if self.state.is_untidy():
                self.tidy()
            if not self.state.noted_rules() and self.table_is_current():
                rules = self.table.rules()  # a kill right after they were loaded, or lost state
                self.state.note_rules(rules_digest(rules) if is_whole(rules) else "")
        except OSError as error:
            raise kernel_refused(f"opening the state folder {self.state.folder}", error) from None

    def unlock(self) -> None:
        self.state.unlock()

    def _fill(self) -> None:
        """A fresh state folder, from the table if that is of this boot."""
        comment = self.table.comment()
        if comment is None:
            return
        if not is_of_boot(comment, self.state.boot):
            self.table.remove()
            return
        from cni.recovery import adopt_all

        adopt_all(self)
        for bridge in {item.bridge for item in self._all() if item.bridge}:
            link = get_link(self.rtnl, bridge)
            if link is not None and link.mac == bridge_mac(bridge):
                self.state.note_bridge(bridge, "created")

    # Records

    def record(self, ident: str) -> Attachment | None:
        """The attachment's record; where it is damaged or lost but the table knows of it, one made from that."""
        try:
            item = self.state.load(ident)
            damaged = ""
        except Damaged as damage:
            item, damaged = None, str(damage)
        if item is None and (damaged or self.table.get(marker(attachment_key(ident)))):
            from cni.recovery import adopt_one

            item = adopt_one(self, ident, damaged or f"the record of {ident} is lost")
        return item

    def lost_record(self, ident: str) -> Attachment | None:
        """One made from the claims, where the table does not know of it either. A listing: for DEL, not for ADD."""
        from cni.recovery import adopt_one

        known = self.state.bridge_of(host_link(ident))
        return adopt_one(self, ident, f"the record of {ident} is lost") if known else None

    def _all(self, network: str = "") -> Iterator[Attachment]:
        from cni.recovery import adopt_one

        return self.state.all_records(lambda ident, message: adopt_one(self, ident, message), network)

    def records(self, network: str = "") -> list[Attachment]:
        return list(self._all(network))

    def is_last(self, item: Attachment) -> bool:
        """No other attachment, of any network, is on this one's bridge; the kernel is asked as well, for what would be
        taken away serves them all."""
        if not self.state.is_last(item):
            return False
        others = set(port_names(self.rtnl, item.bridge)) - {item.link}
        return not others or others.isdisjoint(map(host_link, self.state.identities()))

    def forget(self, item: Attachment) -> None:
        """The record and what it holds; ports that another interface of the container waits for pass to that one."""
        self._pass_on(self.state.forget(item))

    def shrink(self, before: Attachment, item: Attachment) -> None:
        """A record that holds less, and the same."""
        self._pass_on(self.state.shrink(before, item))

    def tidy(self) -> None:
        self._pass_on(self.state.tidy())

    def _pass_on(self, heirs: dict[str, list[PortMapping]]) -> None:
        if heirs:
            from cni.handover import hand_over

            hand_over(self, heirs)
        self.state.finish()

    # The table

    def add_elements(self, item: Attachment, again: bool) -> None:
        """The attachment's and its bridge's elements; where the table is missing, everybody's."""
        if not item.in_table:
            return
        if not self.table_is_current():
            self.rebuild_table()
            return
        own, shared = attachment_elements(item), bridge_elements(item)
        try:
            self.table.add(own, shared, again)
        except TableMissing:
            self.rebuild_table()
        except CniError as conflict:
            if conflict.code not in (PORT_TAKEN, ADDRESS_TAKEN):
                raise
            from cni.orphans import settle

            if not settle(self, item):
                raise
            self.table.add(own, shared, again)

    def table_is_current(self) -> bool:
        """Whether the table is there, of this boot and with this version's rules, and its records are ours."""
        return self.table.comment() == self.comment

    def table_serves(self) -> bool:
        """Whether it is there and of this boot: the rules may be another version's, until the next ADD or `repair`."""
        return is_of_boot(self.table.comment() or "", self.state.boot)

    @property
    def comment(self) -> str:
        return table_comment(RULES, self.state.boot, self.state.data_dir)

    def rules_are_ours(self) -> bool:
        """As they were loaded; as many as were loaded, where more is not known."""
        rules, noted = self.table.rules(), self.state.noted_rules()
        return rules_digest(rules) == noted if noted else is_whole(rules)

    def rebuild_table(self) -> list[Attachment]:
        """The whole table from all records in one transaction. Returns them."""
        from cni.orphans import adopt_living
        from nft.libnftables import run_text

        adopt_living(self)
        items = self.records()
        self.state.note_rules("")
        run_text(replacing_text(self.comment, elements_text([*projection(items).values()])))
        self.state.note_rules(rules_digest(self.table.rules()))
        return items

    def delete_elements(self, item: Attachment, last: bool) -> None:
        """What has these keys is this attachment's if its marker is there; without it, what bears its name."""
        own = attachment_elements(item)
        if own and self.table.get(own[0]) is None:
            named = [self.table.get(element) for element in own]
            own = [element for element in named if element is not None and element.comment == item.ident]
        shared = self._all_of_the_bridge(item) if last else self._no_longer_shared(item)
        doomed = own + [element for element in shared if self.table.get(element) is not None]
        if doomed:
            self.table.delete(doomed)

    def _all_of_the_bridge(self, item: Attachment) -> list[Element]:
        """Also what another one gave it, whose record was lost or said otherwise."""
        return bridge_elements(item.replace(isolation=True, uplink=False, delegate=""))

    def _no_longer_shared(self, item: Attachment) -> list[Element]:
        """What none of the others gives the bridge: after a change of `isolation`, for example. In most cases the first
        one gives it all. Nothing, where a record is damaged or lost: what its container needs is not known."""
        left = bridge_elements(item)
        known = False
        for other in self.state.sharing(item):
            if other is None:
                return []
            given = bridge_elements(other)
            left = [element for element in left if element not in given]
            known = True
            if not left:
                break
        return left if known else []

    # Connections

    def forget_flows_to(self, mappings: tuple[PortMapping, ...], addresses: tuple[Address, ...]) -> None:
        """After ports were published: UDP flows to them that lead elsewhere."""
        if any(mapping.protocol == "udp" for mapping in mappings):
            from nft.conntrack import forget_new_ports

            forget_new_ports(mappings, addresses, self.is_local)

    def forget_flows_of(self, mappings: tuple[PortMapping, ...], addresses: tuple[Address, ...]) -> None:
        """After a container has gone: UDP flows that still lead to it."""
        if any(mapping.protocol == "udp" for mapping in mappings):
            from nft.conntrack import forget_container

            forget_container(mappings, addresses)

    # Routes

    def is_local(self, address: Address) -> bool:
        """Whether packets to the address end on this host, as `fib daddr type local` of the table asks."""
        try:
            reply = self.rtnl.ask(rtnetlink.RTM_GETROUTE, rtnetlink.get_route(address))
        except OSError:
            return False  # no route at all
        return bool(rtnetlink.RTMSG.unpack_from(reply)[7] == rtnetlink.RTN_LOCAL)
