"""STATUS through the CRI: the node is ready when the plugin says so. cniVersion 1.1.0 has it, which containerd 1.6 does
not know."""

from __future__ import annotations

import pytest
from kubelet import Kubelet, host_port, network_is_ready, network_problem
from machine import Machine, browse, start_containerd, wait_for
from nerdctl import HERE, NEIGHBOUR


@pytest.mark.parametrize("containerd", ["newest"], indirect=True, scope="module")
def test_the_node_is_ready_when_the_plugins_status_says_so(kubelet: Kubelet, containerd: Machine) -> None:
    path = "/etc/cni/net.d/10-nftcni.conflist"
    text = containerd.file(path).read_text()
    newer = text.replace('"1.0.0"', '"1.1.0"')
    assert newer != text
    containerd.write(path, newer)
    containerd.stop("containerd")
    start_containerd(containerd)
    wait_for(lambda: network_is_ready(kubelet), "the network of the newer version")
    containerd.nft("table inet other { chain forward { type filter hook forward priority 0; policy drop; }; }")
    wait_for(lambda: "other" in network_problem(kubelet), "the node to say why it is not ready")
    containerd.nft("delete table inet other")
    wait_for(lambda: network_is_ready(kubelet), "the node to be ready again")
    pod = kubelet.pod("web", host_port(8080))
    assert browse(containerd.lan, HERE, 8080) == f"web {NEIGHBOUR}"
    kubelet.remove(pod)
