"""A flannel network without flanneld: its lease, its rules and its routes are put where flanneld 0.28.10 puts them.

The real one, with etcd and its meta plugin, runs in tests/cluster; what the meta plugin passes on is written down here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import matrix
import pytest
import readme
from lan import Lan, Node

LEASE = """FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET={first}.1/24
FLANNEL_IPV6_NETWORK=fd00:244::/32
FLANNEL_IPV6_SUBNET={first6}::1/64
FLANNEL_MTU={mtu}
FLANNEL_IPMASQ={masquerade}
"""
RULES = """
table {family} flannel-{family} {{
    chain postrtg {{
        type nat hook postrouting priority srcnat; policy accept;
        meta mark 0x00004000 return
        {ip} saddr {subnet} {ip} daddr {cluster} return
        {ip} saddr {cluster} {ip} daddr {subnet} return
        {ip} saddr != {subnet} {ip} daddr {cluster} return
        {ip} saddr {cluster} {ip} daddr != {multicast} masquerade fully-random
        {ip} saddr != {cluster} {ip} daddr {cluster} masquerade fully-random
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        {ip} saddr {cluster} accept
        {ip} daddr {cluster} accept
    }}
}}
"""
FAMILIES = {"ip": ("10.244.0.0/16", "224.0.0.0/4"), "ip6": ("fd00:244::/32", "ff00::/8")}


class Flannel:
    """flanneld's work on every node of a LAN."""

    def __init__(self, lan: Lan, backend: str, masquerade: str) -> None:
        self.mtu = 1450 if backend == "vxlan" else 1500
        for node in lan.nodes:
            first, first6 = (subnet.rsplit(end, 1)[0] for subnet, end in zip(node.subnets, (".", "::")))
            node.file("/run/flannel").mkdir()
            text = LEASE.format(first=first, first6=first6, mtu=self.mtu, masquerade=masquerade)
            node.file("/run/flannel/subnet.env").write_text(text)
            for (family, (cluster, multicast)), subnet in zip(FAMILIES.items(), node.subnets):
                names = {"family": family, "ip": family, "cluster": cluster, "multicast": multicast, "subnet": subnet}
                if masquerade == "true":
                    node.nft(RULES.format(**names))
            if backend == "vxlan":
                overlay(node)
        one, two = lan.nodes
        for node, other in ((one, two), (two, one)):
            node.reach(other)
            if backend == "vxlan":
                tunnel(node, other)


def overlay(node: Node) -> None:
    words = ("id", "1", "dev", "eth0", "local", node.address, "dstport", "8472", "nolearning")
    node.run("ip", "link", "add", "flannel.1", "type", "vxlan", *words)
    node.run("ip", "address", "add", node.subnets[0].replace("/24", "/32"), "dev", "flannel.1")
    node.run("ip", "link", "set", "flannel.1", "up")


def tunnel(node: Node, other: Node) -> None:
    far, mac = other.subnets[0].split("/")[0], other.link("flannel.1")["address"]
    node.run("ip", "neighbour", "replace", far, "lladdr", mac, "dev", "flannel.1", "nud", "permanent")
    node.run("bridge", "fdb", "append", mac, "dev", "flannel.1", "dst", other.address)
    node.run("ip", "route", "replace", other.subnets[0], "via", far, "dev", "flannel.1", "onlink")


def lease_network(node: Node, masquerade: bool, *ports: Any) -> Any:
    """The README's one object."""
    document = json.loads(readme.settings("flannel", "json"))
    [plugin] = document.pop("plugins")
    return {**document, **plugin, "runtimeConfig": {"portMappings": list(ports)}}


def meta_network(node: Node, masquerade: bool, *ports: Any) -> Any:
    """What the meta plugin passes on for a delegate of our type, whose own keys are the first ones."""
    own: Any = {
        **{"type": "nftcni", "bridge": "nftcni-meta", "isDefaultGateway": True, "gatewayMode": "open"},
        "nonMasqueradeCIDRs": ["10.244.0.0/16", "fd00:244::/32"],
    }
    ranges: Any = [[{"subnet": subnet}] for subnet in node.subnets]
    routes: Any = [{"dst": "10.244.0.0/16"}, {"dst": "fd00:244::/32"}]
    passed: Any = {
        **{"cniVersion": "1.0.0", "name": "meta", "ipMasq": not masquerade, "mtu": 1450},
        "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
    }
    return {**own, **passed, "runtimeConfig": {"portMappings": list(ports)}}


@pytest.fixture(scope="module", params=["host-gw true", "vxlan true", "vxlan false"])
def flannel(request: pytest.FixtureRequest) -> Iterator[tuple[Lan, bool]]:
    backend, masquerade = request.param.split()
    lan = Lan(2)
    Flannel(lan, backend, masquerade)
    yield lan, masquerade == "true"
    lan.close()


@pytest.fixture(scope="module", params=[lease_network, meta_network])
def pods(request: pytest.FixtureRequest, flannel: tuple[Lan, bool]) -> Iterator[Lan]:
    lan, masquerade = flannel
    one, two = lan.nodes
    one.pod(request.param(one, masquerade), "a")
    one.pod(request.param(one, masquerade), "b")
    two.pod(request.param(two, masquerade, *matrix.PORTS), "c")
    yield lan
    for node, name in ((one, "a"), (one, "b"), (two, "c")):
        node.remove(name)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("row", matrix.ROWS)
def test_sources(pods: Lan, row: str, version: int) -> None:
    matrix.check(pods, row, version)
