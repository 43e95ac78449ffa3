"""Find what differs from the records on the whole host, and put it right: the table, ports' flags, addresses, sysctls.

The inside of a container is left alone unless the container is named: then its interface, addresses and routes are put
right too, as a repeated ADD would do.
"""

from __future__ import annotations

import os

from cni import hostside
from cni.fastpath import differences
from cni.forwarding import set_host_sysctls
from cni.host import Host
from cni.kernel import sysctl
from cni.kernel.dumps import read_addresses
from cni.kernel.links import all_links, get_link
from cni.kernel.netns import open_netns
from cni.model.attachment import Attachment
from cni.operate.moved_link import moved_link
from cni.operate.renaming import restore_bridge, restore_port
from cni.protocol.errors import CHECK_FAILED, CniError
from cni.protocol.name_rules import DATA_DIR
from cni.rebuilding import rebuild_table
from cni.recovery import wanted_elements
from cni.verbs.attach import apply
from cni.verbs.check import all_problems
from cni.verbs.drift import (
    Look,
    closed_problems,
    element_problems,
    host_problems,
    table_problems,
    waiting_in_vain,
)
from nft.elements import Element, element_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection


NO_ADDRESS = "1"  # IN6_ADDR_GEN_MODE_NONE of include/uapi/linux/if_link.h

HELP = "make the host what the records say"
EXAMPLES = ("nftcni repair --check", "nftcni repair", "nftcni repair bridge/web")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("container", metavar="NETWORK/CONTAINER", nargs="?", help="also the inside of this container")
    parser.add_argument("--check", action="store_true", help="only tell")


def run(arguments: argparse.Namespace) -> int:
    with this_host().transaction("repairing") as host:
        if arguments.container:
            return mend_container(host, arguments.container, arguments.check)
        items = host.records()
        found, sound = looked_at(host, items)
        for problem in found:
            print(problem)
        if arguments.check or not found:
            print(f"{len(found)} problems" if found else "nothing to repair")
            return 1 if found else 0
        return mend(host, items, sound)


def this_host() -> Host:
    return Host(os.environ.get("NFTCNI_DATA_DIR") or DATA_DIR)


def unfinished(item: Attachment) -> str:
    """What is special about its record, in words; "" for nothing."""
    if item.done:
        return ""
    return "(record rebuilt)" if item.is_rebuilt else "(ADD did not finish)"


def describe(item: Attachment) -> str:
    addresses = " ".join(str(lease.address) for lease in item.leases) or "no address"
    ports = " ".join(f"{mapping}->{mapping.container_port}" for mapping in item.mappings)
    state = unfinished(item) and f"  {unfinished(item)}"
    own = item.link if item.is_ptp else f"{item.link}@{item.bridge}"
    link = own if item.kind.own_link else f"(link not ours) {item.bridge}".rstrip()
    return f"{item.ident}  {link}  {addresses}" + (f"  {ports}" if ports else "") + state


def looked_at(host: Host, items: list[Attachment]) -> tuple[list[str], set[str]]:
    """The differences of the table and of every attachment that `repair` can mend, as sentences; and the identities
    whose links, leases and sysctls are right, so that they are not checked again: each takes a good part of a
    millisecond."""
    look = Look(all_links(host.rtnl))
    found = table_differences(host, items) + differences(host.handles)
    sound = set()
    for item in items:
        problems = [f"{item.ident}: {problem}" for problem in host_problems(host, item, look)]
        found += problems
        if not problems:
            sound.add(item.ident)
    return found, sound


def table_differences(host: Host, items: list[Attachment], elements: list[Element] | None = None) -> list[str]:
    """Compares the table with all records, both ways, by one listing of it. `elements` are what the records ask for,
    where the caller knows."""
    found = table_problems(host) if items or host.store.has_records() else []
    if not found:
        held = {(element.set, element.key): element for element in host.table.elements()}
        elements = wanted_elements(host.handles, items) if elements is None else elements
        wanted = {(element.set, element.key) for element in elements}
        intervals = [element for element in elements if element.end]

        def is_known(element: Element) -> bool:
            """Whether a record accounts for the element, also for a prefix inside a wider one that was added later: the
            kernel accepts that order only."""
            if (element.set, element.key) in wanted:
                return True
            return bool(element.end) and any(one.set == element.set and one.covers(element) for one in intervals)

        of_container: dict[str, list[Attachment]] = {}
        for item in items:
            of_container.setdefault(item.container, []).append(item)

        def get(element: Element) -> Element | None:
            # A prefix may lie inside a wider one: the kernel has to find that.
            return host.table.get(element) if element.end else held.get((element.set, element.key))

        found += closed_problems(host, get)
        found += [
            f"{element.set} has {element_text(element)}, which belongs to nobody: no record accounts for it"
            for element in held.values()
            if not is_known(element)
        ]
        as_wanted = not intervals and all(held.get((element.set, element.key)) == element for element in elements)
        for item in () if as_wanted else items:
            others = [other for other in of_container[item.container] if other != item]
            problems = element_problems(item, others, get)
            found += [f"{item.ident}: {problem}" for problem in problems]
    return found


