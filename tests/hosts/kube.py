"""Who asks which service on two nodes, and whom the pod behind it sees: of kube-proxy's stand-in and of the real one.

Pods a and b are on the first node, where b publishes 8080 by us; c is on the second. Without br_netfilter the answer of
a pod on the same bridge does not pass the host, so that its service can work only masqueraded; Kubernetes asks for
br_netfilter on its nodes.
"""

from __future__ import annotations

from collections.abc import Callable

from lan import Lan, seen
from support.scratch import port

PORTS = (port(8080, 80), port(8080, 80, "tcp", "::"))
SERVICES = {name: (f"10.96.0.{number}", f"fd00:96::{number}") for number, name in enumerate(("near", "far", "own"), 11)}
BEHIND = {"near": "b", "far": "c", "own": "a"}
NODE_PORTS = {"near": 30081, "far": 30082, "own": 30080}
POD_NETWORKS = ("10.244.0.0/16", "fd00:244::/32")
ROWS = {  # by whom, which service or whose address, port, who answers, whom it sees ("" for whomever)
    "pod to a service of another node": ("a", "far", 80, "c", "a"),
    "pod to a service that is itself": ("a", "own", 80, "a", ""),
    "node to a service of its own": ("h1", "near", 80, "b", ""),
    "node to a service of another node": ("h1", "far", 80, "c", "h1"),
    "the LAN to a node port": ("outside", "h1", 30081, "b", ""),
    "the LAN to a node port that leads to another node": ("outside", "h1", 30082, "c", "h1"),
    "pod to its node's port": ("a", "h1", 30081, "b", ""),
    "pod to its node's port that leads to itself": ("a", "h1", 30080, "a", ""),
    "pod to another node's port": ("a", "h2", 30082, "c", ""),
    "the LAN to our published port": ("outside", "h1", 8080, "b", "outside"),
    "pod to its own published port": ("b", "h1", 8080, "b", ""),
    "pod of another node to our published port": ("c", "h1", 8080, "b", "h2"),
    "pod to the world": ("a", "outside", 81, "outside", "h1"),
    "pod to pod": ("a", "c", 80, "c", "a"),
}


def prepare(lan: Lan, load: Callable[[], None]) -> None:
    """Nodes as Kubernetes asks for them, with their pods; `load` puts kube-proxy beside us."""
    one, two = lan.nodes
    lan.route()
    for node in lan.nodes:
        node.set_sysctl("ipv4/ip_forward", "1")
        node.set_sysctl("ipv6/conf/all/forwarding", "1")
    one.pod(one.pods(), "a")
    one.pod(one.pods(*PORTS), "b")
    two.pod(two.pods(), "c")
    load()


def check(lan: Lan, row: str, filtered: str, version: int) -> None:
    lan.nodes[0].bridge_netfilter(filtered)
    who, whose, number, answerer, sees = ROWS[row]
    address = SERVICES[whose][version == 6] if whose in SERVICES else lan.address(whose, version)
    answer = seen(lan.place(who), address, number)
    if sees:
        assert answer == f"{answerer} {lan.address(sees, version)}"
    else:
        assert answer.split()[0] == answerer


def check_same_node(lan: Lan, filtered: str, version: int) -> None:
    lan.nodes[0].bridge_netfilter(filtered)
    answer = seen(lan.place("a"), SERVICES["near"][version == 6])
    if filtered == "1":
        assert answer == f"b {lan.address('a', version)}"
    else:
        assert answer.split()[0] == "b"
