"""Traffic inside scratch hosts: servers that say whom they see, and single questions to them.

Sockets are made in their namespace and used from the test's own process, so no program has to be started for them.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

from .scratch import Namespace

TYPES = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, 132),
}
QUICK = 1.3  # seconds after which silence counts as such; a first packet that got lost is sent again after one


def open_socket(namespace: Namespace, family: int, protocol: str) -> socket.socket:
    kind, number = TYPES[protocol]
    with namespace.entered():
        return socket.socket(family, kind, number)


class Server:
    """Answers each question with its own name and the address the question came from: `name 10.88.0.3`."""

    def __init__(
        self, namespace: Namespace, port: int, protocol: str = "tcp", name: str = "", address: str = ""
    ) -> None:
        self.name = name or namespace.name
        self.protocol = protocol
        self._sockets = [
            self._listen(namespace, family, address or anywhere, port)
            for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))
            if not address or (":" in address) == (family == socket.AF_INET6)
        ]
        self._stopping, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _listen(self, namespace: Namespace, family: int, address: str, port: int) -> socket.socket:
        sock = open_socket(namespace, family, self.protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        if self.protocol != "udp":
            sock.listen(64)
        return sock

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([*self._sockets, self._stopping], [], [])
            if self._stopping in ready:
                return
            for sock in ready:
                with contextlib.suppress(OSError):
                    self._answer(sock)

    def _answer(self, sock: socket.socket) -> None:
        if self.protocol == "udp":
            _, peer = sock.recvfrom(2048)
            sock.sendto(f"{self.name} {peer[0]}".encode(), peer)
            return
        connection, peer = sock.accept()
        with connection:
            connection.sendall(f"{self.name} {peer[0]}".encode())

    def close(self) -> None:
        self._stop.send(b"x")
        self._thread.join()
        for sock in [*self._sockets, self._stop, self._stopping]:
            sock.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ask(namespace: Namespace, address: str, port: int, protocol: str = "tcp", timeout: float = QUICK) -> str:
    """What the server behind the address said, "refused" for an immediate no, "silence" for none in time."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with open_socket(namespace, family, protocol) as sock:
        return ask_on(sock, address, port, timeout)


def ask_on(sock: socket.socket, address: str, port: int, timeout: float = QUICK) -> str:
    """The same over a socket that the caller keeps, and with it the local port."""
    sock.settimeout(timeout)
    try:
        sock.connect((address, port))
        sock.send(b"?")
        return sock.recv(2048).decode() or "closed"
    except (TimeoutError, socket.timeout):
        return "silence"
    except OSError:
        return "refused"


@contextlib.contextmanager
def serving(*servers: Server) -> Iterator[None]:
    try:
        yield
    finally:
        for server in servers:
            server.close()
