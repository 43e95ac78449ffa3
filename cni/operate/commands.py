"""The commands for people: list, repair, doctor, watch. They may take their time and use the slow libraries."""

from __future__ import annotations

import os
import sys

from cni.host import Host
from cni.model.attachment import Attachment
from cni.protocol.errors import CniError, kernel_refused
from cni.protocol.request import DATA_DIR
from cni.recovery import orphans
from cni.state.record import to_document
from cni.verbs.drift import element_problems, host_problems, table_problems
from nft.elements import element_text

USAGE = """usage: nftcni list [--json]      the attachments of this host
       nftcni repair [--check]   rebuild the table, the ports' flags and the sysctls from the records
       nftcni doctor             what keeps this host from serving containers, and what to do
       nftcni watch              repair within a moment whenever somebody flushes the table
       nftcni --version
NFTCNI_DATA_DIR names the state folder where it is not /run/nftcni.
"""


def operate(words: list[str]) -> int:
    """The exit status: 0 well, 1 something is wrong on the host, 2 not understood."""
    if words in (["--version"], ["-V"]):
        from cni.main import VERSION

        print(f"nftcni {VERSION}")
        return 0
    commands = {
        ("list",): lambda: list_attachments(False),
        ("list", "--json"): lambda: list_attachments(True),
        ("repair",): lambda: repair(False),
        ("repair", "--check"): lambda: repair(True),
        ("doctor",): doctor,
        ("watch",): watch,
    }
    command = commands.get(tuple(words))
    if command is None:
        asked = words in (["--help"], ["-h"], ["help"])
        (sys.stdout if asked else sys.stderr).write(USAGE)
        return 0 if asked else 2
    try:
        return command()
    except CniError as error:
        sys.stderr.write(f"nftcni {words[0]}: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{kernel_refused(f'nftcni {words[0]}', error)}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def this_host() -> Host:
    return Host(os.environ.get("NFTCNI_DATA_DIR") or DATA_DIR)


def list_attachments(as_json: bool) -> int:
    import json

    with this_host().transaction("listing the attachments") as host:
        items = host.records()
    if as_json:
        print(json.dumps([to_document(item) for item in items], indent=2))
        return 0
    for item in items:
        print(describe(item))
    return 0


def describe(item: Attachment) -> str:
    addresses = " ".join(str(lease.address) for lease in item.leases) or "no address"
    ports = " ".join(f"{mapping}->{mapping.container_port}" for mapping in item.mappings)
    state = "" if item.done else "  (ADD did not finish)"
    link = f"{item.link}@{item.bridge}" if item.kind.own_link else f"(link not ours) {item.bridge}".rstrip()
    return f"{item.ident}  {link}  {addresses}" + (f"  {ports}" if ports else "") + state


def problems_of(host: Host) -> list[str]:
    """Of the table and of every attachment, as far as `repair` can mend them."""
    found = table_differences(host)
    for item in host.records():
        found += [f"{item.ident}: {problem}" for problem in host_problems(host, item)]
    return found


def table_differences(host: Host) -> list[str]:
    """The table against all records, both ways."""
    found = table_problems(host) if host.store.has_records() else []
    if not found:
        found += [
            f"{element.set} has {element_text(element)}, which is nobody's: no record accounts for it"
            for element in orphans(host.handles)
        ]
        for item in host.records():
            found += [f"{item.ident}: {problem}" for problem in element_problems(host, item)]
    return found


def repair(only_check: bool) -> int:
    with this_host().transaction("repairing") as host:
        found = problems_of(host)
        for problem in found:
            print(problem)
        if only_check or not found:
            print(f"{len(found)} problems" if found else "nothing to repair")
            return 1 if found else 0
        return mend(host)


def mend(host: Host) -> int:
    """The whole table in one transaction, then what each attachment needs on the host. 1 if something remains."""
    items = host.rebuild_table()
    for item in items:
        try:
            if mend_host_side(host, item):
                print(f"restored {describe(item)}")
        except (CniError, OSError) as error:  # the others are served all the same
            print(f"{item.ident}: {error}")
    remaining = problems_of(host)
    for problem in remaining:
        print(f"remains: {problem}")
    print(f"restored the table with {len(items)} attachments, {len(remaining)} problems remain")
    return 1 if remaining else 0


def mend_host_side(host: Host, item: Attachment) -> bool:
    """False for a container that is gone; its DEL or a GC takes the rest away."""
    from cni.bridge import ensure_bridge
    from cni.forwarding import set_host_sysctls
    from cni.kernel.links import finish_port, get_link
    from cni.verbs.drift import waiting_in_vain

    if not item.kind.own_link:
        set_host_sysctls(host.handles, item)
    elif get_link(host.rtnl, item.link) is None:
        return False
    else:
        finish_port(host.rtnl, item, ensure_bridge(host, item))
    waiting = waiting_in_vain(host.store.claims, item)
    if waiting:
        host.hand_over(item.ident, waiting)
    return True


def doctor() -> int:
    from cni.operate.doctor import examine

    with this_host().transaction("examining the host") as host:
        return examine(host)


def watch() -> int:
    from cni.operate.watch import follow

    return follow()
