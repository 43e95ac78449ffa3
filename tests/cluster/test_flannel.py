"""flannel as it is: flanneld with etcd on three nodes, its backends, and the three ways to name it in a network.

These are our own reading of its lease, and its meta plugin with `nftcni` or with the drop-in `bridge`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import matrix
import programs
import pytest
from etcd import URL, Etcd
from lan import Lan, Node, seen, wait_for
from services import Services
from support.scratch import PLUGIN, port

POOL = "/coreos.com/network"
FILE = "/run/flannel/subnet.env"
NETWORK = {
    **{"Network": "10.245.0.0/16", "SubnetLen": 24, "EnableIPv6": True, "IPv6Network": "fd00:245::/48"},
    **{"IPv6SubnetLen": 64, "EnableNFTables": True},
}
DELEGATE = {"bridge": "nftcni-meta", "isDefaultGateway": True, "gatewayMode": "open"}
EXCEPTIONS = ["10.245.0.0/16", "fd00:245::/48"]
WAYS: dict[str, dict[str, Any]] = {
    "lease": {"type": "nftcni", "bridge": "nftcni-lease", "ipam": {"type": "flannel"}},
    "meta-nftcni": {
        **{"type": "flannel", "dataDir": "/run/cni/meta"},
        "delegate": {"type": "nftcni", **DELEGATE, "nonMasqueradeCIDRs": EXCEPTIONS},
    },
    "meta-bridge": {
        **{"type": "flannel", "dataDir": "/run/cni/drop"},
        "delegate": {**DELEGATE, "bridge": "cni0", "hairpinMode": True, "nonMasqueradeCIDRs": EXCEPTIONS},
    },
}


@pytest.fixture(scope="module", params=["host-gw true", "vxlan true", "vxlan false"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flannel]:
    programs.require("etcd", "flanneld", "flannel")
    made = Flannel(Lan(3), Services(tmp_path_factory.mktemp("flannel")), *request.param.split())
    yield made
    made.close()


class Flannel:
    def __init__(self, lan: Lan, services: Services, backend: str, masquerade: str) -> None:
        self.lan, self.services, self.masquerade = lan, services, masquerade
        self.etcd = Etcd(lan, services)
        self.etcd.put(f"{POOL}/config", {**NETWORK, "Backend": {"Type": backend}})
        self.bin = services.path("bin")
        self.bin.mkdir()
        shutil.copy(programs.BIN / "flannel", self.bin)
        for name in ("nftcni", "bridge", "portmap"):
            (self.bin / name).symlink_to(PLUGIN)
        for node in lan.nodes:
            node.env["CNI_PATH"] = str(self.bin)
            self.start(node)
        for node in lan.nodes:
            wait_for(node.file(FILE).exists, f"the lease of {node.name}")

    def start(self, node: Node) -> None:
        words = (f"--etcd-endpoints={URL}", "--iface=eth0", f"--ip-masq={self.masquerade}", f"--subnet-file={FILE}")
        self.services.start(f"flanneld-{node.name}", node, str(programs.BIN / "flanneld"), *words)

    def pod(self, node: Node, way: str, name: str, *ports: Any) -> None:
        plugin = WAYS[way]
        config = {"cniVersion": "0.3.1" if plugin["type"] == "flannel" else "1.0.0", "name": way, **plugin}
        if ports:
            config["runtimeConfig"] = {"portMappings": list(ports)}
        node.pod(config, name, plugin=str(self.bin / plugin["type"]), env={"CNI_PATH": str(self.bin)})

    def close(self) -> None:
        self.services.stop_all()
        self.lan.close()


@pytest.fixture(scope="module", params=WAYS)
def pods(request: pytest.FixtureRequest, cluster: Flannel) -> Iterator[Lan]:
    """Of the matrix, in one of the ways."""
    one, two, _ = cluster.lan.nodes
    way = request.param
    cluster.pod(one, way, "a")
    cluster.pod(one, way, "b")
    cluster.pod(two, way, "c", *matrix.PORTS)
    yield cluster.lan
    for node, name in ((one, "a"), (one, "b"), (two, "c")):
        node.remove(name)
    for node in (one, two):
        assert "nftcni" not in str(node.links()) and "cni0" not in str(node.links())


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("row", matrix.ROWS)
def test_sources(pods: Lan, row: str, version: int) -> None:
    matrix.check(pods, row, version)


def test_the_mtu_is_that_of_the_lease(pods: Lan) -> None:
    one = pods.nodes[0]
    lease = dict(line.split("=") for line in one.file(FILE).read_text().splitlines())
    assert pods.place("a").link("eth0")["mtu"] == int(lease["FLANNEL_MTU"])
    assert one.link("eth0")["mtu"] == 1500


def test_a_node_whose_lease_changes_serves_old_and_new(cluster: Flannel) -> None:
    """flanneld killed, its lease deleted: it takes another subnet. The old pod's answers still find their way."""
    one, two, three = cluster.lan.nodes
    cluster.pod(three, "lease", "old")
    before = three.file(FILE).read_text()
    cluster.services.stop("flanneld-h3")
    three.file(FILE).unlink()
    subnet = next(line.split("=")[1] for line in before.splitlines() if line.startswith("FLANNEL_SUBNET"))
    [key] = [key for key in cluster.etcd.keys(f"{POOL}/subnets/") if subnet.rsplit(".", 1)[0] in key]
    cluster.etcd.delete(key)
    for link in ("flannel.1", "flannel-v6.1"):
        three.run("ip", "link", "delete", link, check=False)
    cluster.pod(two, "lease", "c", port(8080, 80))
    answer = three.cni("ADD", {"cniVersion": "1.0.0", "name": "lease", **WAYS["lease"]}, "old", ifname="eth1")
    assert answer.code == 11 and "start flanneld" in answer.words
    cluster.start(three)
    wait_for(three.file(FILE).exists, "the new lease")
    assert three.file(FILE).read_text() != before
    cluster.pod(three, "lease", "new", port(8082, 80))
    old, new = three.ips["old"][0], three.ips["new"][0]
    assert old.rsplit(".", 1)[0] != new.rsplit(".", 1)[0]
    wait_for(lambda: seen(cluster.lan.place("new"), two.ips["c"][0]) == f"c {new}", "the route to the new subnet")
    assert seen(cluster.lan.place("old"), new) == f"new {old}"
    assert seen(cluster.lan.place("old"), two.address, 8080).startswith("c ")
    assert seen(cluster.lan.outside, three.address, 8082) == f"new {cluster.lan.outside.address}"
    for node, name in ((three, "old"), (three, "new"), (two, "c")):
        node.remove(name)
