"""The host as the verbs see it: the three doors (links, table, state) opened together, and what needs more than one.

A verb locks once and holds the lock while it changes state and kernel; a kill anywhere leaves a record that says what
to undo.
"""

from __future__ import annotations

from nft.elements import attachment_elements, bridge_elements, elements_text, marker, projection
from nft.names import table_comment
from nft.ruleset import replacing_text
from nft.table import Table, TableMissing

from . import wire
from .errors import ADDRESS_TAKEN, IO_FAILURE, PORT_TAKEN, CniError, kernel_refused
from .ip import Address, Prefix
from .links import bridge_mac, check_bridge, create_bridge, get_link, read_link, ready_bridge
from .netlink import Netlink, is_missing
from .record import Attachment, attachment_key
from .state import Damaged, State, open_state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .links import Link


class Host:
    """`rtnl`, `table` and `state` of the network namespace that the process runs in."""

    def __init__(self, data_dir: str) -> None:
        try:
            self.rtnl = Netlink()
        except OSError as error:
            raise kernel_refused("opening a netlink socket", error) from None
        self.state: State = open_state(data_dir, self.rtnl.netns_cookie())
        self.table = Table()

    def close(self) -> None:
        """For processes that live on; a verb leaves this to its exit."""
        self.state.unlock()
        self.rtnl.close()
        self.table.netlink.close()

    def lock(self) -> None:
        """Raises CniError 11 after a bounded wait, 5 for a state folder that cannot be used."""
        try:
            self.state.lock(self._adopt)
        except OSError as error:
            raise kernel_refused(f"opening the state folder {self.state.folder}", error) from None

    def _adopt(self, state: State) -> None:
        comment = self.table.comment()
        if comment is None:
            return
        if not comment.endswith(state.boot):
            self.table.remove()
            return
        from .adopt import adopt_all

        adopt_all(state, self.table)
        for bridge in {ident_bridge.bridge for ident_bridge in self._all()}:
            link = get_link(self.rtnl, bridge)
            if link is not None and link.mac == bridge_mac(bridge):
                state.note_bridge(bridge, "created")

    # Records

    def record(self, ident: str) -> Attachment | None:
        """The attachment's record; where it is damaged or lost but the table knows of it, one made from that."""
        try:
            item = self.state.load(ident)
            damaged = ""
        except Damaged as damage:
            item, damaged = None, str(damage)
        if item is None and (damaged or self.table.get(marker(attachment_key(ident)))):
            from .adopt import adopt_one

            item = adopt_one(self.state, self.table, ident, damaged or f"the record of {ident} is lost")
        return item

    def _all(self, network: str = "") -> Iterator[Attachment]:
        from .adopt import adopt_one

        return self.state.all_records(lambda ident, message: adopt_one(self.state, self.table, ident, message), network)

    def records(self, network: str = "") -> list[Attachment]:
        return list(self._all(network))

    # The table

    def add_elements(self, item: Attachment, again: bool) -> None:
        """The attachment's and its bridge's elements; where the table is missing, everybody's."""
        if not item.in_table:
            return
        if not self.table_is_current():
            self.rebuild_table()
            return
        own, shared = attachment_elements(item), bridge_elements(item.bridge, item.isolation)
        try:
            self.table.add(own, shared, again)
        except TableMissing:
            self.rebuild_table()
        except CniError as conflict:
            if conflict.code not in (PORT_TAKEN, ADDRESS_TAKEN):
                raise
            from .strays import settle

            if not settle(self, item):
                raise
            self.table.add(own, shared, again)

    def table_is_current(self) -> bool:
        """Whether the table is there, of this schema and this boot."""
        return self.table.comment() == table_comment(self.state.boot)

    def rebuild_table(self) -> list[Attachment]:
        """The whole table from all records in one transaction. Returns them."""
        from nft.library import run_text

        from .strays import adopt_living

        adopt_living(self)
        items = self.records()
        run_text(replacing_text(self.state.boot, elements_text([*projection(items).values()])))
        self.state.note_rules(self.table.rules_digest())
        return items

    def delete_elements(self, item: Attachment, last: bool) -> None:
        """Only while the attachment's marker is there: without it, whatever has these keys is not this attachment's."""
        elements = attachment_elements(item)
        own = elements if elements and self.table.get(elements[0]) is not None else []
        shared = bridge_elements(item.bridge, isolation=True) if last else []
        doomed = own + [element for element in shared if self.table.get(element) is not None]
        if doomed:
            self.table.delete(doomed)

    # The bridge

    def ensure_bridge(self, item: Attachment) -> Link:
        link = get_link(self.rtnl, item.bridge)
        if link is None:
            self.state.note_bridge(item.bridge, "created")
            create_bridge(self.rtnl, item.bridge, item.mtu)
            link = get_link(self.rtnl, item.bridge)
        if link is None:
            raise CniError(IO_FAILURE, f"the bridge {item.bridge} disappeared while it was set up", "try again")
        check_bridge(link, item.bridge)
        bridge = link
        adopted = not self.state.has_fact(item.bridge, "created")
        if adopted and self.state.is_last(item):
            # Otherwise the kernel gives it the lowest address of its ports, ours included, and takes it away again.
            self.rtnl.ask(wire.RTM_NEWLINK, wire.tune(bridge.index, {}, bridge.mac, 0, None))

        def note(prefix: Prefix) -> None:
            fact = f"address-{prefix}"
            if adopted and not self.state.has_fact(item.bridge, fact) and prefix not in self.addresses(bridge):
                self.state.note_bridge(item.bridge, fact)

        added = ready_bridge(self.rtnl, bridge, item, note)
        if added and item.force_address:
            self._take_conflicting(bridge, added)
        return bridge

    def _take_conflicting(self, bridge: Link, added: list[Prefix]) -> None:
        """`forceAddress` of the reference plugin: any other IPv4 address gives way, an IPv6 one if the subnets meet."""
        for prefix in self.addresses(bridge):
            for new in added:
                meets = prefix.address in new.network or new.address in prefix.network
                if prefix != new and prefix.version == new.version and (new.version == 4 or meets):
                    self._take_address(bridge, prefix)

    def is_local(self, address: Address) -> bool:
        """Whether packets to the address end on this host, as `fib daddr type local` of the table asks."""
        try:
            reply = self.rtnl.ask(wire.RTM_GETROUTE, wire.get_route(address))
        except OSError:
            return False  # no route at all
        return bool(wire.RTMSG.unpack_from(reply)[7] == wire.RTN_LOCAL)

    def addresses(self, link: Link) -> list[Prefix]:
        """The addresses of one link of the host. A listing: not for the common path."""
        from .inspect import read_addresses

        return read_addresses(self.rtnl, link.index)

    def ports(self, bridge: str) -> list[str]:
        """Names of all links in a bridge. A listing: only for a network's last attachment."""
        link = get_link(self.rtnl, bridge)
        if link is None:
            return []
        query = wire.IFINFO.pack(0, 0, 0, 0, 0) + wire.attr_u32(wire.IFLA_MASTER, link.index)
        found = [read_link(payload) for payload in self.rtnl.dump(wire.RTM_GETLINK, query)]
        return [port.name for port in found if port.master == link.index]

    def leave_bridge(self, item: Attachment) -> list[str]:
        """Undoes what we did to the bridge of the last attachment, and returns the links to remove with it."""
        facts = self.state.bridge_facts(item.bridge) if item.bridge else []
        if "created" in facts and not set(self.ports(item.bridge)) - {item.link}:
            return [item.bridge]
        link = get_link(self.rtnl, item.bridge)
        for fact in facts:
            if link is not None and fact.startswith("address-"):
                from .ip import parse_prefix

                self._take_address(link, parse_prefix(fact[len("address-") :]))
        return []

    def _take_address(self, link: Link, prefix: Prefix) -> None:
        try:
            self.rtnl.ask(wire.RTM_DELADDR, wire.address(link.index, prefix))
        except OSError as error:
            if not is_missing(error):
                raise kernel_refused(f"removing {prefix} from the bridge {link.name}", error) from None
