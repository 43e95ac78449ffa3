"""STATUS through the CRI: the node is ready when the plugin says so. cniVersion 1.1.0 has it, which containerd 1.6 does
not know."""

from __future__ import annotations

import pytest
from kubelet import Kubelet, host_port, network_is_ready, network_problem
from machine import Machine, browse, start_containerd, wait_for
from nerdctl import HERE, NEIGHBOUR

pytestmark = pytest.mark.parametrize("containerd", ["newest"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def node(kubelet: Kubelet, containerd: Machine) -> Kubelet:
    """With a network of the version that has STATUS."""
    path = "/etc/cni/net.d/10-nftcni.conflist"
    text = containerd.file(path).read_text()
    newer = text.replace('"1.0.0"', '"1.1.0"')
    assert newer != text
    containerd.write(path, newer)
    containerd.stop("containerd")
    start_containerd(containerd)
    wait_for(lambda: network_is_ready(kubelet), "the network of the newer version")
    return kubelet


def test_the_node_is_ready_when_the_plugins_status_says_so(node: Kubelet, containerd: Machine) -> None:
    containerd.nft("table inet other { chain forward { type filter hook forward priority 0; policy drop; }; }")
    wait_for(lambda: "other" in network_problem(node), "the node to say why it is not ready")
    containerd.nft("delete table inet other")
    wait_for(lambda: network_is_ready(node), "the node to be ready again")
    pod = node.pod("web", host_port(8080))
    assert browse(containerd.lan, HERE, 8080) == f"web {NEIGHBOUR}"
    node.remove(pod)


def test_a_node_whose_table_was_deleted_says_so_until_it_is_repaired(node: Kubelet, containerd: Machine) -> None:
    pod = node.pod("web", host_port(8080))
    containerd.nft("delete table inet nftcni")
    wait_for(lambda: "run nftcni repair" in network_problem(node), "the node to say what to do")
    assert "table inet nftcni is missing" in network_problem(node)
    containerd.run("/opt/cni/bin/nftcni", "repair")
    wait_for(lambda: network_is_ready(node), "the node to be ready again")
    assert browse(containerd.lan, HERE, 8080) == f"web {NEIGHBOUR}"
    node.remove(pod)
