"""GC: everything of this network that is not among the valid attachments is removed, many at a time.

Never another network's: the records and the elements' comments begin with the network's name.
"""

from __future__ import annotations

from nft.elements import attachment_elements, bridge_elements

from .adopt import adopt_one
from .detach import delegate_type
from .errors import INVALID_CONFIG, CniError, kernel_refused
from .fields import Fields
from .host import Host
from .names import identity
from .ports import PortMapping
from .record import Attachment
from .removal import remove_group, remove_links
from .request import Request
from .strays import lost_identities

KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")  # SPEC.md 1.1.0 renamed it; libcni sends both


def collect(request: Request) -> None:
    """Raises CniError 7 without a list of valid attachments: absent is not empty (cnitool sends none)."""
    valid = _valid_identities(request)
    host = Host(request.data_dir)
    host.lock()
    try:
        for ident in lost_identities(host, request.network):
            adopt_one(host.state, host.table, ident, f"the record of {ident} is lost")
        stale = [item for item in host.records(request.network) if item.ident not in valid]
        detach_many(host, stale)
    except OSError as error:
        raise kernel_refused(f"GC of {request.network}", error) from None
    host.state.unlock()
    kind = delegate_type(request)
    if kind:
        from .delegate import run_delegate

        run_delegate(request, kind, "GC")


def _valid_identities(request: Request) -> set[str]:
    given = {key.lower() for key in request.document}
    key = next((key for key in KEYS if key in given), "")
    if not key:
        raise CniError(
            INVALID_CONFIG,
            f"{KEYS[0]}: GC needs the list of valid attachments",
            "an empty list removes every attachment of the network",
        )
    found = set()
    for entry in Fields(request.document).sections(key):  # null is how Go writes a list that was never filled
        container, ifname = entry.text("containerID"), entry.text("ifname")
        if not container or not ifname:
            raise CniError(INVALID_CONFIG, f"{entry.path}: needs containerID and ifname")
        found.add(identity(request.network, container, ifname))
    return found


def detach_many(host: Host, items: list[Attachment]) -> None:
    """What `detach` does, with one transaction, one group of links and one pass over the connections for all."""
    own = [item for item in items if item.in_table and host.table.get(attachment_elements(item)[0]) is not None]
    if own:
        host.table.delete([element for item in own for element in attachment_elements(item)])
    remove_group(host.rtnl, [item.link for item in items if item.own_link])
    mappings = tuple(mapping for item in items for mapping in item.mappings)
    if any(mapping.protocol == "udp" for mapping in mappings):
        from nft.conntrack import forget_container

        forget_container(mappings, tuple(address for item in items for address in item.addresses))
    heirs: dict[str, list[PortMapping]] = {}
    for item in items:
        if host.state.is_last(item):
            shared = bridge_elements(item.bridge, isolation=True)
            doomed = [element for element in shared if host.table.get(element) is not None]
            if doomed:
                host.table.delete(doomed)
            remove_links(host.rtnl, host.leave_bridge(item))
            host.state.forget_bridge(item.bridge)
        for ident, waiting in host.state.forget(item).items():
            heirs.setdefault(ident, []).extend(waiting)
    if heirs:
        from .heirs import hand_over

        hand_over(host, heirs)
