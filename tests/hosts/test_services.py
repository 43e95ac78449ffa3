"""Kubernetes' services and policies beside us: tables of the shape that kube-proxy (nftables mode) and
kube-network-policies load, on two nodes with static routes. Theirs and ours share the hooks; the real ones run in
tests/cluster.

Without br_netfilter the answer of a pod on the same bridge does not pass the host, so that the service can work only
masqueraded; Kubernetes asks for br_netfilter on its nodes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lan import Lan, Node, seen
from support.scratch import port

KUBE_PROXY = """
table {family} kube-proxy {{
    map services {{ type {address} . inet_proto . inet_service : verdict; elements = {{
        {near} . tcp . 80 : goto svc-near, {far} . tcp . 80 : goto svc-far, {own} . tcp . 80 : goto svc-own }} }}
    map node-ports {{ type inet_proto . inet_service : verdict; elements = {{
        tcp . 30081 : goto outer-near, tcp . 30082 : goto outer-far }} }}
    chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump dispatch; }}
    chain nat-output {{ type nat hook output priority -100; jump dispatch; }}
    chain nat-postrouting {{ type nat hook postrouting priority srcnat;
        meta mark & 0x4000 == 0 return
        meta mark set meta mark ^ 0x4000
        masquerade fully-random
    }}
    chain dispatch {{
        {ip} daddr . meta l4proto . th dport vmap @services
        {ip} daddr {node} meta l4proto . th dport vmap @node-ports
    }}
    chain to-masquerade {{ meta mark set meta mark | 0x4000; }}
    chain outer-near {{ jump to-masquerade; goto svc-near; }}
    chain outer-far {{ jump to-masquerade; goto svc-far; }}
    chain svc-near {{
        {ip} saddr != {pods} jump to-masquerade
        {ip} saddr {b} jump to-masquerade
        meta l4proto tcp dnat to {target_b}
    }}
    chain svc-far {{
        {ip} saddr != {pods} jump to-masquerade
        {ip} saddr {c} jump to-masquerade
        meta l4proto tcp dnat to {target_c}
    }}
    chain svc-own {{
        {ip} saddr != {pods} jump to-masquerade
        {ip} saddr {a} jump to-masquerade
        meta l4proto tcp dnat to {target_a}
    }}
}}
"""
SERVICES = {name: (f"10.96.0.{number}", f"fd00:96::{number}") for number, name in enumerate(("near", "far", "own"), 11)}
A, B, C = ("10.244.1.2", "fd00:244:1::2"), ("10.244.1.3", "fd00:244:1::3"), ("10.244.2.2", "fd00:244:2::2")
H1, H2, OUT = ("192.0.2.101", "2001:db8::101"), ("192.0.2.102", "2001:db8::102"), ("192.0.2.9", "2001:db8::9")


def kube_proxy(node: Node, version: int) -> None:
    six = version == 1
    pods = {"a": A[six], "b": B[six], "c": C[six]}
    targets = {f"target_{name}": f"[{ip}]:80" if six else f"{ip}:80" for name, ip in pods.items()}
    node.nft(
        KUBE_PROXY.format(
            family="ip6" if six else "ip",
            ip="ip6" if six else "ip",
            address="ipv6_addr" if six else "ipv4_addr",
            node=(node.address, node.address6)[six],
            pods=("10.244.0.0/16", "fd00:244::/32")[six],
            **{name: addresses[six] for name, addresses in SERVICES.items()},
            **pods,
            **targets,
        )
    )


@pytest.fixture(scope="module")
def cluster(lan: Lan) -> Iterator[Lan]:
    """On the first node pods a and b, whose port 8080 is published by us; c on the second."""
    one, two = lan.nodes
    lan.route()
    for node in lan.nodes:
        node.set_sysctl("ipv4/ip_forward", "1")  # as Kubernetes asks of its nodes
        node.set_sysctl("ipv6/conf/all/forwarding", "1")
        for version in (0, 1):
            kube_proxy(node, version)
    one.pod(one.pods(), "a")
    one.pod(one.pods(port(8080, 80), port(8080, 80, "tcp", "::")), "b")
    two.pod(two.pods(), "c")
    yield lan


ROWS = {  # what is asked: by whom, address, port, who answers, whom it sees (None: whomever)
    "pod to a service of another node": ("a", SERVICES["far"], 80, "c", A),
    "pod to a service that is itself": ("a", SERVICES["own"], 80, "a", None),
    "node to a service of its own": ("h1", SERVICES["near"], 80, "b", None),
    "node to a service of another node": ("h1", SERVICES["far"], 80, "c", H1),
    "the LAN to a node port": ("outside", H1, 30081, "b", None),
    "the LAN to a node port that leads to another node": ("outside", H1, 30082, "c", H1),
    "pod to its node's port": ("a", H1, 30081, "b", None),
    "pod to another node's port": ("a", H2, 30082, "c", None),
    "the LAN to our published port": ("outside", H1, 8080, "b", OUT),
    "pod to its own published port": ("b", H1, 8080, "b", None),
    "pod of another node to our published port": ("c", H1, 8080, "b", H2),
    "pod to the world": ("a", OUT, 81, "outside", H1),
    "pod to pod": ("a", C, 80, "c", A),
}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("filtered", ["0", "1"])
@pytest.mark.parametrize("row", ROWS)
def test_services(cluster: Lan, row: str, filtered: str, version: int) -> None:
    cluster.nodes[0].bridge_netfilter(filtered)
    who, addresses, number, answerer, sources = ROWS[row]
    answer = seen(cluster.place(who), addresses[version == 6], number)
    if sources is None:
        assert answer.split()[0] == answerer
    else:
        assert answer == f"{answerer} {sources[version == 6]}"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("filtered", ["0", "1"])
def test_a_service_on_the_same_node_sees_the_client(cluster: Lan, filtered: str, version: int) -> None:
    cluster.nodes[0].bridge_netfilter(filtered)
    answer = seen(cluster.place("a"), SERVICES["near"][version == 6])
    if filtered == "1":
        assert answer == f"b {A[version == 6]}"
    else:
        assert answer.split()[0] == "b"


POLICY = """
table inet kube-network-policies {
    set podips-v4 { type ipv4_addr; elements = { 10.244.1.3 } }
    chain postrouting {
        type filter hook postrouting priority srcnat - 5; policy accept;
        ct state established,related accept
        ip daddr @podips-v4 ip saddr != 10.244.1.2 drop
    }
}
"""


def test_a_policy_holds_and_nothing_else_changes(cluster: Lan) -> None:
    """Also for our published ports, and while pods come and go; STATUS takes it for nobody who drops everything."""
    one = cluster.nodes[0]
    one.nft(POLICY)
    before = one.run("nft", "list", "table", "inet", "kube-network-policies")
    try:
        assert seen(cluster.place("a"), B[0]) == f"b {A[0]}"
        assert seen(cluster.place("c"), B[0]) == "silence"
        assert seen(cluster.outside, H1[0], 8080) == "silence"
        assert seen(cluster.place("c"), A[0]) == f"a {C[0]}"
        one.pod(one.pods(), "d")
        assert one.cni("STATUS", one.pods(version="1.1.0", cniVersion="1.1.0")).status == 0
        assert one.command("repair").returncode == 0
        one.remove("d")
        assert one.run("nft", "list", "table", "inet", "kube-network-policies") == before
    finally:
        one.nft("delete table inet kube-network-policies")
    assert seen(cluster.outside, H1[0], 8080) == f"b {OUT[0]}"
