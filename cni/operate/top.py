"""Show traffic per container and per published port: packets, bytes, connections; busiest first.

A container's numbers are those of its link since it was attached, and rates since the last refresh. A port's numbers
are those of its living connections: bytes if the connection tracker counts them (sysctl
net.netfilter.nf_conntrack_acct=1), otherwise only the number of connections. The last line says which.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from cni.model.attachment import Attachment
    from cni.operate.counters import Reading, Traffic

HELP = "traffic per container and per published port"
EXAMPLES = ("nftcni top", "nftcni top --once", "nftcni top --json")
SCHEMA = "nftcni/top/1"
SOURCES = {
    "conntrack": "bytes of ports: living connections, from the connection tracker",
    "connections": "ports: connections only; sysctl -w net.netfilter.nf_conntrack_acct=1 counts bytes from then on",
    "none": "ports: the connection tracker cannot be read (install the package conntrack)",
}
UNITS = ("B", "K", "M", "G", "T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="one look, also on a terminal")
    parser.add_argument("--interval", type=float, default=2.0, metavar="SECONDS", help="between two looks (2)")
    parser.add_argument("--json", action="store_true", help="one look, for programs (schema nftcni/top)")


def run(arguments: argparse.Namespace) -> int:
    import time

    from cni.operate import counters
    from cni.operate.listing import container_names_of
    from cni.operate.repair import this_host
    from cni.operate.screen import is_terminal, print_json

    interval = max(arguments.interval, 0.2)
    before: Reading | None = None
    while True:
        with this_host().transaction("reading the counters") as host:
            items = host.records()
        names = container_names_of(items)
        reading = counters.read(items)
        if arguments.json:
            print_json(document(items, reading, names))
            return 0
        if before is None and is_terminal() and not arguments.once:
            before = reading
        elif is_terminal() and not arguments.once:
            print("\033[H\033[2J", end="")
        print(screen(items, reading, names, before, interval), flush=True)
        if arguments.once or not is_terminal():
            return 0
        before = reading
        time.sleep(interval)


def document(items: list[Attachment], reading: Reading, names: dict[str, str]) -> dict[str, object]:
    """The JSON document of the schema nftcni/top."""
    return {
        "schema": SCHEMA,
        "source": reading.source,
        "containers": [
            {"attachment": item.ident, "name": names.get(item.container, ""), **numbers(reading.containers[item.ident])}
            for item in items
            if item.ident in reading.containers
        ],
        "ports": [
            {"attachment": ident, "port": mapping, **numbers(traffic), "connections": traffic.connections}
            for (ident, mapping), traffic in reading.ports.items()
        ],
    }


def numbers(traffic: Traffic) -> dict[str, int]:
    return {
        "packetsIn": traffic.packets_in,
        "bytesIn": traffic.bytes_in,
        "packetsOut": traffic.packets_out,
        "bytesOut": traffic.bytes_out,
    }


def screen(
    items: list[Attachment], reading: Reading, names: dict[str, str], before: Reading | None, interval: float
) -> str:
    """The text of one refresh."""
    from cni.operate.screen import columns, paint, short_id

    rows = []
    for item in items:
        traffic = reading.containers.get(item.ident)
        if traffic is None:
            continue
        last = before.containers.get(item.ident) if before else None
        rate_in = human((traffic.bytes_in - last.bytes_in) / interval) + "/s" if last else "-"
        rate_out = human((traffic.bytes_out - last.bytes_out) / interval) + "/s" if last else "-"
        total = traffic.bytes_in + traffic.bytes_out
        name = names.get(item.container) or short_id(item.container)
        row = (item.network, name, rate_in, rate_out, human(traffic.bytes_in), human(traffic.bytes_out))
        rows.append((total, (*row, str(traffic.packets_in), str(traffic.packets_out))))
    rows.sort(key=lambda row: -row[0])
    header = ("NETWORK", "CONTAINER", "IN", "OUT", "BYTES IN", "BYTES OUT", "PACKETS IN", "PACKETS OUT")
    ports = sorted(reading.ports.items(), key=lambda one: (-one[1].bytes_in - one[1].bytes_out, -one[1].connections))
    lines = [
        (mapping, ident, str(one.connections), human(one.bytes_in), human(one.bytes_out))
        for (ident, mapping), one in ports
    ]
    text = columns(header, [row for _total, row in rows])
    if lines:
        text += "\n\n" + columns(("PORT", "LEADS TO", "CONNECTIONS", "BYTES IN", "BYTES OUT"), lines)
    return f"{text}\n{paint(SOURCES[reading.source], 'dim')}"


def human(number: float) -> str:
    """A number with a unit prefix, short."""
    for unit in UNITS:
        if number < 1024 or unit == UNITS[-1]:
            return f"{number:.0f}{unit}" if unit == "B" else f"{number:.1f}{unit}"
        number /= 1024
    return ""
