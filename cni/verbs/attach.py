"""Makes an attachment from its record: table elements, bridge, links. A failure at any step runs DEL's teardown.

`add` and `delegated` write the record first; it is marked done at the end.
"""

from __future__ import annotations

from cni import hostside
from cni.host import Host
from cni.kernel.links import Link, get_link
from cni.kernel.pair import announce, configure_container, is_pair
from cni.model.attachment import Attachment
from cni.model.names import derived_mac
from cni.model.plan import refuse_held_ports, result_of
from cni.protocol.errors import CniError
from cni.protocol.log import say
from cni.protocol.spec import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.model.ports import Holders


def attach(host: Host, item: Attachment, netns: int, again: bool = False, linked: bool = False) -> Result:
    """Makes the kernel what the existing record says, then marks the record done; after an error, removes both. Raises
    CniError.

    `again`: the same ADD was called again, after a crash or by mistake. It mends what is missing and gives the same
    answer. `linked`: `link` has made the pair already.
    """
    try:
        result = apply(host, item, netns, again, linked)
        host.store.update(item.replace(done=True))
    except Exception:
        host.try_roll_back()
        try:
            from cni.verbs.delete import detach

            detach(host, item)
        # The first error is reported; DEL goes on from here. ImportError: an upgrade removed our code.
        except (CniError, OSError, ImportError) as error:
            say(f"taking back {item.ident}: {error}")
        raise
    return result


def link(host: Host, item: Attachment, netns: int) -> None:
    """Makes only the pair, before there are addresses, because a foreign IPAM plugin may look for it. The record
    exists."""
    _remove_link(item)  # of an ADD that was killed
    hostside.make(host, item, hostside.ready(host, item), netns)


def apply(host: Host, item: Attachment, netns: int, again: bool, linked: bool = False) -> Result:
    """Makes the kernel what the record says, and rolls nothing back. Raises CniError and OSError."""
    if again and not (host.table_is_current() and host.handles.rules_are_ours()):
        host.rebuild_table()
    host.add_elements(item, again)
    bridge = hostside.ready(host, item, new=not again)
    master = bridge.index if bridge else 0
    port = get_link(host.rtnl, item.link)
    if port is not None and not ((again or linked) and port.master == master and is_pair(port, item, netns)):
        _remove_link(item)  # of a killed ADD, or of a namespace that is gone
        port = None
    if port is None:
        if again:
            from cni.kernel.far_end import remove_far_end

            remove_far_end(item)
        hostside.make(host, item, bridge, netns)
    else:
        hostside.finish(host, item, bridge)
    try:
        inside = configure_container(item, netns)
    except CniError:
        if port is None:
            raise
        _remove_link(item)  # too much is missing to mend it piece by piece
        hostside.make(host, item, bridge, netns)
        inside = configure_container(item, netns)
    host.forget_flows_to(item.mappings, item.addresses)
    if item.zone:
        from cni.firewalld import join

        join(item)
    if bridge is not None and item.leases and item.link_up:
        announce(host.rtnl, item, inside)
    return _result(host, item, bridge)


def _remove_link(item: Attachment) -> None:
    from cni.kernel.deletion import remove_links

    remove_links([item.link])


def _result(host: Host, item: Attachment, bridge: Link | None) -> Result:
    if bridge is not None:
        result = result_of(item, bridge.mac, bridge.mtu, derived_mac("host", item.ident))
    else:
        from cni.kernel import ptp

        result = ptp.result_of(item, ptp.host_end(host.rtnl, item))
    return hostside.with_devices(host, item, result)


def refuse_taken_ports(host: Host, item: Attachment, held: Holders, allow_bound: bool) -> None:
    """Raises CniError 100 for a port that another container or a process of the host has."""
    refuse_held_ports(held, item)
    if item.mappings:
        from cni.kernel.listeners import refuse_bound_ports

        refuse_bound_ports(host.rtnl, item.mappings, allow_bound)
