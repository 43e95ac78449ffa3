"""What no record accounts for: elements in the table, leases and ports in the state folder; and what becomes of them.

Two ways lead there. A ruleset that somebody saved to a file and loaded again brings back what containers of before had:
those elements go. A record that was deleted by hand leaves what its container still needs: it gets a record again. The
host's end of the container's link tells the two apart. All of it lists the table: for repair, GC, and an ADD that has
met a key in its way.
"""

from __future__ import annotations

from cni.kernel.links import get_link
from cni.model.attachment import Attachment
from cni.model.names import host_link
from cni.recovery import adopt_one
from nft.elements import projection
from nft.messages import Element

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.host import Host


def extra_elements(host: Host) -> list[Element]:
    """Those whose key is nobody's; another value under somebody's key is for `compare` to find."""
    wanted = projection(host.records())
    return [element for element in host.table.elements() if (element.set, element.key) not in wanted]


def _lost_identities(host: Host) -> set[str]:
    """Who has elements in the table of this boot, or claims, but no record."""
    held = host.table.elements() if host.table_serves() else []
    named = {element.comment for element in held} | host.state.claimants()
    return named - set(host.state.identities()) - {""}


def adopt_network(host: Host, network: str) -> None:
    """Everybody of the network, for GC to judge."""
    for ident in sorted(_lost_identities(host)):
        if ident.partition("/")[0] == network:
            adopt_one(host, ident, f"the record of {ident} is lost")


def adopt_living(host: Host) -> None:
    for ident in sorted(_lost_identities(host)):
        if get_link(host.rtnl, host_link(ident)) is not None:
            adopt_one(host, ident, f"the record of {ident} is lost")


def settle(host: Host, item: Attachment) -> bool:
    """Makes the table what the records but this one say, which is about to be added. False if it was so already."""
    adopt_living(host)
    wanted = projection([other for other in host.records() if other.ident != item.ident])
    held = {(element.set, element.key): element for element in host.table.elements()}
    gone = [element for key, element in held.items() if wanted.get(key) != element]
    if gone:
        host.table.exchange(gone, [element for key, element in wanted.items() if held.get(key) != element])
    return bool(gone)
