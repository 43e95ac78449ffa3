"""Who asks whom on two nodes, and whom the asked one sees: the same questions for every way that routes are made.

Pods a and b are on the first node, c on the second, whose port 8080 is published. The model is Kubernetes': pods reach
pods on other nodes without translation, and what leaves the cluster is masqueraded.
"""

from __future__ import annotations

from lan import Lan, seen
from support.scratch import port

PORTS = (port(8080, 80), port(8080, 80, "tcp", "::"), port(8081, 80, "tcp", "192.0.2.102"))
ROWS = {  # by whom, whose address, port, who answers, whom it sees ("" for whomever)
    "pod to pod of another node": ("a", "c", 80, "c", "a"),
    "and back": ("c", "a", 80, "a", "c"),
    "pod to sibling": ("a", "b", 80, "b", "a"),
    "pod to the world": ("a", "outside", 81, "outside", "h1"),
    "node to its pod": ("h1", "a", 80, "a", ""),
    "node to pod of another node": ("h1", "c", 80, "c", ""),
    "the LAN to a published port": ("outside", "h2", 8080, "c", "outside"),
    "node to another node's published port": ("h1", "h2", 8080, "c", "h1"),
    "node to its own published port": ("h2", "h2", 8080, "c", ""),
    "pod to another node's published port": ("a", "h2", 8080, "c", "h1"),
    "pod to its own published port": ("c", "h2", 8080, "c", ""),
}


def check(lan: Lan, row: str, version: int) -> None:
    who, whose, number, answerer, sees = ROWS[row]
    answer = seen(lan.place(who), lan.address(whose, version), number)
    if sees:
        assert answer == f"{answerer} {lan.address(sees, version)}"
    else:
        assert answer.split()[0] == answerer
