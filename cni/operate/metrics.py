"""Print the numbers of `nftcni top`, and the state of this host, as Prometheus text.

It serves node_exporter's textfile collector (call it from a timer or cron), or a socket that answers each connection
once (nftcni-metrics.socket).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from cni.model.attachment import Attachment
    from cni.operate.counters import Reading

HELP = "the numbers of top as Prometheus text"
EXAMPLES = (
    "nftcni metrics",
    "nftcni metrics --output /var/lib/prometheus/node-exporter/nftcni.prom",
    "systemctl enable --now nftcni-metrics.socket",
)
LONGEST, PATIENCE = 65536, 5  # bytes of a request, and seconds between two parts of it
FAMILIES = (
    ("nftcni_attachments", "gauge", "Attachments of this host, by network."),
    ("nftcni_table_present", "gauge", "Whether table inet nftcni exists and is of this boot."),
    ("nftcni_container_bytes_total", "counter", "Bytes of a container's link, by direction as the container sees it."),
    ("nftcni_container_packets_total", "counter", "Packets of a container's link."),
    ("nftcni_port_connections", "gauge", "Living connections of a published port."),
    ("nftcni_port_bytes", "gauge", "Bytes of a published port's living connections, where they are counted."),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="FILE", help="write to this file, by rename")
    parser.add_argument("--http", action="store_true", help="with an HTTP head, for the socket unit")


def run(arguments: argparse.Namespace) -> int:
    import os
    import sys

    from cni.operate import counters
    from cni.operate.listing import container_names_of
    from cni.operate.repair import this_host
    from cni.state import files

    with this_host().transaction("reading the counters") as host:
        items = host.records()
        serves = host.handles.table_serves or not items
    text = exposition(items, counters.read(items), container_names_of(items), serves)
    if arguments.output:
        aside = f"{arguments.output}.new"
        try:
            with open(aside, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(aside, arguments.output)
        except OSError:
            files.unlink(aside)
            raise
        return 0
    if arguments.http:
        _take_request()
        size = len(text.encode())
        sys.stdout.write(
            f"HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {size}\r\n\r\n"
        )
    sys.stdout.write(text)
    return 0


def _take_request() -> None:
    """Reads the request: closing a socket with unread data resets the connection, and the answer may be lost
    (tcp_close)."""
    import os
    import select

    request = b""
    while not os.isatty(0) and b"\r\n\r\n" not in request and len(request) < LONGEST:
        readable, _, _ = select.select([0], [], [], PATIENCE)
        more = os.read(0, 4096) if readable else b""
        if not more:
            return
        request += more


def exposition(items: list[Attachment], reading: Reading, names: dict[str, str], serves: bool) -> str:
    """https://prometheus.io/docs/instrumenting/exposition_formats/"""
    samples: dict[str, list[tuple[dict[str, str], int]]] = {name: [] for name, _kind, _help in FAMILIES}
    networks: dict[str, int] = {}
    for item in items:
        networks[item.network] = networks.get(item.network, 0) + 1
        labels = {"network": item.network, "container": item.container, "name": names.get(item.container, "")}
        labels["interface"] = item.ifname
        traffic = reading.containers.get(item.ident)
        if traffic is not None:
            for way, octets, packets in (
                ("in", traffic.bytes_in, traffic.packets_in),
                ("out", traffic.bytes_out, traffic.packets_out),
            ):
                samples["nftcni_container_bytes_total"].append(({**labels, "direction": way}, octets))
                samples["nftcni_container_packets_total"].append(({**labels, "direction": way}, packets))
    samples["nftcni_attachments"] = [({"network": name}, number) for name, number in sorted(networks.items())]
    samples["nftcni_table_present"] = [({}, int(serves))]
    for (ident, mapping), traffic in reading.ports.items():
        labels = {"attachment": ident, "port": mapping}
        if reading.source != "none":
            samples["nftcni_port_connections"].append((labels, traffic.connections))
        if reading.source == "conntrack":
            samples["nftcni_port_bytes"].append(({**labels, "direction": "in"}, traffic.bytes_in))
            samples["nftcni_port_bytes"].append(({**labels, "direction": "out"}, traffic.bytes_out))
    lines = []
    for name, kind, text in FAMILIES:
        if samples[name]:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{_labels(labels)} {value}" for labels, value in samples[name]]
    return "\n".join(lines) + "\n"


def _labels(labels: dict[str, str]) -> str:
    def quoted(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{key}="{quoted(value)}"' for key, value in labels.items()) + "}" if labels else ""
