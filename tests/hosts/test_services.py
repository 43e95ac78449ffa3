"""Kubernetes' services and policies beside us: tables of the shape that kube-proxy and kube-network-policies load.

On two nodes with static routes. Theirs and ours share the hooks; the real kube-proxy runs in tests/cluster.
"""

from __future__ import annotations

import kube
import pytest
from lan import Lan, seen

KUBE_PROXY = """
table {family} kube-proxy {{
    map services {{ type {address} . inet_proto . inet_service : verdict; elements = {{
        {near} . tcp . 80 : goto svc-near, {far} . tcp . 80 : goto svc-far, {own} . tcp . 80 : goto svc-own }} }}
    map node-ports {{ type inet_proto . inet_service : verdict; elements = {{
        tcp . 30080 : goto outer-own, tcp . 30081 : goto outer-near, tcp . 30082 : goto outer-far }} }}
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
    chain outer-own {{ jump to-masquerade; goto svc-own; }}
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


def load(lan: Lan) -> None:
    for node in lan.nodes:
        for version, family, kind in ((4, "ip", "ipv4_addr"), (6, "ip6", "ipv6_addr")):
            pods = {name: lan.address(name, version) for name in ("a", "b", "c")}
            targets = {f"target_{name}": f"[{ip}]:80" if version == 6 else f"{ip}:80" for name, ip in pods.items()}
            services = {name: addresses[version == 6] for name, addresses in kube.SERVICES.items()}
            places = {"node": lan.address(node.name, version), "pods": kube.POD_NETWORKS[version == 6]}
            node.nft(KUBE_PROXY.format(family=family, ip=family, address=kind, **places, **services, **pods, **targets))


@pytest.fixture(scope="module")
def cluster(lan: Lan) -> Lan:
    kube.prepare(lan, lambda: load(lan))
    return lan


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("filtered", ["0", "1"])
@pytest.mark.parametrize("row", kube.ROWS)
def test_services(cluster: Lan, row: str, filtered: str, version: int) -> None:
    kube.check(cluster, row, filtered, version)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("filtered", ["0", "1"])
def test_a_service_on_the_same_node_sees_the_client(cluster: Lan, filtered: str, version: int) -> None:
    kube.check_same_node(cluster, filtered, version)


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
        assert seen(cluster.place("a"), cluster.address("b", 4)) == f"b {cluster.address('a', 4)}"
        assert seen(cluster.place("c"), cluster.address("b", 4)) == "silence"
        assert seen(cluster.outside, one.address, 8080) == "silence"
        assert seen(cluster.place("c"), cluster.address("a", 4)) == f"a {cluster.address('c', 4)}"
        one.pod(one.pods(), "d")
        assert one.cni("STATUS", one.pods(version="1.1.0", cniVersion="1.1.0")).status == 0
        assert one.command("repair").returncode == 0
        one.remove("d")
        assert one.run("nft", "list", "table", "inet", "kube-network-policies") == before
    finally:
        one.nft("delete table inet kube-network-policies")
    assert seen(cluster.outside, one.address, 8080) == f"b {cluster.outside.address}"
