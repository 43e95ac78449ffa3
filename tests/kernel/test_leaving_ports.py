"""From which port a container's connections leave: its own if that is a client's, and nobody's published one."""

from __future__ import annotations

import socket

import pytest
from support.scratch import Host, Namespace, network, port
from support.traffic import QUICK, Server, ask_on, open_socket

NET = ("10.88.0.0/24", "fd00:88::/64")
HOST = {4: "198.51.100.1", 6: "2001:db8:100::1"}
LAN = {4: ("198.51.100.2", "198.51.100.3"), 6: ("2001:db8:100::2", "2001:db8:100::3")}
CLIENT, PUBLISHED, OWN = 5000, 8080, 40123


def bound(place: Namespace, version: int, address: str, number: int) -> socket.socket:
    made = open_socket(place, {4: socket.AF_INET, 6: socket.AF_INET6}[version], "udp")
    made.settimeout(QUICK)
    made.bind((address, number))
    return made


@pytest.mark.parametrize("version", [4, 6])
def test_a_container_that_leaves_by_a_published_number_takes_no_port(host: Host, version: int) -> None:
    """CVE-2021-3773: its connection to a client would stand for that client's own to the published port."""
    lan = host.neighbour()
    host.add(network("net0", *NET, ports=[port(PUBLISHED, 80, "udp")]), "owner")
    host.add(network("net0", *NET), "thief")
    client = LAN[version][0]
    thief = bound(host.place("thief"), version, "", PUBLISHED)
    asking = bound(lan, version, client, CLIENT)
    with thief, asking, Server(host.place("owner"), 80, "udp"):
        thief.sendto(b"mine", (client, CLIENT))
        _data, seen = asking.recvfrom(16)
        assert seen[0] == HOST[version] and seen[1] >= 32768
        assert ask_on(asking, HOST[version], PUBLISHED) == f"owner {client}"


@pytest.mark.parametrize("version", [4, 6])
def test_hole_punching_finds_the_same_port_at_every_destination(host: Host, version: int) -> None:
    """A port from 32768 on is the container's own; one below is moved, and to the same place for everybody."""
    lan = host.neighbour()
    lan.run("ip", "addr", "add", f"{LAN[version][1]}/{24 if version == 4 else 64}", "dev", "eth0", "nodad")
    host.add(network("net0", *NET), "peer")
    for own in (OWN, CLIENT):
        seen = []
        with bound(host.place("peer"), version, "", own) as peer:
            for address in LAN[version]:
                with bound(lan, version, address, 53) as far:
                    peer.sendto(b"?", (address, 53))
                    seen.append(far.recvfrom(16)[1][:2])
        assert seen[0] == seen[1] and seen[0][0] == HOST[version], seen
        assert (seen[0][1] == own) == (own == OWN), seen