def mend(host: Host, items: list[Attachment], sound: Collection[str] = ()) -> int:
    """Makes the whole table in one transaction, then mends the host's side of each attachment that is not `sound`.
    `items` are all records. Returns 1 if problems remain."""
    items, elements = rebuild_table(host.handles, items)
    look = Look()
    mended = []
    for item in items:
        try:
            if item.ident not in sound and host_problems(host, item, look):
                mended.append(item)
                look = Look()
                if not mend_host_side(host, item):
                    continue
            print(f"restored {describe(item)}")
        except (CniError, OSError) as error:  # the others are served all the same
            print(f"{item.ident}: {error}")
    if mended:
        items = host.records()
    remaining = table_differences(host, items, None if mended else elements) + differences(host.handles)
    for item in mended:
        remaining += [f"{item.ident}: {problem}" for problem in host_problems(host, host.record(item.ident) or item)]
    for problem in remaining:
        print(f"remains: {problem}")
    print(f"restored the table with {len(items)} attachments, {len(remaining)} problems remain")
    return 1 if remaining else 0


def mend_host_side(host: Host, item: Attachment) -> bool:
    """Mends the host's side of an attachment. Returns False for a container that is gone; its DEL or a GC removes the
    rest."""
    if not item.kind.own_link:
        set_host_sysctls(host.handles, item)
    else:
        if get_link(host.rtnl, item.link) is None:
            try:
                netns = open_netns(item.sandbox)
            except CniError:
                return False
            try:
                refuse_moved_link(host, item, netns)
            finally:
                os.close(netns)
            return False
        restore_bridge(host, item)
        restore_port(host, item)
        hostside.finish(host, item, hostside.ready(host, item))
    if item.address_of(6) is not None and item.gateways and host.store.bridges.knows(item.bridge, "created"):
        restore_link_local(host, item.bridge)
    for name in item.leased:
        if not host.store.claims.lease_holder(name):
            host.store.claims.lease(name, item.ident)
    waiting = waiting_in_vain(host.store.claims, item)
    if waiting:
        host.hand_over(item.ident, waiting)
    if item.zone:
        from cni.firewalld import join

        join(item)  # a reload of firewalld forgets all sources; this comes last, as firewalld may not answer
    return True


def restore_link_local(host: Host, name: str) -> None:
    """Gives the bridge its link-local address again; without one, the host solicits no IPv6 neighbour there. The kernel
    makes one when addr_gen_mode changes (addrconf_init_auto_addrs)."""
    bridge, key = get_link(host.rtnl, name), f"ipv6/conf/{name}/addr_gen_mode"
    if bridge is None or any(one.address.is_link_local for one in read_addresses(host.rtnl, bridge.index)):
        return
    before = sysctl.read(key)
    for value in (NO_ADDRESS, before if before != NO_ADDRESS else "0") if before else ():
        sysctl.try_to_write(key, value)


def mend_container(host: Host, wanted: str, only_check: bool) -> int:
    """Mends one container, including the inside of its namespace. Returns the exit status."""
    items = [item for item in host.records() if wanted in (item.ident, item.ident.rpartition("/")[0])]
    if not items:
        raise CniError(CHECK_FAILED, f"{wanted} is not attached", "nftcni list shows all containers")
    left = 0
    for item in items:
        netns = open_netns(item.sandbox)
        refuse_moved_link(host, item, netns)
        problems = all_problems(host, item, item, netns)
        for problem in problems:
            print(f"{item.ident}: {problem}")
        if problems and not only_check:
            apply(host, item, netns, again=True)
            problems = all_problems(host, item, item, netns)
            for problem in problems:
                print(f"remains: {item.ident}: {problem}")
            print(f"restored {describe(item)}")
        left += len(problems)
    return 1 if left else 0


def refuse_moved_link(host: Host, item: Attachment, netns: int) -> None:
    """Raises CniError if the container's link has moved elsewhere: no second link can be made beside it."""
    if not item.kind.own_link or get_link(host.rtnl, item.link) is not None:
        return
    found = moved_link(item, netns)
    if found is not None:
        what = f"the host's end of the container's link, {item.link}, is not here: {found.where}"
        raise CniError(CHECK_FAILED, what, "; ".join(found.remedy))
