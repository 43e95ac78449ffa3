"""What a verb works through: rtnetlink, the table and the state folder, opened together.

What is done with more than one of them is `host`; records that were lost are `recovery`.
"""

from __future__ import annotations

import errno

from cni.model.stamp import is_of_boot, records_folder, table_comment
from cni.protocol.errors import kernel_refused
from cni.state.place import first_folder, read_boot_id
from cni.state.store import Store
from nft.netlink import Netlink
from nft.ruleset import RULES
from nft.table import Table, rules_digest
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Handles(Value):
    """Of the network namespace that the process runs in."""

    rtnl: Netlink
    table: Table
    store: Store

    def change_rules(self, change: Callable[[], None]) -> None:
        """Changes the table's rules, and the note of them if it is right: what somebody else has changed is to be told
        on."""
        right = self.store.notes.rules() == rules_digest(self.table.rules())
        if right:
            self.store.notes.put_rules("")
        change()
        if right:
            self.store.notes.put_rules(rules_digest(self.table.rules()))

    @property
    def comment(self) -> str:
        """What the table says of itself, if it is of this boot, has this version's rules and our records."""
        return table_comment(RULES, self.store.boot, self.store.lock.data_dir)

    @property
    def table_serves(self) -> bool:
        """The table is there and of this boot. Its rules may be another version's until the next ADD or `repair`."""
        return is_of_boot(self.table.comment() or "", self.store.boot)


def open_handles(data_dir: str) -> Handles:
    """Raises CniError code 5."""
    try:
        rtnl = Netlink()
        table = Table()
    except OSError as error:
        raise kernel_refused("opening a netlink socket", error, "is nf_tables in this kernel?") from None
    boot = read_boot_id()
    cookie = rtnl.netns_cookie()
    try:
        named = records_folder(table.comment() or "", boot)
    except OSError as error:
        # nfnetlink has EINVAL for a subsystem that is not there (nfnetlink_rcv_msg).
        hint = "nf_tables is not in this kernel: modprobe nf_tables says why" if error.errno == errno.EINVAL else ""
        raise kernel_refused("opening the table", error, hint) from None
    # The host's one table has one state folder, whatever a second network's `dataDir` says.
    return Handles(rtnl, table, Store(named or first_folder(data_dir, boot, cookie), boot, cookie))
