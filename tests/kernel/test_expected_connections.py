"""A connection that a helper of the connection tracker expects passes to its end, also where nothing is translated.

Its first packets passed and all that followed was dropped: they are `related`, and these are not. The helper is FTP's;
as its users do, somebody's table asks for it.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest
from support.scratch import Host, Namespace, network, port
from support.traffic import open_socket

NET = ("10.88.0.0/24", "fd00:88::/64")
LAN = {4: "198.51.100.2", 6: "2001:db8:100::2"}
HOST = {4: "198.51.100.1", 6: "2001:db8:100::1"}
WEB = {4: "10.88.0.2", 6: "fd00:88::2"}
HELPER = """table inet helpers {
    ct helper ftp { type "ftp" protocol tcp; }
    chain prerouting {
        type filter hook prerouting priority filter;
        tcp dport 21 ct helper set "ftp"
    }
}"""
DATA = 5555
SILENCE = 1.0  # seconds


def listening(place: Namespace, version: int, number: int) -> socket.socket:
    listener = open_socket(place, socket.AF_INET6 if version == 6 else socket.AF_INET, "tcp")
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::" if version == 6 else "0.0.0.0", number))
    listener.listen()
    listener.settimeout(5)
    return listener


def told(client: Namespace, server: Namespace, address: str, version: int) -> bool:
    """Whether a whole data connection passes, to the port that the server names in extended passive mode (RFC 2428)."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    with contextlib.ExitStack() as sockets:
        control, data = (sockets.enter_context(listening(server, version, number)) for number in (21, DATA))
        asker, reader = (sockets.enter_context(open_socket(client, family, "tcp")) for _ in range(2))
        asker.settimeout(5)
        asker.connect((address, 21))
        session = sockets.enter_context(control.accept()[0])
        for line in (b"220 ready\r\n", b"229 Entering Extended Passive Mode (|||%d|)\r\n" % DATA):
            session.sendall(line)
            assert asker.recv(100) == line
        reader.settimeout(SILENCE)
        data.settimeout(SILENCE)
        try:
            reader.connect((address, DATA))
            sender = sockets.enter_context(data.accept()[0])
            sender.settimeout(SILENCE)
            for number in range(3):
                for one, other in ((reader, sender), (sender, reader)):
                    one.sendall(b"%d" % number)
                    assert other.recv(10) == b"%d" % number
        except (TimeoutError, socket.timeout, ConnectionError):
            return False
        return True


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("keys", "addresses"),
    [
        ({"gatewayMode": "routed"}, WEB),
        ({"ipMasq": False}, HOST),
        ({"nonMasqueradeCIDRs": ["198.51.100.0/24", "2001:db8:100::/64"]}, HOST),
        ({}, HOST),
    ],
    ids=["routed", "no masquerade", "exception", "nat"],
)
def test_a_data_connection(host: Host, keys: Any, addresses: dict[int, str], version: int) -> None:
    lan = host.neighbour()
    lan.run("ip", "route", "add", NET[0], "via", HOST[4])
    lan.run("ip", "-6", "route", "add", NET[1], "via", HOST[6])
    host.add(network("net0", *NET, ports=[port(21, 21)], **keys))
    web = host.place("c1")
    assert not told(lan, web, addresses[version], version)  # nobody expects it
    assert told(web, lan, LAN[version], version)
    host.nft(HELPER)
    assert told(lan, web, addresses[version], version)
