"""How much traffic each published port and each container had, from what the kernel counts anyway.

For containers, every kernel counts what passes their links. For ports, the connection tracker's accounting
(net.netfilter.nf_conntrack_acct) counts living connections; if it is off, only the number of connections is known.
`source` says which. Looking switches nothing on, and adds nothing to a packet's way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cni.model.attachment import Attachment
from cni.model.ports import PortMapping
from cni.operate.screen import CannotLook
from cni.operate.walk.kernel import Kernel
from cni.operate.walk.ruleset import program


@dataclass
class Traffic:
    """`in` is towards the container."""

    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0
    connections: int = 0

    def add(self, other: Traffic) -> None:
        for name in ("packets_in", "bytes_in", "packets_out", "bytes_out", "connections"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Reading:
    """What was counted, by container and by port."""

    containers: dict[str, Traffic] = field(default_factory=dict)  # by identity
    ports: dict[tuple[str, str], Traffic] = field(default_factory=dict)  # by (identity, mapping)
    source: str = ""  # where the ports' numbers come from: conntrack, connections (only their number), or none


def read(items: list[Attachment]) -> Reading:
    """The counters of these attachments, as far as the kernel has them."""
    found = Reading()
    links = _links() if items else {}
    for item in items:
        if item.kind.own_link and item.link in links:
            found.containers[item.ident] = links[item.link]
    lines, counted = flows()
    found.source = "none" if lines is None else "conntrack" if counted else "connections"
    index = {
        (mapping.protocol, str(address), mapping.container_port, mapping.host_port): (item.ident, str(mapping))
        for item in items
        for mapping in item.mappings
        for address in [address_for(item, mapping)]
    }
    for mapping_key in index.values():
        found.ports[mapping_key] = Traffic()
    for line in lines or ():
        flow = parse_flow(line)
        if flow is not None and flow[0] in index:
            found.ports[index[flow[0]]].add(flow[1])
    return found


def address_for(item: Attachment, mapping: PortMapping) -> str:
    assert mapping.host_ip is not None, "records hold concrete host addresses only"
    return str(item.address_of(mapping.host_ip.version))


def _links() -> dict[str, Traffic]:
    """The counters of the host ends, by name: what such a link sends is what the container gets."""
    kernel = Kernel()
    try:
        return {
            name: Traffic(*(link.counters.get(key, 0) for key in ("tx_packets", "tx_bytes", "rx_packets", "rx_bytes")))
            for name, link in kernel.links.items()
        }
    finally:
        kernel.close()


def flows() -> tuple[list[str] | None, bool]:
    """(lines of the tracker's table, None if it cannot be read; whether they have counters)."""
    try:
        with open("/proc/thread-self/net/nf_conntrack", encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        try:
            lines = program("conntrack", "-L", "-o", "extended").splitlines()
            lines += program("conntrack", "-L", "-f", "ipv6", "-o", "extended").splitlines()
        except CannotLook:
            return None, False
    return lines, accounting() == "1"


def accounting() -> str:
    try:
        with open("/proc/sys/net/netfilter/nf_conntrack_acct", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def parse_flow(line: str) -> tuple[tuple[str, str, int, int], Traffic] | None:
    """((protocol, container's address, its port, the host's port), traffic) of one flow; None for flows of other
    kinds."""
    words = line.split()
    proto = next((word for word in words[:6] if word in ("tcp", "udp", "sctp")), "")
    values: dict[str, list[str]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            values.setdefault(name, []).append(value)
    if not proto or any(len(values.get(name, ())) < 2 for name in ("src", "dst", "sport", "dport")):
        return None
    from nft.addresses import parse_address

    try:
        inside = str(parse_address(values["src"][1]))
        key = (proto, inside, int(values["sport"][1]), int(values["dport"][0]))
    except ValueError:
        return None
    counted = [
        [int(value) for value in values.get(name, ()) if re.fullmatch(r"\d+", value)] for name in ("packets", "bytes")
    ]
    packets, octets = ((numbers + [0, 0])[:2] for numbers in counted)
    return key, Traffic(packets[0], octets[0], packets[1], octets[1], 1)
