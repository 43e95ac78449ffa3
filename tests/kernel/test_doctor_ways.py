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
