"""A node whose pod network containerd writes by itself, from conf/net.d/podcidr.template and the node's ranges.

A machine of its own, with nothing on it but what the README's section says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import programs
import pytest
import readme
from kubelet import Kubelet, host_port, network_is_ready, network_problem, without_pods
from machine import Machine, browse, start_containerd, wait_for
from nerdctl import HERE, HERE6, NEIGHBOUR, NEIGHBOUR6

pytestmark = pytest.mark.parametrize("containerd", ["distribution", "newest"], indirect=True, scope="module")

RANGES = ("10.244.9.0/24", "fd00:244:9::/64")
OLD, NEW = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"
CRI = """
version = {version}
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."{table}"]
  restrict_oom_score_adj = true
  disable_apparmor = true
"""
IMAGE = "docker.io/library/who:latest"
SETTINGS = {  # which table the README's lines go into, and what this host wants of containerd besides them
    OLD: CRI.format(version=2, table=OLD) + f'  sandbox_image = "{IMAGE}"\n',
    NEW: CRI.format(version=3, table=NEW)
    + f'[plugins."io.containerd.cri.v1.images".pinned_images]\n  sandbox = "{IMAGE}"\n',
}


@pytest.fixture(scope="module")
def node(containerd: Machine) -> Iterator[Kubelet]:
    """As the README says; the kubelet has not named a range yet."""
    programs.require("crictl")
    for line in readme.commands("Kubernetes"):
        containerd.shell(line)
    table = NEW if containerd.run("containerd", "--version").split()[2].startswith("v2.") else OLD
    lines = readme.settings("Kubernetes")
    assert OLD in lines and NEW in readme.section("Kubernetes")
    containerd.stop("containerd")
    containerd.write("/etc/containerd/config.toml", SETTINGS[table] + lines.replace(OLD, table))
    start_containerd(containerd)
    node = Kubelet(containerd)
    wait_for(lambda: "NetworkReady" in node("info"), "the CRI")
    yield node
    containerd.run("sh", "-c", "rm -f /etc/cni/net.d/* /etc/cni/podcidr.template")


@pytest.fixture(autouse=True)
def unchanged(node: Kubelet) -> Iterator[None]:
    with without_pods(node):
        yield


def test_there_is_no_network_before_the_kubelet_names_its_range(node: Kubelet) -> None:
    assert node.machine.run("ls", "/etc/cni/net.d") == ""
    assert network_problem(node)


def test_the_kubelet_names_its_ranges_and_pods_start(node: Kubelet) -> None:
    node("update-runtime-config", "--pod-cidr", ",".join(RANGES))
    wait_for(lambda: network_is_ready(node), "the rendered network")
    [name] = node.machine.run("ls", "/etc/cni/net.d").split()
    rendered = json.loads(node.machine.file(f"/etc/cni/net.d/{name}").read_text())
    assert rendered["plugins"][0]["ipam"]["ranges"] == [[{"subnet": item}] for item in RANGES]
    pod = node.pod("web", host_port(8080))
    v4, v6 = node.addresses(pod)
    assert v4.startswith("10.244.9.") and v6.startswith("fd00:244:9::")
    assert {v4, v6} == {item.split("/")[0] for item in node.inside(pod).addresses("eth0")}
    assert browse(node.inside(pod), "127.0.0.1", 80) == "web 127.0.0.1", "the loopback is up"
    assert browse(node.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"
    assert browse(node.machine.lan, HERE6, 8080) == f"web {NEIGHBOUR6}"
    second = node.pod("second")
    for here, there in zip(node.addresses(second), node.addresses(pod)):
        assert browse(node.inside(second), there, 80) == f"web {here}"


def test_the_network_outlives_containerd(node: Kubelet) -> None:
    assert network_is_ready(node)
    pod = node.pod("web", host_port(8080))
    node.machine.stop("containerd")
    start_containerd(node.machine)
    wait_for(lambda: pod in node("pods", "-q", "--no-trunc"), "containerd to know its pods")
    wait_for(lambda: network_is_ready(node), "the network")
    second = node.pod("second")
    assert browse(node.inside(second), node.addresses(pod)[0], 80) == f"web {node.addresses(second)[0]}"
    assert browse(node.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"
