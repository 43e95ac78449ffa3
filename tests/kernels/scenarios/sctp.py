"""Real SCTP associations through a published port, which most development machines' kernels cannot make."""

from __future__ import annotations

import socket

from kernels.scenarios import scene
from kernels.scenarios.scene import GATE4, GATE6, HOST4, HOST6, LAN4, LAN6, PATIENCE
from support.scratch import Host, Namespace
from support.traffic import open_socket

PUBLISHED = [
    ("lan", HOST4, LAN4),
    ("lan", HOST6, LAN6),
    ("host", HOST4, HOST4),
    ("host", HOST6, HOST6),
    ("host", "127.0.0.1", GATE4),
    ("web", HOST4, GATE4),
    ("sibling", HOST4, GATE4),
    ("sibling", HOST6, GATE6),
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


def test_associations(host: Host) -> None:
    scene.build(host)
    with scene.serving_web(host, "sctp"):
        answers = {(asker, to): told(host.place(asker), to) for asker, to, _ in PUBLISHED}
    assert answers == {(asker, to): f"web {seen}" for asker, to, seen in PUBLISHED}
    host.delete(scene.config("web"), "web")
    assert told(host.place("lan"), HOST4) == "ConnectionRefusedError"
