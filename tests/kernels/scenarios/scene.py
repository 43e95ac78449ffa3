"""Where most scenarios start: a LAN, two containers of one network, one of another, servers that say whom they see."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from support.scratch import Host, Json, Namespace, network, port
from support.traffic import Server, ask, serving

PATIENCE = 20.0  # for an answer that must come
NETS = {"net0": ("10.88.0.0/24", "fd00:88::/64"), "net1": ("10.89.0.0/24", "fd00:89::/64")}
PLACES = {"web": "net0", "sibling": "net0", "other": "net1"}
HOST4, HOST6, LAN4, LAN6 = "198.51.100.1", "2001:db8:100::1", "198.51.100.2", "2001:db8:100::2"
GATE4, GATE6 = "10.88.0.1", "fd00:88::1"
WEB4, WEB6 = "10.88.0.2", "fd00:88::2"
SIBLING4, SIBLING6 = "10.88.0.3", "fd00:88::3"
PORTS = [port(8080, 80, "tcp"), port(8080, 80, "udp"), port(7777, 77, "sctp")]


def config(name: str) -> Json:
    """Of a container's network; `web` publishes the ports."""
    return network(PLACES[name], *NETS[PLACES[name]], ports=PORTS if name == "web" else ())


def build(host: Host) -> dict[str, Json]:
    """All of it, attached; the results by container."""
    host.neighbour()
    host.set_sysctl("ipv4/icmp_ratemask", "0")  # refused UDP is an ICMP message, and only so many are sent a second
    host.set_sysctl("ipv6/icmp/ratelimit", "0")
    return {name: host.add(config(name), name) for name in PLACES}


@contextlib.contextmanager
def serving_web(host: Host, *protocols: str) -> Iterator[None]:
    """`web` and `lan` listen on port 80 (SCTP: 77)."""
    places = [host.place(name) for name in ("web", "lan")]
    with serving(*(Server(place, 77 if how == "sctp" else 80, how) for place in places for how in protocols)):
        yield


def seen_of_sibling(br_netfilter: str) -> list[tuple[str, str, str]]:
    """(asker, address, whom `web` sees): the answer stays on the bridge; only with br_netfilter the host sees it."""
    if br_netfilter == "1":
        return [("sibling", HOST4, SIBLING4), ("sibling", HOST6, SIBLING6)]
    return [("sibling", HOST4, GATE4), ("sibling", HOST6, GATE6)]


def heard(place: Namespace, address: str, number: int, protocol: str = "tcp") -> str:
    return ask(place, address, number, protocol, timeout=PATIENCE)
