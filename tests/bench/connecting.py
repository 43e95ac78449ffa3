"""What a published port costs a client, by how many are published: connect(2) and no more, one more UDP packet of a
known flow, and the first one of a new flow. Each takes its turn, so that its time is one over the rate.
"""

from __future__ import annotations

import socket
import struct
import time

from hosts import BenchHost, neighbour
from peers import Container
from processes import Series, Space

ROUND = 100
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: no TIME_WAIT is left behind


class Route:
    """From a neighbour through one published port of a host to a container that listens."""

    def __init__(self, host: BenchHost, container: Container, index: int, lan: Space | None = None) -> None:
        self.lan = lan or neighbour(host)
        self.port = int(str(container.ports[index]["HostPort"]))
        self.series = Series()
        with container.space.entered():
            self.server = socket.socket()
        self.server.bind(("0.0.0.0", int(str(container.ports[index]["ContainerPort"]))))
        self.server.listen(2 * ROUND)
        self.server.settimeout(5)  # the last packet of a handshake may come a moment after connect(2) is done

    def sample(self, count: int = ROUND) -> None:
        """Times in microseconds. Nobody else has to run for a handshake; connections are taken off afterwards."""
        with self.lan.entered():
            clients = [socket.socket() for _ in range(count)]
        for client in clients:
            client.settimeout(5)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            start = time.perf_counter()
            client.connect(("198.51.100.1", self.port))
            self.series.values.append((time.perf_counter() - start) * 1e6)
        # All are accepted first: they may come in another order, and a reset ends one that was not accepted yet.
        accepted = [self.server.accept()[0] for _ in clients]
        for end in (*clients, *accepted):
            end.close()


class Packets:
    """Datagrams of one flow to the container's first UDP port: send(2) carries each through the host to its socket."""

    def __init__(self, lan: Space, container: Container) -> None:
        self.series = Series()
        self.lan = lan
        port = next(port for port in container.ports if port["Protocol"] == "udp")
        with container.space.entered():
            self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.server.bind(("0.0.0.0", int(str(port["ContainerPort"]))))
        with lan.entered():
            self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client.connect(("198.51.100.1", int(str(port["HostPort"]))))
        self.client.settimeout(5)
        self.server.settimeout(5)
        self.client.send(b"?")  # with an answer the flow is established
        self.server.sendto(b"!", self.server.recvfrom(100)[1])
        self.client.recv(100)

    def sample(self, count: int = 20 * ROUND) -> None:
        """Microseconds a packet. Nobody reads them: what the socket has no room for is dropped there."""
        start = time.perf_counter()
        for _ in range(count):
            self.client.send(b"x" * 64)
        self.series.values.append((time.perf_counter() - start) * 1e6 / count)


class Queries:
    """As a resolver gets them: each from another port, the first of a flow."""

    def __init__(self, known: Packets) -> None:
        self.known = known
        self.series = Series()

    def sample(self, count: int = ROUND) -> None:
        """Microseconds of each send(2), which passes the rules of its port. What is not read is dropped at the end."""
        with self.known.lan.entered():
            clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
        for client in clients:
            client.connect(self.known.client.getpeername())
            start = time.perf_counter()
            client.send(b"?")
            self.series.values.append((time.perf_counter() - start) * 1e6)
        for client in clients:
            client.close()


def measure(routes: list[Route | Packets | Queries], rounds: int) -> None:
    for route in routes:
        route.sample(20)  # neighbours learn of each other
        route.series.values.clear()
    for index in range(rounds):
        for route in routes if index % 2 else list(reversed(routes)):
            route.sample()
