"""Real SCTP associations through a published port, which most development machines' kernels cannot make."""

from __future__ import annotations

import socket

import pytest
from kernels.scenarios import scene
from kernels.scenarios.scene import GATE4, HOST4, HOST6, LAN4, LAN6, PATIENCE
from support.scratch import Host, Namespace
from support.traffic import open_socket

PUBLISHED = [
    ("lan", HOST4, LAN4),
    ("lan", HOST6, LAN6),
    ("host", HOST4, HOST4),
    ("host", HOST6, HOST6),
    ("host", "127.0.0.1", GATE4),
    ("web", HOST4, GATE4),
]


def told(place: Namespace, address: str) -> str:
    """Without a question: a server that ends while it has not read one aborts the association, its answer with it."""
    with open_socket(place, socket.AF_INET6 if ":" in address else socket.AF_INET, "sctp") as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect((address, 7777))
            return sock.recv(2048).decode()
        except OSError as error:
            return type(error).__name__


@pytest.mark.parametrize("br_netfilter", ["0", "1"])
def test_associations(host: Host, br_netfilter: str) -> None:
    host.bridge_netfilter(br_netfilter)
    scene.build(host)
    published = [*PUBLISHED, *scene.seen_of_sibling(br_netfilter)]
    with scene.serving_web(host, "sctp"):
        answers = {(asker, to): told(host.place(asker), to) for asker, to, _ in published}
    assert answers == {(asker, to): f"web {seen}" for asker, to, seen in published}
    host.delete(scene.config("web"), "web")
    assert told(host.place("lan"), HOST4) == "ConnectionRefusedError"
