"""Broken on the way: routes, policy rules, forwarding, bridge and ports, our table. Found, mended as printed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.broken import Case, Scene, examine
from support.scratch import Host

TUN = "ip link add tun9 type veth peer name tun9p; ip link set tun9p up; ip link set tun9 up; "

CASES = [
    # Forwarding
    Case("forwarding off", "sysctl -qw net.ipv4.ip_forward=0", ("net/ipv4/ip_forward is 0",), "sysctl -w"),
    Case("the uplink's", "sysctl -qw net.ipv4.conf.to-lan.forwarding=0", ("to-lan/forwarding",), "sysctl -w"),
    Case("the bridge's", "sysctl -qw net.ipv4.conf.br0.forwarding=0", ("br0/forwarding",), "sysctl -w"),
    Case(
        "of IPv6", "sysctl -qw net.ipv6.conf.all.forwarding=0", ("net/ipv6/conf/all/forwarding",), "sysctl -w", "lan6"
    ),
    Case(
        "route_localnet", "sysctl -qw net.ipv4.conf.br0.route_localnet=0", ("route_localnet is 0",), "sysctl -w", "host"
    ),
    # Routes
    Case(
        "a VPN takes the subnet",
        TUN + "ip route add 10.88.0.0/25 dev tun9; ip route add 10.88.0.128/25 dev tun9",
        ("10.88.0.2", "tun9", "br0"),
        "ip route del 10.88.0.0/25",
    ),
    Case(
        "a VPN's policy rule",
        TUN + "ip route add default dev tun9 table 51820; ip rule add not fwmark 51820 table 51820",
        ("10.88.0.2", "tun9", "table 51820"),
        "ip rule add to 10.88.0.0/24 lookup main",
    ),
    Case(
        "a VPN for what containers send",
        TUN + "ip route add default dev tun9 table 100; ip rule add from 10.88.0.0/24 lookup 100 priority 100",
        ("198.51.100.2", "tun9", "table 100"),
        "lookup main priority 99",
    ),
    Case(
        "a VPN for IPv6",
        TUN + "ip -6 route add fd00:88::2/128 dev tun9",
        ("fd00:88::2", "tun9"),
        "ip -6 route del fd00:88::2/128",
        "lan6",
    ),
    Case("a blackhole", "ip route add blackhole 10.88.0.0/25", ("blackhole 10.88.0.0/25",), "ip route del blackhole"),
    Case(
        "unreachable client",
        "ip route add unreachable 198.51.100.2",
        ("unreachable 198.51.100.2",),
        "ip route del unreachable",
    ),
    Case(
        "prohibited client", "ip route add prohibit 198.51.100.2", ("prohibit 198.51.100.2",), "ip route del prohibit"
    ),
    Case("a rule for a client", "ip rule add from 198.51.100.2 prohibit", ("prohibit",), "ip rule del priority"),
    Case("a rule for the subnet", "ip rule add to 10.88.0.0/24 blackhole", ("blackhole",), "ip rule del priority"),
    Case("a rule of IPv6", "ip -6 rule add to fd00:88::/64 unreachable", ("unreachable",), "ip -6 rule del", "lan6"),
    Case(
        "a table that drops",
        "ip route add blackhole default table 200; ip rule add iif br0 lookup 200 priority 50",
        ("blackhole default table 200",),
        "ip route del blackhole default table 200",
    ),
    Case(
        "a rule for the answer's port",
        TUN + "ip route add default dev tun9 table 100; ip rule add ipproto tcp sport 80 lookup 100 priority 50",
        ("tun9", "table 100"),
        "lookup main priority 49",
    ),
    Case(
        "a rule for the request's port",
        TUN + "ip route add default dev tun9 table 100; ip rule add ipproto tcp dport 80 lookup 100 priority 50",
        ("10.88.0.2", "tun9"),
        "ip rule add to 10.88.0.0/24 lookup main",
    ),
    Case("no rule for table main", "ip rule del lookup main", ("table main",), "ip rule add lookup main"),
    Case(
        "table main before table local",
        "ip rule add priority 100 lookup main; ip rule add priority 32765 lookup local; ip rule del priority 0",
        ("before table local",),
        "ip rule add lookup local priority 0",
    ),
    Case(
        "rp_filter, asymmetric",
        TUN + "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.to-lan.rp_filter=1;"
        "ip route add 198.51.100.2/32 dev tun9",
        ("rp_filter of to-lan is 1", "tun9"),
        "ip route del 198.51.100.2/32",
    ),
    Case(
        "the answer leaves by another link",
        TUN + "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.to-lan.rp_filter=0;"
        "ip route add 198.51.100.2/32 dev tun9",
        ("198.51.100.2", "tun9", "to-lan"),
        "ip route del",
    ),
    Case(
        "the client's route is gone",
        "ip route del 198.51.100.0/24 dev to-lan",
        ("no route to 198.51.100.2",),
        "ip route add 198.51.100.0/24 dev to-lan",
        see="explain 8080/tcp --from 198.51.100.2",
    ),
    Case(
        "the host has the address", "ip addr add 10.88.0.2/32 dev lo", ("10.88.0.2", "lo"), "ip addr del 10.88.0.2/32"
    ),
    Case(
        "the uplink is down",
        "ip link set to-lan down",
        ("to-lan is down",),
        "ip link set to-lan up",
        see="explain 8080/tcp --from 198.51.100.2",
    ),
    # The bridge and its ports
    Case("bridge down", "ip link set br0 down", ("br0 is down",), "nftcni repair"),
    Case("bridge deleted", "ip link del br0", ("br0 is missing",), "nftcni repair"),
    Case("gateway address", "ip addr flush dev br0", ("10.88.0.1/24",), "nftcni repair"),
    Case("not a port", "ip link set $LINK nomaster", ("is not a port",), "nftcni repair"),
    Case(
        "another bridge's port",
        "ip link add br9 type bridge; ip link set $LINK master br9",
        ("is not a port",),
        "nftcni repair",
    ),
    Case("port down", "ip link set $LINK down", ("is down",), "nftcni repair"),
    Case("port deleted", "ip link del $LINK", ("is missing",), "nftcni repair net0/web"),
    Case("port blocked", "bridge link set dev $LINK state 0", ("does not forward",), "state 3"),
    Case(
        "port without learning",
        "bridge link set dev $LINK learning off flood off; ip link set $LINK down; ip link set $LINK up;"
        "ip neigh flush all; ip -n web neigh flush all",
        ("learning",),
        "learning on",
    ),
    Case(
        "port without broadcasts",
        "bridge link set dev $LINK bcast_flood off; ip -n peer neigh flush all; ip -n web neigh flush all",
        ("bcast_flood",),
        "bcast_flood on",
        "sibling",
        "doctor",
    ),
    Case("no ARP on the bridge", "ip link set br0 arp off; ip neigh flush all", ("br0", "ARP"), "arp on"),
    Case(
        "no ARP on the uplink",
        "ip link set to-lan arp off; ip neigh flush dev to-lan",
        ("to-lan", "ARP"),
        "arp on",
        see="explain 8080/tcp --from 198.51.100.2",
    ),
    Case(
        "ARP is not answered",
        "sysctl -qw net.ipv4.conf.br0.arp_ignore=8; ip -n web neigh flush all",
        ("arp_ignore",),
        "arp_ignore=0",
        "out",
        "doctor",
    ),
    Case(
        "a wrong neighbour entry",
        "ip neigh replace 10.88.0.2 lladdr 02:00:00:00:00:99 dev br0 nud permanent",
        ("02:00:00:00:00:99", "permanent"),
        "ip neigh del 10.88.0.2 dev br0",
    ),
    Case(
        "a wrong neighbour entry for IPv6",
        "ip neigh replace fd00:88::2 lladdr 02:00:00:00:00:99 dev br0 nud permanent",
        ("02:00:00:00:00:99",),
        "ip neigh del fd00:88::2 dev br0",
        "lan6",
    ),
    # Our own table
    Case("flushed ruleset", "nft flush ruleset", ("inet nftcni is missing",), "nftcni repair"),
    Case("deleted table", "nft delete table inet nftcni", ("inet nftcni is missing",), "nftcni repair"),
    Case("flushed table", "nft flush table inet nftcni", ("rules",), "nftcni repair"),
    Case("flushed map", "nft flush map inet nftcni dnat4", ("dnat4",), "nftcni repair"),
    Case("deleted element", "nft delete element inet nftcni dnat4 '{ tcp . 8080 }'", ("8080",), "nftcni repair"),
    Case("a flushed chain", "nft flush chain inet nftcni portmap", ("rules",), "nftcni repair"),
]


@pytest.fixture
def scene(host: Host) -> Iterator[Scene]:
    made = Scene(host)
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_on_the_way(scene: Scene, case: Case) -> None:
    examine(scene, case)
