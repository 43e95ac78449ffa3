"""What `nftcni repair` and `watch` do: find what differs from the records on the whole host, and put it right."""

from __future__ import annotations

import os

from cni.bridge import ensure_bridge, set_host_sysctls
from cni.host import Host
from cni.kernel.links import finish_port, get_link
from cni.model.attachment import Attachment
from cni.model.projection import projection
from cni.protocol.errors import CniError
from cni.protocol.request import DATA_DIR
from cni.verbs.drift import element_problems, host_problems, table_problems, waiting_in_vain
from nft.elements import element_text

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
    link = f"{item.link}@{item.bridge}" if item.kind.own_link else f"(link not ours) {item.bridge}".rstrip()
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
        wanted = projection(items)
        found += [
            f"{element.set} has {element_text(element)}, which is nobody's: no record accounts for it"
            for key, element in held.items()
            if key not in wanted
        ]
        for item in items:
            problems = element_problems(item, lambda element: held.get((element.set, element.key)))
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
        set_host_sysctls(host, item)
    elif get_link(host.rtnl, item.link) is None:
        return False
    else:
        finish_port(host.rtnl, item, ensure_bridge(host, item))
    waiting = waiting_in_vain(host.store.claims, item)
    if waiting:
        host.hand_over(item.ident, waiting)
    return True
