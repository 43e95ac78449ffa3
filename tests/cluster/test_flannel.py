"""flannel as it is: flanneld with etcd on three nodes, its backends, and the three ways to name it in a network.

These are our own reading of its lease, and its meta plugin with `nftcni` or with the drop-in `bridge`.
"""

from __future__ import annotations

from collections.abc import Iterator

import matrix
import programs
import pytest
from flannel import FILE, WAYS, Flannel
from lan import Lan
from services import Services


@pytest.fixture(scope="module", params=["host-gw true", "vxlan true", "vxlan false"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flannel]:
    programs.require("etcd", "flanneld", "flannel")
    made = Flannel(Lan(3), Services(tmp_path_factory.mktemp("flannel")), *request.param.split())
    yield made
    made.close()


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
