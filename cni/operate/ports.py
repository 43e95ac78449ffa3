"""List the published ports of this host, in order, each with the container to which it leads.

In a pipe the columns are: protocol, host address, host port, container address, container port, identity, name.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from cni.model.attachment import Attachment

HELP = "published ports, and where each leads"
EXAMPLES = ("nftcni ports", "nftcni ports --json")
SCHEMA = "nftcni/ports/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs (schema nftcni/ports)")


def run(arguments: argparse.Namespace) -> int:
    from cni.operate.listing import container_names_of
    from cni.operate.repair import this_host
    from cni.operate.screen import columns, is_terminal, print_json, short_id

    with this_host().transaction("listing the ports") as host:
        items = host.records()
    names = container_names_of(items)
    rows = published(items)
    if arguments.json:
        keys = ("protocol", "hostIP", "hostPort", "containerIP", "containerPort", "attachment", "name")
        entries = [dict(zip(keys, (*row, item.ident, names.get(item.container, "")))) for row, item in rows]
        print_json({"schema": SCHEMA, "ports": entries})
        return 0
    if is_terminal():
        header = ("PORT", "HOST ADDRESS", "LEADS TO", "NAME", "CONTAINER", "NETWORK")
        lines = [
            (
                f"{port}/{proto}",
                "all" if host_ip in ("0.0.0.0", "::") else host_ip,
                f"{inside}:{to}",
                names.get(item.container, "-"),
                short_id(item.container),
                item.network,
            )
            for (proto, host_ip, port, inside, to), item in rows
        ]
        print(columns(header, lines))
        return 0
    for row, item in rows:
        print("  ".join((*map(str, row), item.ident, names.get(item.container, "-"))))
    return 0


def published(items: list[Attachment]) -> list[tuple[tuple[str, str, int, str, int], Attachment]]:
    """((protocol, host address, host port, container's address, its port), attachment) of each published port, sorted
    by host port."""
    rows = []
    for item in items:
        for mapping in item.mappings:
            assert mapping.host_ip is not None, "records hold concrete host addresses only"
            inside = str(item.address_of(mapping.host_ip.version))
            rows.append(
                ((mapping.protocol, str(mapping.host_ip), mapping.host_port, inside, mapping.container_port), item)
            )
    return sorted(rows, key=lambda row: (row[0][2], row[0][0], row[0][1]))
