"""The C modules below `socket`, `struct` and `hashlib`, each with the public module as its fall-back.

The public ones cost 6, 0.1 and 3 ms of a start-up that takes 8: they build enums and load OpenSSL. CPython promises
nothing about the private ones, so ANY exception from one of them leads to the public module. `cni.stdlib` has those
that only the plugin needs.
"""

from __future__ import annotations

try:
    from _socket import (
        AF_INET,
        AF_INET6,
        AF_NETLINK,
        SO_RCVBUF,
        SO_SNDBUF,
        SOCK_CLOEXEC,
        SOCK_RAW,
        SOL_SOCKET,
        if_nametoindex,
        inet_ntop,
        inet_pton,
        socket,
    )
except Exception:
    from socket import (  # type: ignore[assignment]
        AF_INET,
        AF_INET6,
        AF_NETLINK,
        SO_RCVBUF,
        SO_SNDBUF,
        SOCK_CLOEXEC,
        SOCK_RAW,
        SOL_SOCKET,
        if_nametoindex,
        inet_ntop,
        inet_pton,
        socket,
    )

try:
    from _struct import Struct
except Exception:
    from struct import Struct

try:
    from _blake2 import blake2b
except Exception:
    from hashlib import blake2b

__all__ = [
    "AF_INET",
    "AF_INET6",
    "AF_NETLINK",
    "SO_RCVBUF",
    "SO_SNDBUF",
    "SOCK_CLOEXEC",
    "SOCK_RAW",
    "SOL_SOCKET",
    "Struct",
    "blake2b",
    "if_nametoindex",
    "inet_ntop",
    "inet_pton",
    "socket",
]
