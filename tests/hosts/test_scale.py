"""A node of a cluster of 1000, by simulation: the routes to all others, as many exceptions from the masquerade, and
10 000 services of kube-proxy's shape beside us; against a node that has none. Ratios are printed, never asserted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
from lan import Lan, Node, seen
from support.scratch import Json, Namespace, network, port
from support.traffic import Server, serving

NODES, SERVICES, ROUNDS, CONNECTIONS = 1000, 10_000, 15, 300
PORTS = [port(8080, 80), port(8080, 80, "tcp", "::")]
EXCEPTIONS = [
    *(f"10.{64 + number // 256}.{number % 256}.0/24" for number in range(0, 2 * NODES, 2)),
    *(f"fd00:{number:x}::/64" for number in range(1, NODES + 1)),
]
SERVICE = """
table ip kube-proxy {{
    chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump dispatch; }}
    chain nat-output {{ type nat hook output priority -100; jump dispatch; }}
    chain service {{ meta l4proto tcp dnat to 10.64.0.9:80; }}
    map services {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {elements} }} }}
    chain dispatch {{ ip daddr . meta l4proto . th dport vmap @services; }}
}}
"""


def crowd(node: Node) -> None:
    """Routes to and services of everybody else."""
    lines = [f"route replace {prefix} via {node.address[:-3]}200" for prefix in EXCEPTIONS if "." in prefix]
    lines += [f"route replace {prefix} via 2001:db8::200" for prefix in EXCEPTIONS if ":" in prefix]
    node.file("/run/routes").write_text("\n".join(lines))
    node.run("ip", "-batch", "/run/routes")
    keys = (f"10.96.{number // 250}.{number % 250} . tcp . 80 : goto service" for number in range(SERVICES))
    node.nft(SERVICE.format(elements=",".join(keys)))


def config(*exceptions: str) -> Json:
    return network("net0", "10.88.0.0/24", "fd00:88::/64", gatewayMode="open", nonMasqueradeCIDRs=[*exceptions])


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def test_ratios(lan: Lan, capsys: pytest.CaptureFixture[str]) -> None:
    """Samples of both nodes alternate, so that the machine's mood falls on both."""
    quiet, crowded = lan.nodes
    crowd(crowded)
    configs = {quiet: config(), crowded: config(*EXCEPTIONS)}
    found: dict[str, dict[Node, list[float]]] = {
        name: {quiet: [], crowded: []} for name in ("start", "ADD", "DEL", "connection", "published port")
    }
    inside: dict[Node, Namespace] = {node: node.pod(configs[node], f"first-{node.name}") for node in configs}
    crowded.container("c1")
    quiet.container("c1")
    for _ in range(ROUNDS):
        for node, document in configs.items():
            with_ports = {**document, "runtimeConfig": {"portMappings": PORTS}}
            found["start"][node].append(timed(lambda node=node: node.run("true")))
            found["ADD"][node].append(timed(lambda node=node, item=with_ports: node.add(item)))
            found["DEL"][node].append(timed(lambda node=node, item=with_ports: node.delete(item)))
    for node, document in configs.items():
        node.add({**document, "runtimeConfig": {"portMappings": PORTS}})
    servers = [Server(next(item for item in node.namespaces if item.name == "c1"), 80) for node in configs]
    with serving(*servers):
        for _ in range(CONNECTIONS):
            for node in configs:
                sample = timed(lambda node=node: seen(inside[node], lan.outside.address, 81))
                found["connection"][node].append(sample)
                sample = timed(lambda node=node: seen(lan.outside, node.address, 8080))
                found["published port"][node].append(sample)
        for node in configs:
            assert seen(inside[node], lan.outside.address, 81) == f"outside {node.address}"
            assert seen(lan.outside, node.address, 8080) == f"c1 {lan.outside.address}"
    start = statistics.median(found.pop("start")[quiet])
    with capsys.disabled():
        print(f"\n1 node of {NODES}, {len(EXCEPTIONS)} exceptions, {SERVICES} services, against an empty one:")
        for name, samples in found.items():
            fixed = start if name in ("ADD", "DEL") else 0.0
            few, many = (statistics.median(samples[node]) - fixed for node in (quiet, crowded))
            print(f"  {name}: {many / few:.2f} times ({few * 1000:.1f} and {many * 1000:.1f} ms)")
