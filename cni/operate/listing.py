"""List what is attached to this host: a table on a terminal, one plain line for each attachment in a pipe.

The columns of the plain form will not change: identity, link@bridge, addresses, ports. PATTERN is a part of a name, an
ID, a network or an address, or a shell pattern for one of them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from cni.host import Host
    from cni.model.attachment import Attachment

HELP = "who is attached, with addresses and ports"
EXAMPLES = ("nftcni list", "nftcni list web", "nftcni list --port 8080", "nftcni list '10.4.0.*' --json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", help="only attachments that match it")
    parser.add_argument("--port", type=int, metavar="N", help="only attachments that publish this host port")
    parser.add_argument("--json", action="store_true", help="for programs: the records (schema nftcni/list)")


def run(arguments: argparse.Namespace) -> int:
    from cni.operate.repair import describe, this_host
    from cni.operate.screen import is_terminal, print_json
    from cni.state.record import to_document

    with this_host().transaction("listing the attachments") as host:
        items = host.records()
        ages = {item.ident: seconds_since_add(host, item) for item in items}
    names = container_names_of(items)
    items = [item for item in items if matches(item, names.get(item.container, ""), arguments.pattern, arguments.port)]
    if arguments.json:
        print_json([{**to_document(item), "runtimeName": names.get(item.container, "")} for item in items])
    elif is_terminal():
        print(_table(items, names, ages))
    else:
        for item in items:
            print(describe(item))
    return 0


def container_names_of(items: list[Attachment]) -> dict[str, str]:
    from cni.operate.container_names import container_names

    return container_names() if items else {}


def seconds_since_add(host: Host, item: Attachment) -> float:
    """The record file's age: since its ADD, or since a plugin later in the chain or a hand-over of ports changed it."""
    import os
    import time

    try:
        return time.time() - os.stat(host.store.record_path(item.ident)).st_mtime
    except OSError:
        return 0.0


def matches(item: Attachment, name: str, pattern: str | None, port: int | None) -> bool:
    """Whether the attachment matches the pattern and the port; None matches all."""
    from fnmatch import fnmatchcase

    if port is not None and port not in {mapping.host_port for mapping in item.mappings}:
        return False
    if not pattern:
        return True
    words = [item.ident, item.network, item.container, name, item.bridge, *map(str, item.addresses)]
    return any(pattern in word or fnmatchcase(word, pattern) for word in words)


def _table(items: list[Attachment], names: dict[str, str], ages: dict[str, float]) -> str:
    from cni.operate.repair import unfinished
    from cni.operate.screen import age, columns, short_id

    header = ("NAME", "CONTAINER", "NETWORK", "IF", "ADDRESSES", "PORTS", "BRIDGE", "AGE")
    rows = [
        (
            names.get(item.container, "-"),
            short_id(item.container),
            item.network,
            item.ifname,
            " ".join(str(address) for address in item.addresses) or "-",
            f"{port_words(item)} {unfinished(item)}".strip(),
            item.bridge or "-",
            age(ages[item.ident]),
        )
        for item in items
    ]
    return columns(header, rows)


def port_words(item: Attachment) -> str:
    """The published ports. A port of all host addresses is printed without an address, to keep the line short."""
    words = dict.fromkeys(
        (
            f"{mapping.host_port}"
            if mapping.host_ip is None or mapping.host_ip.is_unspecified
            else str(mapping).rpartition("/")[0]
        )
        + f"->{mapping.container_port}/{mapping.protocol}"
        for mapping in item.mappings
    )
    return " ".join(words) or "-"
