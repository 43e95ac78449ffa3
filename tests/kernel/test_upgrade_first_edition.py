"""From the table's first edition (0.1.0) to this one: under traffic, and nobody is shut out or let in by it.

What 0.1.0 has in the kernel and on disk is written here as it was: its table, its elements, its record: of schema
1, or of schema 2, which came between the versions.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from support.scratch import Host, network, port
from support.traffic import Server, ask, open_socket, serving

CONFIG = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)])
NEXT = network("net0", "10.88.0.0/24", "fd00:88::/64", gatewayMode="open")
TABLE = """
table inet nftcni {
	comment "COMMENT"
	set attachments { type ipv6_addr; elements = { MARKER comment "net0/c1/eth0" }; }
	set bridges { type ifname; elements = { "br-net0" }; }
	set isolated { type ifname; elements = { "br-net0" }; }
	set same_net { type ifname . ifname; elements = { "br-net0" . "br-net0" }; }
	set own4 { type ipv4_addr . ifname; elements = { 10.88.0.2 . "br-net0" comment "net0/c1/eth0" }; }
	set own6 { type ipv6_addr . ifname; elements = { fd00:88::2 . "br-net0" comment "net0/c1/eth0" }; }
	set masq4 { type ipv4_addr; elements = { 10.88.0.2 comment "net0/c1/eth0" }; }
	set masq6 { type ipv6_addr; elements = { fd00:88::2 comment "net0/c1/eth0" }; }
	map dnat4 { type inet_proto . inet_service : ipv4_addr . inet_service;
		elements = { tcp . 8080 comment "net0/c1/eth0" : 10.88.0.2 . 80 }; }
	map dnat4_ip { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
	map dnat6 { type inet_proto . inet_service : ipv6_addr . inet_service;
		elements = { tcp . 8080 comment "net0/c1/eth0" : fd00:88::2 . 80 }; }
	map dnat6_ip { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
	chain portmap {
		dnat ip to ip daddr . meta l4proto . th dport map @dnat4_ip
		dnat ip to meta l4proto . th dport map @dnat4
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @dnat6_ip
		dnat ip6 to meta l4proto . th dport map @dnat6
	}
	chain nat_prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump portmap
	}
	chain nat_postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ct status dnat ip saddr . oifname @own4 masquerade
		ip saddr . oifname @own4 return
		ip saddr @masq4 oifname != @bridges ip daddr != 224.0.0.0/4 masquerade
	}
	chain filter_forward {
		type filter hook forward priority filter; policy accept;
		ct state established,related accept
		ct status dnat oifname @bridges accept
		iifname . oifname @same_net accept
		iifname @bridges oifname @isolated drop
		iifname @isolated oifname @bridges drop
	}
}
"""


@pytest.fixture
def first(host: Host) -> Host:
    """A host as 0.1.0 leaves it after one ADD."""
    host.neighbour()
    host.set_sysctl("ipv4/ip_forward", "1")
    host.add(CONFIG)
    listed = host.run("nft", "list", "table", "inet", "nftcni")
    comment, marker = (listed.split(before)[1].split('"')[0] for before in ('comment "', "elements = { "))
    words = comment.replace(comment.split()[1], "00000000", 1)
    host.run("nft", "delete", "table", "inet", "nftcni")
    host.nft(TABLE.replace("COMMENT", words).replace("MARKER", marker.split()[0]))
    (record,) = [host.file(path) for path in host.run("sh", "-c", "ls /run/nftcni/*.*/attachments/net0/*").split()]
    document = json.loads(Path(record).read_text())
    kept = {key: value for key, value in document.items() if key not in ("mode4", "mode6", "made", "opened", "direct")}
    Path(record).write_text(json.dumps({**kept, "schema": 2}))
    host.run("sh", "-c", "rm -r /run/nftcni/*.*/containers /run/nftcni/*.*/rules")
    return host


@pytest.mark.parametrize("way", ["add", "repair"])
def test_a_held_connection_through_a_published_port_survives(first: Host, way: str) -> None:
    lan = first.place("lan")
    with first.place("c1").entered():
        listener = socket.create_server(("0.0.0.0", 80))
    with listener, open_socket(lan, socket.AF_INET, "tcp") as client:
        client.settimeout(5)
        client.connect(("198.51.100.1", 8080))
        server, peer = listener.accept()
        with server:
            assert peer[0] == "198.51.100.2"
            if way == "add":
                first.add(NEXT, "c2")
            else:
                assert first.command("repair").returncode == 0
            for one, other in ((client, server), (server, client)):
                one.sendall(b"still here")
                assert other.recv(100) == b"still here"
    assert "containers4" in first.elements() and "own4" not in first.elements()
    assert first.command("repair", "--check").returncode == 0


def test_what_was_reached_by_a_route_still_is(first: Host) -> None:
    """Until the network gets a container that asks for more: then it is closed as a whole."""
    lan = first.place("lan")
    lan.run("ip", "route", "add", "10.88.0.0/24", "via", "198.51.100.1")
    with Server(first.place("c1"), 81):
        first.add(NEXT, "c2")
        assert ask(lan, "10.88.0.2", 81) == "c1 198.51.100.2"
        first.add(network("net0", "10.88.0.0/24"), "c3")
        assert ask(lan, "10.88.0.2", 81) == "silence"
    for name in ("c1", "c2", "c3"):
        first.delete(CONFIG, name)
    assert first.elements() == {} and first.state_files() == []


@pytest.mark.parametrize("schema", [1, 2])
def test_earlier_records_are_repaired_checked_and_detached(first: Host, schema: int) -> None:
    """As open, or as closed to other networks, as they were: by a repair alone nothing changes."""
    lan = first.place("lan")
    lan.run("ip", "route", "add", "10.88.0.0/24", "via", "198.51.100.1")
    (record,) = [first.file(path) for path in first.run("sh", "-c", "ls /run/nftcni/*.*/attachments/net0/*").split()]
    document = json.loads(Path(record).read_text())
    if schema == 1:
        document = {key: value for key, value in document.items() if key != "kind"}
        document.update(schema=1, own_link=True, own_leases=True)
        Path(record).write_text(json.dumps(document))
    assert first.command("repair").returncode == 0
    assert first.command("repair", "--check").returncode == 0
    addresses = [{"address": lease["address"]} for lease in document["leases"]]
    previous = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/c1"}], "ips": addresses}
    for item in previous["ips"]:
        item["interface"] = 0
    checked = first.cni("CHECK", {**CONFIG, "prevResult": previous})
    assert checked.status == 0, checked.words
    other = network("other", "10.89.0.0/24", gatewayMode="open")
    first.add(other, "o1")
    with serving(Server(first.place("c1"), 80), Server(first.place("c1"), 81)):
        assert ask(lan, "10.88.0.2", 81) == "c1 198.51.100.2"
        assert ask(lan, "198.51.100.1", 8080) == "c1 198.51.100.2"
        assert ask(first.place("o1"), "10.88.0.2", 81) == "silence"
        assert ask(first.place("o1"), "10.89.0.1", 8080) == "c1 10.89.0.2"
    first.delete(other, "o1")
    first.delete(CONFIG)
    assert first.elements() == {} and first.state_files() == []
