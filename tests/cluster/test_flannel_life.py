"""flannel over time: a node that loses its lease and gets another one."""

from __future__ import annotations

from collections.abc import Iterator

import programs
import pytest
from flannel import FILE, POOL, WAYS, Flannel
from lan import Lan, seen, wait_for
from services import Services
from support.scratch import port


@pytest.fixture(scope="module", params=["host-gw true", "vxlan true", "vxlan false"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flannel]:
    programs.require("etcd", "flanneld", "flannel")
    made = Flannel(Lan(3), Services(tmp_path_factory.mktemp("flannel")), *request.param.split())
    yield made
    made.close()


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
