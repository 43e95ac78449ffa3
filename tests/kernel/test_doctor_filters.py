"""Broken by somebody's firewall: `explain` names the chain, and its remedy opens what is published, nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.broken import SHORT, Case, Scene, examine
from support.scratch import Host, network, port
from support.traffic import Server, ask, serving

FORWARD = "type filter hook forward priority filter"
DROP = f"{FORWARD}; policy drop"


def table(name: str, chain: str, body: str) -> str:
    """A table with one chain, loaded by the nft program."""
    return f"nft -f - <<'END'\ntable {name} {{\n chain {chain} {{\n{body}\n }}\n}}\nEND"


CASES = [
    Case(
        "iptables policy", "iptables-nft -P FORWARD DROP", ("FORWARD", "ip filter", "policy"), "iptables", closed=True
    ),
    Case("made by nft", table("ip filter", "FORWARD", DROP), ("FORWARD", "ip filter"), "-I FORWARD", closed=True),
    Case(
        "nftables.conf", table("inet filter", "forward", DROP), ("forward", "inet filter"), "insert rule", closed=True
    ),
    Case(
        "drop rule", table("inet fw", "fc", f"{FORWARD}\n drop"), ("inet fw", "fc", "drop"), "insert rule", closed=True
    ),
    Case(
        "final reject",
        table(
            "inet firewalld",
            "filter_FORWARD",
            "type filter hook forward priority 10; policy accept;\n"
            "ct state established,related accept\n reject with icmpx admin-prohibited",
        ),
        ("inet firewalld", "filter_FORWARD", "reject"),
        "insert rule",
        closed=True,
    ),
    Case(
        "reset",
        table("ip fw", "fc", f"{FORWARD}\n tcp dport 80 reject with tcp reset"),
        ("ip fw", "fc", "reject"),
        "insert rule",
    ),
    Case(
        "the port in raw",
        table("inet raw", "pre", "type filter hook prerouting priority -300\n tcp dport 8080 drop"),
        ("inet raw", "pre", "8080"),
        "tcp dport 8080",
    ),
    Case(
        "the port in mangle",
        "iptables-nft -t mangle -A PREROUTING -p tcp -m multiport --dports 8000:8100 -j DROP",
        ("ip mangle", "PREROUTING"),
        "-t mangle -I PREROUTING",
    ),
    Case(
        "a policy before the route is looked up",  # behind DNAT: the remedy asked for the published port there
        table(
            "inet fw",
            "pre",
            "type filter hook prerouting priority filter; policy drop;\n ct state established,related accept\n"
            " icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n iifname lo accept",
        ),
        ("inet fw", "pre", "policy"),
        "ct status dnat",
        see="doctor",
        closed=True,
    ),
    Case(
        "a group of links",
        "ip link set to-lan group 7;" + table("inet fw", "fc", f"{FORWARD}\n iifgroup 7 drop"),
        ("inet fw", "fc", "iifgroup"),
        "insert rule",
    ),
    Case(
        "flags of TCP",
        table("inet fw", "fc", f"{FORWARD}\n tcp flags & (syn | ack) == syn | ack drop"),
        ("inet fw", "fc", "drop"),
        "insert rule",
    ),
    Case(
        "without IPsec",
        "iptables-nft -A FORWARD -m policy --dir in --pol ipsec --proto esp -j ACCEPT; iptables-nft -A FORWARD -j DROP",
        ("ip filter", "FORWARD", "DROP"),
        "-I FORWARD",
        closed=True,
    ),
    Case(
        "the bridge is named, by a drop",
        table("inet fw", "fc", f'{DROP}\n oifname "br0" drop'),
        ("inet fw", "fc", "br0"),
        "insert rule",
        closed=True,
    ),
    Case(
        "only outward",
        table("inet fw", "fc", f'{DROP}\n ct state established,related accept\n iifname "br0" accept'),
        ("inet fw", "policy"),
        "ct status dnat",
        closed=True,
    ),
    Case(
        "only inward",
        table("inet fw", "fc", f'{DROP}\n oifname "br0" accept'),
        ("inet fw", "policy"),
        'iifname "br0"',
    ),
    Case(
        "published, but nothing goes out",
        table("inet fw", "fc", f"{DROP}\n ct state established,related accept\n ct status dnat accept"),
        ("inet fw", "policy"),
        'iifname "br0"',
        path="out",
        see="doctor",
        closed=True,
    ),
    Case(
        "by the containers' subnet",
        table("inet fw", "fc", f"{FORWARD}\n ip saddr 10.88.0.0/16 ct state new drop"),
        ("inet fw", "10.88.0.0/16"),
        "insert rule",
        path="out",
        see="explain web",
    ),
    Case(
        "a device's ingress",
        table("netdev wall", "in", "type filter hook ingress device to-lan priority 0\n tcp dport 8080 drop"),
        ("netdev wall", "8080"),
        "insert rule netdev wall in",
    ),
    Case(
        "frames to the port",
        table("bridge fw", "out", "type filter hook output priority 0\n ip daddr 10.88.0.2 drop"),
        ("bridge fw", "out"),
        "ip daddr",
    ),
    Case(
        "frames from the port",
        table("bridge fw", "in", "type filter hook prerouting priority 0\n ether type ip drop"),
        ("bridge fw", "in"),
        "ip saddr",
    ),
    Case(
        "postrouting",
        table("inet fw", "post", 'type filter hook postrouting priority 0\n oifname "br0" drop'),
        ("inet fw", "post"),
        "insert rule inet fw post",
    ),
    Case(
        "iptables-legacy",
        "iptables-legacy -P FORWARD DROP",
        ("iptables-legacy", "policy"),
        "iptables-legacy -I",
        closed=True,
    ),
    Case(
        "iptables-legacy, a rule",
        "iptables-legacy -N blocked; iptables-legacy -A FORWARD -o br+ -j blocked;"
        "iptables-legacy -A blocked -p tcp -j DROP",
        ("iptables-legacy", "blocked"),
        "iptables-legacy -I FORWARD",
    ),
    Case(
        "Docker's chains",
        "iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER;"
        "iptables-nft -A DOCKER-USER -j RETURN; iptables-nft -A FORWARD -o docker0 -j ACCEPT",
        ("FORWARD", "policy"),
        "-I DOCKER-USER",
        closed=True,
    ),
    Case(
        "Docker's, half seen to",
        "iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER;"
        "iptables-nft -A DOCKER-USER -o br0 -j ACCEPT",
        ("FORWARD", "policy"),
        "-i br0",
    ),
    Case(
        "another bridge of containers",
        "ip link add docker0 type bridge; ip link set docker0 up; ip addr add 172.17.0.1/16 dev docker0;"
        + table("inet fw", "fc", DROP),
        ("inet fw", "policy"),
        'oifname != "docker0"',
        closed=True,
    ),
    Case(
        "a verdict map",
        "nft -f - <<'END'\ntable inet fw {\n chain wan { tcp dport 443 accept; drop; }\n chain fc {\n"
        f' {FORWARD}\n iifname vmap {{ "lo" : accept, "to-lan" : jump wan }}\n }}\n}}\nEND',
        ("inet fw", "wan"),
        "insert rule inet fw fc",
        closed=True,
    ),
    Case(
        "a named set",
        "nft -f - <<'END'\ntable inet fw {\n"
        " set blocked { type ipv4_addr; flags interval; elements = { 198.51.100.0/25 }; }\n"
        f" chain fc {{ {FORWARD}\n ip saddr @blocked drop\n }}\n}}\nEND",
        ("inet fw", "blocked"),
        "insert rule inet fw fc",
        closed=True,
    ),
    Case(
        "by a mark",
        "nft -f - <<'END'\ntable inet fw {\n chain pre { type filter hook prerouting priority mangle;\n"
        " tcp dport 8080 meta mark set 0x7; }\n"
        f" chain fc {{ {FORWARD}\n meta mark & 0xf == 0x7 drop\n }}\n}}\nEND",
        ("inet fw", "fc"),
        "insert rule inet fw fc",
    ),
    Case(
        "behind a goto",
        "nft -f - <<'END'\ntable inet fw {\n chain more { ct state new drop; }\n"
        f" chain fc {{ {FORWARD}\n goto more\n }}\n}}\nEND",
        ("inet fw", "more"),
        "insert rule inet fw fc",
        closed=True,
    ),
    Case(
        "IPv6 in a table of both",
        table("inet fw", "fc", f"{FORWARD}\n meta nfproto ipv6 drop"),
        ("inet fw", "ipv6"),
        "insert rule",
        path="lan6",
        closed=True,
    ),
    Case(
        "a port of UDP",
        table("inet fw", "fc", f"{FORWARD}\n udp dport 53 drop"),
        ("inet fw", "fc"),
        "insert rule",
        path="udp",
        see="explain 5353/udp",
    ),
    Case(
        "kept out of the tracker",
        table("inet keep", "pre", "type filter hook prerouting priority raw\n tcp dport 8080 notrack"),
        ("inet keep", "connection tracker"),
        "delete rule inet keep pre",
    ),
    Case(
        "kept out of the tracker, the answers",
        table("inet keep", "pre", 'type filter hook prerouting priority raw\n iifname "br0" notrack'),
        ("inet keep", "connection tracker"),
        "delete rule inet keep pre",
    ),
    Case(
        "kept out of the tracker by iptables",
        "iptables-nft -t raw -A PREROUTING -p tcp -m tcp --dport 8080 -j CT --notrack",
        ("ip raw", "connection tracker"),
        "-t raw -D PREROUTING",
    ),
    Case(
        "ingress of a table of both families",
        table("inet wall", "in", "type filter hook ingress device to-lan priority 0\n tcp dport 8080 drop"),
        ("inet wall", "8080"),
        "insert rule inet wall in",
    ),
    Case(
        "ingress of the port",
        table("netdev wall", "in", "type filter hook ingress device $LINK priority 0\n ip saddr 10.88.0.2 drop"),
        ("netdev wall", "10.88.0.2"),
        "insert rule netdev wall in",
    ),
    Case(
        "egress of the port",
        table("netdev wall", "out", "type filter hook egress device $LINK priority 0\n tcp dport 80 drop"),
        ("netdev wall", "out"),
        "insert rule netdev wall out",
    ),
    Case(
        "egress of the bridge",
        table("netdev wall", "out", "type filter hook egress device br0 priority 0\n ip daddr 10.88.0.2 drop"),
        ("netdev wall", "10.88.0.2"),
        "insert rule netdev wall out",
    ),
    Case(
        "frames between siblings",
        table("bridge fw", "among", "type filter hook forward priority 0\n ip protocol tcp drop"),
        ("bridge fw", "among"),
        "ip saddr",
        path="sibling",
        see="doctor",
    ),
    Case(
        "ARP",
        table("arp fw", "in", "type filter hook input priority 0; policy drop;") + "\nip neigh flush all",
        ("arp fw", "ARP"),
        "insert rule arp fw in",
    ),
    Case(
        "ARP by arptables",
        "nft -f - <<'END'\ntable arp filter {\n chain OUTPUT {\n type filter hook output priority 0\n"
        ' arp htype 1 arp operation request oifname "br0" counter drop\n }\n}\nEND\nip neigh flush all',
        ("arp filter", "ARP"),
        "insert rule arp filter OUTPUT",
    ),
    Case(
        "neighbour discovery, inward",
        table(
            "inet fw",
            "in",
            "type filter hook input priority 0; policy drop;\n ct state established,related accept\n"
            " iifname lo accept\n meta nfproto ipv4 accept",
        )
        + "\nip -6 neigh flush all; ip -n web -6 neigh flush all",
        ("inet fw", "neighbour discovery"),
        "nd-neighbor-solicit",
        path="lan6",
    ),
    Case(
        "neighbour discovery, outward",
        "ip6tables-nft -A OUTPUT -p ipv6-icmp -m icmp6 --icmpv6-type neighbour-solicitation -j DROP;"
        "ip -6 neigh flush dev br0",
        ("ip6 filter", "neighbour discovery"),
        "-I OUTPUT -p ipv6-icmp",
        path="lan6",
    ),
    Case("IPv6 alone", table("ip6 filter", "FORWARD", DROP), ("ip6 filter", "policy"), "ip6tables", path="lan6"),
    Case(
        "the host's own output",
        table("inet fw", "out", "type filter hook output priority 0\n tcp dport 80 drop"),
        ("inet fw", "out"),
        "ct status dnat",
        path="host",
    ),
    Case(
        "the host's own input",
        table("inet fw", "in", 'type filter hook input priority 0; policy drop;\n iifname "lo" accept'),
        ("inet fw", "in", "policy"),
        "established",
        path="host",
    ),
    Case(
        "two firewalls",
        table("inet one", "fc", DROP) + "\n" + table("inet two", "fc", DROP),
        ("inet one", "policy"),
        "inet one",
        closed=True,
    ),
    Case(
        "taken by a foreign DNAT",
        table("ip nat2", "pre", "type nat hook prerouting priority -150\n tcp dport 8080 dnat to 198.51.100.9:80"),
        ("ip nat2", "198.51.100.9"),
        "delete rule ip nat2 pre",
    ),
    Case(
        "a sender that the host had once",
        table("ip nat2", "post", "type nat hook postrouting priority 0\n ip saddr 10.88.0.0/24 snat to 198.51.100.7"),
        ("ip nat2", "198.51.100.7", "does not have"),
        "delete rule ip nat2 post",
        path="out",
        see="doctor",
    ),
    Case(
        "a sender that the host had once, by iptables",
        "iptables-nft -t nat -I POSTROUTING -s 10.88.0.0/24 -j SNAT --to-source 198.51.100.7",
        ("ip nat", "198.51.100.7"),
        "-t nat -D POSTROUTING",
        path="out",
        see="explain web",
    ),
    Case(
        "led to another port of the container",
        table("ip nat2", "pre", "type nat hook prerouting priority -150\n tcp dport 8080 dnat to 10.88.0.2:81"),
        ("ip nat2", "10.88.0.2, port 81"),
        "delete rule ip nat2 pre",
    ),
    Case(
        "taken by a redirect",
        table("ip nat2", "pre", "type nat hook prerouting priority -150\n tcp dport { 80, 8080 } redirect to :3128"),
        ("ip nat2", "redirect"),
        "delete rule ip nat2 pre",
    ),
    Case(
        "taken by iptables",
        "iptables-nft -t nat -A PREROUTING -p tcp -m tcp --dport 8080 -j DNAT --to-destination 198.51.100.9:80",
        ("ip nat", "PREROUTING", "198.51.100.9"),
        "-t nat -D PREROUTING",
    ),
]


IPTABLES = "iptables-nft -P FORWARD DROP"


@pytest.fixture
def scene(host: Host) -> Iterator[Scene]:
    made = Scene(host)
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_firewall(scene: Scene, case: Case) -> None:
    if "iptables-legacy" in case.script and not Path("/proc/net/ip_tables_names").exists():
        pytest.skip("NOT RUN: iptables-legacy needs the kernel module ip_tables, which is not here")
    examine(scene, case)


def test_siblings_whose_frames_pass_by_a_firewall_for_packets(scene: Scene) -> None:
    """br_netfilter shows it what stays on the bridge."""
    scene.host.bridge_netfilter("1")
    chain = "chain fc { type filter hook forward priority 0; iifname br0 oifname br0 drop; }"
    case = Case(
        "between", f"nft 'table inet fw {{ {chain}; }}'", ("inet fw", "br_netfilter"), "inet fw", "sibling", "doctor"
    )
    examine(scene, case)


@pytest.mark.parametrize(
    "script",
    [table("inet fw", "fc", DROP), table("inet fw", "pc", DROP.replace("forward", "postrouting")), IPTABLES],
    ids=["forward", "postrouting", "iptables"],
)
@pytest.mark.parametrize("alone", [False, True])
def test_published_on_a_bridge_whose_router_is_another_machine(host: Host, script: str, alone: bool) -> None:
    """The remedy named our own bridges only: it did not help, and without any of them it was no nft at all."""
    lan = host.neighbour()
    host.run("ip", "addr", "flush", "dev", "to-lan", "scope", "global")
    host.run("ip", "link", "add", "lan0", "type", "bridge")
    for words in ("link set lan0 up", "link set to-lan master lan0", "addr add 198.51.100.1/24 dev lan0"):
        host.run("ip", *words.split())
    host.run("ip", "route", "add", "default", "via", "198.51.100.2")
    only = {"subnet": "198.51.100.0/24", "rangeStart": "198.51.100.60", "gateway": "198.51.100.2"}
    config = network("lan", bridge="lan0", version="1.0.0", ports=[port(8080, 80)])
    host.add({**config, "ipam": {"ranges": [[only]]}}, "web")
    if not alone:
        host.add(network("net0", bridge="br0", version="1.0.0"), "other")
    with serving(Server(host.place("web"), 80)):
        assert ask(lan, "198.51.100.1", 8080).startswith("web ")
        assert host.command("doctor").returncode == 0, host.command("doctor").stdout
        host.run("sh", "-ec", script)
        assert ask(lan, "198.51.100.1", 8080, timeout=SHORT) == "silence"
        found = json.loads(host.command("doctor", "--json").stdout)["findings"]
        host.run("sh", "-ec", "\n".join(command for step in found for command in step["remedy"]))
        assert ask(lan, "198.51.100.1", 8080).startswith("web "), found
        assert host.command("doctor").returncode == 0, host.command("doctor").stdout


def test_each_neighbour_of_a_link_is_looked_at(scene: Scene) -> None:
    """The ways to two subnets on one link differ: the second one used to be taken for looked at with the first."""
    scene.host.run("ip", "addr", "add", "203.0.113.1/24", "dev", "to-lan")
    scene.lan.run("ip", "addr", "add", "203.0.113.2/24", "dev", "eth0")
    assert scene.lives("lan") and ask(scene.lan, "203.0.113.1", 8080).startswith("web ")
    assert scene.findings("doctor") == []
    rule = "type filter hook output priority 0; arp daddr ip 203.0.113.2 drop;"
    scene.host.nft(f"table arp fw {{ chain out {{ {rule} }}; }}")
    assert any("arp fw" in step["what"] and "ARP" in step["what"] for step in scene.findings("doctor"))
    scene.host.run("ip", "neigh", "flush", "to", "203.0.113.2")
    assert ask(scene.lan, "203.0.113.1", 8080, timeout=SHORT) == "silence"


def test_healthy(scene: Scene) -> None:
    for path in ("lan", "lan6", "udp", "host", "out", "sibling"):
        assert scene.lives(path), path
    for words in ("doctor", "explain 8080", "explain 5353/udp", "explain web", "explain 8080 --from 198.51.100.2"):
        assert scene.findings(words) == [], words


def test_rules_that_cannot_be_read(scene: Scene) -> None:
    """What they drop is not known, so doctor does not say that all is well."""
    if scene.host.call("iptables-legacy", "-L").returncode:
        pytest.skip("NOT RUN: iptables-legacy is missing here, or its kernel modules")
    scene.sh("iptables-legacy -A FORWARD -p tcp --dport 9 -j ACCEPT")
    assert scene.findings("doctor") == []
    program = scene.host.run("readlink", "-f", "/usr/sbin/iptables-legacy-save").strip()
    scene.host.file("/run/nothing").touch()
    scene.host.file("/run/broken").write_text("#!/bin/sh\necho it is broken >&2\nexit 3\n")
    scene.host.file("/run/broken").chmod(0o755)
    for stand_in, words in (
        ("/run/nothing", "iptables-legacy-save, which could read them"),
        ("/run/broken", "it is broken"),
    ):
        scene.host.run("mount", "--bind", stand_in, program)
        found = scene.findings("doctor")
        assert [step["kind"] for step in found] == ["unread"] and words in found[0]["what"], found
        scene.host.run("umount", program)
    scene.sh("iptables-legacy -F")
