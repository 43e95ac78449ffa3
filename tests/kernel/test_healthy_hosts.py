"""Hosts with firewalls, VPNs and other containers of their own on which everything works: no finding."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.broken import PATIENT, Scene
from support.scratch import Host, network, port
from support.traffic import Server, ask_on, open_socket

NFTABLES_CONF = """nft -f - <<'END'
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        iif "lo" accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
        meta l4proto icmp limit rate 10/second accept
        tcp dport { 22, 443 } ct state new limit rate 10/second accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state . iifname vmap { invalid . "to-lan" : drop, established . "to-lan" : accept }
        iifname "br0" accept
        oifname "br0" ct status dnat accept
    }
}
END"""
FIREWALLD = """nft -f - <<'END'
table inet firewalld {
    chain mangle_PREROUTING {
        type filter hook prerouting priority mangle + 10; policy accept;
        icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
        meta nfproto ipv6 fib saddr . mark . iif oif missing drop
    }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname { "lo", "br0" } accept
        ct state invalid drop
        reject with icmpx admin-prohibited
    }
}
END"""
LIBVIRT = """nft -f - <<'END'
table ip libvirt_network {
    chain forward {
        type filter hook forward priority filter; policy accept;
        jump guest_cross
        jump guest_input
        jump guest_output
    }
    chain guest_output {
        ip saddr 192.168.122.0/24 iif "lo" counter accept
        iifname "virbr0" counter reject
    }
    chain guest_input {
        oifname "virbr0" ip daddr 192.168.122.0/24 ct state related,established counter accept
        oifname "virbr0" counter reject
    }
    chain guest_cross {
        iifname "virbr0" oifname "virbr0" counter accept
    }
    chain guest_nat {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade
    }
}
END"""
DOCKER = """ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0
iptables-nft -P FORWARD DROP; for chain in DOCKER-USER DOCKER DOCKER-FORWARD; do iptables-nft -N $chain; done
iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-FORWARD
iptables-nft -A DOCKER-FORWARD -o docker0 -j DOCKER; iptables-nft -A DOCKER-FORWARD -i docker0 -j ACCEPT
iptables-nft -A DOCKER ! -i docker0 -o docker0 -j DROP
iptables-nft -t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
iptables-nft -I DOCKER-USER -i br0 ! -o docker0 -j ACCEPT
iptables-nft -I DOCKER-USER -o br0 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables-nft -I DOCKER-USER -o br0 -m conntrack --ctstate DNAT -j ACCEPT"""
TUNNEL = "ip link add tun9 type veth peer name tun9p; ip link set tun9p up; ip link set tun9 up\n"
WIREGUARD = TUNNEL + (
    "ip route add default dev tun9 table 51820; ip rule add not fwmark 51820 table 51820;"
    "ip rule add table main suppress_prefixlength 0"
)
TAILSCALE = TUNNEL + (
    "ip route add 100.64.0.0/10 dev tun9 table 52; ip rule add pref 5210 fwmark 0x80000/0xff0000 lookup main;"
    "ip rule add pref 5230 fwmark 0x80000/0xff0000 lookup default;"
    "ip rule add pref 5250 fwmark 0x80000/0xff0000 unreachable; ip rule add pref 5270 lookup 52"
)
ARP = """nft -f - <<'END'
table arp filter {
    chain INPUT {
        type filter hook input priority filter; policy drop;
        arp operation { request, reply } iifname { "br0", "to-lan" } accept
    }
    chain OUTPUT {
        type filter hook output priority filter; policy accept;
        arp saddr ip 192.0.2.1 drop
    }
}
END"""
HOSTS = {
    "nftables.conf": NFTABLES_CONF,
    "firewalld": FIREWALLD,
    "libvirt": LIBVIRT,
    "Docker": DOCKER,
    "WireGuard": WIREGUARD,
    "Tailscale": TAILSCALE,
    "arptables": ARP,
    "iptables-legacy": "iptables-legacy -P FORWARD DROP; iptables-legacy -A FORWARD -i br0 -j ACCEPT;"
    "iptables-legacy -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
    "two ways out": "ip link add far type veth peer name farp; ip link set far up; ip link set farp up;"
    "ip addr add 203.0.113.1/24 dev far; ip route add default via 203.0.113.2;"
    "ip route add default via 198.51.100.2 table 100; ip rule add from 198.51.100.1 lookup 100",
    "a second link without a cable": "sysctl -qw net.ipv4.conf.all.ignore_routes_with_linkdown=1;"
    "ip link add off type veth peer name offp; ip link set off up; ip addr add 203.0.113.1/24 dev off;"
    "ip route add default via 198.51.100.2; ip route add default via 203.0.113.2 dev off metric 500",
    "the same DNAT once more": "nft -f - <<'END'\ntable ip own {\n chain pre {\n"
    " type nat hook prerouting priority -150;\n tcp dport 8080 dnat to 10.88.0.2:80\n }\n}\nEND",
    "flags that no packet has": "for flags in 'SYN,FIN SYN,FIN' 'SYN,RST SYN,RST' 'ALL NONE' 'ALL ALL'; do"
    " iptables-nft -t mangle -A PREROUTING -p tcp -m tcp --tcp-flags $flags -j DROP; done;"
    "iptables-nft -t mangle -A PREROUTING -p tcp ! --syn -m conntrack --ctstate NEW -j DROP;"
    "nft -f - <<'END'\ntable inet p {\n chain r {\n type filter hook prerouting priority mangle;\n"
    " tcp flags & (fin|syn|rst|ack) != syn ct state new drop\n tcp flags & (fin|syn) == fin|syn drop\n }\n}\nEND",
    "one address of a provider": "ip addr del 198.51.100.1/24 dev to-lan; ip addr add 198.51.100.1/32 dev to-lan;"
    "ip route add 198.51.100.2 dev to-lan; ip route add default via 198.51.100.2",
    "a container with another MAC address": "ip -n web link set eth0 address 02:00:00:00:00:55; ip neigh flush all",
    "a table that sleeps": "nft -f - <<'END'\ntable inet off {\n flags dormant\n chain forward {\n"
    " type filter hook forward priority filter; policy drop;\n }\n}\nEND",
    "a VPN's clients are kept out": "ip link add wg0 type veth peer name wg0p; ip link set wg0 up; ip link set wg0p up;"
    "ip addr add 10.100.0.1/24 dev wg0; ip route add default via 198.51.100.2; nft -f - <<'END'\n"
    "table inet filter {\n chain forward {\n type filter hook forward priority filter; policy drop;\n"
    " ct state established,related accept\n iifname br0 oifname { to-lan, br0 } accept\n"
    " iifname to-lan oifname br0 ct status dnat accept\n }\n}\nEND",
    "a neighbour is banned": "ip neigh replace 198.51.100.66 lladdr 02:00:00:00:00:66 dev to-lan nud stale;"
    "nft -f - <<'END'\ntable inet f2b {\n set s {\n type ipv4_addr\n elements = { 198.51.100.66 }\n }\n chain f {\n"
    " type filter hook forward priority -1;\n ip saddr @s drop\n }\n}\nEND",
    "a container for its LAN alone": "ip netns exec web nft -f - <<'END'\ntable ip own {\n chain in {\n"
    " type filter hook input priority 0; policy drop;\n ct state established,related accept\n"
    " ip saddr { 198.51.100.0/24, 10.88.0.0/24 } ip saddr != 10.88.0.1 accept\n }\n}\nEND",
    "br_netfilter": "sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1\n"
    + NFTABLES_CONF,
}


@pytest.fixture
def scene(host: Host) -> Iterator[Scene]:
    made = Scene(host)
    yield made
    made.close()


@pytest.mark.parametrize("name", HOSTS)
def test_no_finding(scene: Scene, name: str) -> None:
    if "iptables-legacy" in HOSTS[name] and not Path("/proc/net/ip_tables_names").exists():
        pytest.skip("NOT RUN: iptables-legacy needs the kernel module ip_tables, which is not here")
    if name == "br_netfilter":
        scene.host.bridge_netfilter("1")
    scene.sh(HOSTS[name])
    closed = {"host"} if name == "a container for its LAN alone" else set()
    for path in {"lan", "lan6", "udp", "host", "out", "sibling"} - closed:
        assert scene.lives(path) or scene.lives(path, PATIENT), f"{path}: {scene.reach(path)}"
    for words in ("doctor", "explain 8080", "explain 5353/udp", "explain web", "explain 8080 --from 198.51.100.2"):
        assert scene.findings(words) == [], words


@pytest.mark.parametrize("rp_filter", ["0", "1"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_route_by_two_uplinks(host: Host, version: int, rp_filter: str) -> None:
    """The kernel takes either for each flow. The remedy for "leads by the other one" cut the client off."""
    far = host.neighbour("far")
    host.run("ip", "link", "add", "to-second", "type", "veth", "peer", "name", "eth1", "netns", "far")
    for place, link, last in ((host, "to-second", 1), (far, "eth1", 2)):
        place.set_sysctl(f"ipv6/conf/{link}/accept_dad", "0")
        place.run("ip", "addr", "add", f"198.51.101.{last}/24", "dev", link)
        place.run("ip", "addr", "add", f"2001:db8:101::{last}/64", "dev", link, "nodad")
        place.run("ip", "link", "set", link, "up")
    for link in ("all", "to-far", "to-second"):
        host.set_sysctl(f"ipv4/conf/{link}/rp_filter", rp_filter)
    client, gateways, own = {
        4: ("203.0.113.9", ("198.51.100.2", "198.51.101.2"), ("198.51.100.1", "198.51.101.1")),
        6: ("2001:db8:f::9", ("2001:db8:100::2", "2001:db8:101::2"), ("2001:db8:100::1", "2001:db8:101::1")),
    }[version]
    far.run("ip", "addr", "add", f"{client}/{32 if version == 4 else 128}", "dev", "lo")
    hops = [word for gateway in gateways for word in ("nexthop", "via", gateway)]
    host.run("ip", f"-{version}", "route", "add", "default", *hops)
    host.add(network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)]), "web")
    with Server(host.place("web"), 80):
        for address in own * 3:
            with open_socket(far, socket.AF_INET6 if version == 6 else socket.AF_INET, "tcp") as sock:
                sock.bind((client, 0))
                assert ask_on(sock, address, 8080, PATIENT) == f"web {client}"
        for words in (("explain", "8080", "--from", client), ("explain", "web"), ("doctor",)):
            done = host.command(*words)
            assert done.returncode == 0, done.stdout
