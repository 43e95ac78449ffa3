"""What a verb works with: rtnetlink, the table and the state folder, opened together.

`host` makes the changes that need more than one of them; `recovery` rebuilds lost records.
"""

from __future__ import annotations

import errno

from cni.model.stamp import is_of_boot, records_folder, table_comment
from cni.protocol.errors import kernel_refused
from cni.state.place import first_folder, read_boot_id
from cni.state.store import Store
from nft.netlink import Netlink
from nft.table import Table, rules_digest
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Handles(Value):
    """The handles of the network namespace in which the process runs."""

    rtnl: Netlink
    table: Table
    store: Store

    def change_rules(self, change: Callable[[], None]) -> None:
        """Changes the table's rules, and updates their noted digest if it was right: rules that somebody else changed
        must still be reported."""
        right = self.store.notes.rules() == rules_digest(self.table.rules())
        if right:
            self.store.notes.put_rules("")
        change()
        if right:
            self.store.notes.put_rules(rules_digest(self.table.rules()))

    @property
    def comment(self) -> str:
        """The comment of a table of this boot with this version's rules and our records."""
        from nft.ruleset import RULES

        return table_comment(RULES, self.store.boot, self.store.lock.data_dir)

    @property
    def table_serves(self) -> bool:
        """Whether the table exists and is of this boot. Until the next ADD or `repair`, its rules may be another
        version's."""
        return is_of_boot(self.table.comment() or "", self.store.boot)

    def rules_are_ours(self) -> bool:
        """Whether the table's rules are as loaded. Without a noted digest, only their numbers are compared."""
        rules, noted = self.table.rules(), self.store.notes.rules()
        if noted:
            return rules_digest(rules) == noted
        from nft.ruleset import is_whole

        return is_whole(rules)


def open_handles(data_dir: str) -> Handles:
    """Raises CniError 5."""
    try:
        rtnl = Netlink()
        table = Table()
    except OSError as error:
        raise kernel_refused("opening a netlink socket", error, "is nf_tables in this kernel?") from None
    boot = f"{read_boot_id()}.{rtnl.netns_cookie()}"
    try:
        named = records_folder(table.comment() or "", boot)
    except OSError as error:
        # nfnetlink answers EINVAL for a subsystem that is missing (nfnetlink_rcv_msg).
        hint = "nf_tables is not in this kernel: modprobe nf_tables says why" if error.errno == errno.EINVAL else ""
        raise kernel_refused("opening the table", error, hint) from None
    # The host's one table has one state folder, whatever a second network's `dataDir` says.
    return Handles(rtnl, table, Store(named or first_folder(data_dir, boot), boot))
