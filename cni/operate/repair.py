"""What `nftcni repair` and `watch` do: find what differs from the records on the whole host, and put it right."""

from __future__ import annotations

import os

from cni import hostside
from cni.forwarding import set_host_sysctls
from cni.host import Host
from cni.kernel.links import get_link
from cni.model.attachment import Attachment
from cni.protocol.errors import CniError
from cni.protocol.request import DATA_DIR
from cni.recovery import wanted_elements
from cni.verbs.drift import element_problems, host_problems, table_problems, waiting_in_vain
from nft.elements import Element, element_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.links import Link
    from nft.addresses import Prefix

    Bridges = dict[str, tuple[Link | None, list[Prefix]]]


def this_host() -> Host:
    return Host(os.environ.get("NFTCNI_DATA_DIR") or DATA_DIR)


def describe(item: Attachment) -> str:
    addresses = " ".join(str(lease.address) for lease in item.leases) or "no address"
    ports = " ".join(f"{mapping}->{mapping.container_port}" for mapping in item.mappings)
    state = "" if item.done else "  (ADD did not finish)"
    own = item.link if item.is_ptp else f"{item.link}@{item.bridge}"
    link = own if item.kind.own_link else f"(link not ours) {item.bridge}".rstrip()
    return f"{item.ident}  {link}  {addresses}" + (f"  {ports}" if ports else "") + state


def problems_of(host: Host) -> list[str]:
    """Of the table and of every attachment, as far as `repair` can mend them."""
    items = host.records()
    bridges: Bridges = {}
    found = table_differences(host, items)
    for item in items:
        found += [f"{item.ident}: {problem}" for problem in host_problems(host, item, bridges)]
    return found


def table_differences(host: Host, items: list[Attachment]) -> list[str]:
    """The table against all records, both ways, by one listing of it."""
    found = table_problems(host) if items or host.store.has_records() else []
    if not found:
        held = {(element.set, element.key): element for element in host.table.elements()}
        wanted = {(element.set, element.key) for element in wanted_elements(host.handles, items)}
        of_container: dict[str, list[Attachment]] = {}
        for item in items:
            of_container.setdefault(item.container, []).append(item)

        def get(element: Element) -> Element | None:
            # A prefix may lie inside a wider one: the kernel is to find that.
            return host.table.get(element) if element.end else held.get((element.set, element.key))

        found += [
            f"{element.set} has {element_text(element)}, which is nobody's: no record accounts for it"
            for key, element in held.items()
            if key not in wanted
        ]
        for item in items:
            others = [other for other in of_container[item.container] if other != item]
            problems = element_problems(item, others, get)
            found += [f"{item.ident}: {problem}" for problem in problems]
    return found


def mend(host: Host) -> int:
    """The whole table in one transaction, then what each attachment needs on the host. 1 if something remains."""
    items = host.rebuild_table()
    bridges: Bridges = {}
    mended = []
    for item in items:
        try:
            if host_problems(host, item, bridges):
                mended.append(item)
                bridges.pop(item.bridge, None)
                if not mend_host_side(host, item):
                    continue
            print(f"restored {describe(item)}")
        except (CniError, OSError) as error:  # the others are served all the same
            print(f"{item.ident}: {error}")
    remaining = table_differences(host, host.records() if mended else items)
    for item in mended:
        remaining += [f"{item.ident}: {problem}" for problem in host_problems(host, host.record(item.ident) or item)]
    for problem in remaining:
        print(f"remains: {problem}")
    print(f"restored the table with {len(items)} attachments, {len(remaining)} problems remain")
    return 1 if remaining else 0


def mend_host_side(host: Host, item: Attachment) -> bool:
    """False for a container that is gone; its DEL or a GC takes the rest away."""
    if not item.kind.own_link:
        set_host_sysctls(host.handles, item)
    elif get_link(host.rtnl, item.link) is None:
        return False
    else:
        hostside.finish(host, item, hostside.ready(host, item))
    waiting = waiting_in_vain(host.store.claims, item)
    if waiting:
        host.hand_over(item.ident, waiting)
    return True
