"""A whole Kubernetes: control plane, two nodes with kubelet, containerd 2 and kube-proxy, and no plugin but ours.

What the nodes are told is the README's section; how they reach each other's pods are static routes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import image
import programs
import pytest
import readme
from control import Control
from lan import Lan, plug, wait_for
from machine import PATH, Machine, browse, start_containerd
from services import Services
from support.scratch import Host

BINARIES = ("kubelet", "kube-proxy", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
CONTAINERD = """
version = 3
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "docker.io/library/who:latest"
"""
# What the kubelet would write is the machine's own: it writes to files of the scratch host instead.
PREPARE = """
for folder in /var/log /etc/kubernetes; do mkdir -p $folder; mount -t tmpfs scratch $folder; done
mkdir -p /run/kernel
for key in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys \
    kernel/keys/root_maxbytes; do
    cat /proc/sys/$key >/run/kernel/${key##*/}; mount --bind /run/kernel/${key##*/} /proc/sys/$key
done
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
"""
KUBELET: dict[str, Any] = {
    **{"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "cgroupDriver": "cgroupfs"},
    **{"authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}}, "cgroupsPerQOS": False},
    **{"authorization": {"mode": "AlwaysAllow"}, "enforceNodeAllocatable": [], "failSwapOn": False},
    **{"containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock", "failCgroupV1": False},
    **{"imageGCHighThresholdPercent": 100, "evictionHard": {"memory.available": "50Mi"}, "maxPods": 110},
    **{"nodeStatusUpdateFrequency": "2s", "resolvConf": "/etc/resolv.conf", "syncFrequency": "5s"},
}


class Worker(Machine):
    """A node with its programs."""

    def __init__(self, control: Control, switch: Host, number: int, archive: Path) -> None:
        super().__init__()
        self.name = f"h{number}"
        self.address, self.address6 = f"192.0.2.10{number}", f"2001:db8::10{number}"
        plug(switch, self, self.name, self.address, self.address6)
        self.run("sh", "-ec", PREPARE)
        self.env["PATH"] = f"{programs.BIN}/newest:{PATH}"
        for line in readme.commands("Kubernetes"):
            self.shell(line)
        template = self.file("/etc/cni/podcidr.template")
        template.write_text(template.read_text().replace('"1.0.0"', '"1.1.0"'))
        lines = readme.settings("Kubernetes").replace("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
        self.write("/etc/containerd/config.toml", CONTAINERD + lines)
        start_containerd(self)
        self.write("/var/lib/who.tar", "")
        self.file("/var/lib/who.tar").write_bytes(archive.read_bytes())
        self.run("ctr", "-n", "k8s.io", "images", "import", "/var/lib/who.tar")
        self.write("/etc/kubernetes/kubelet.conf", json.dumps(KUBELET))
        for name, account in (("kubelet", self.name), ("kube-proxy", "admin")):
            self.write(f"/etc/kubernetes/{name}.account", Path(control.account(account)).read_text())
        words = ("--config=/etc/kubernetes/kubelet.conf", "--kubeconfig=/etc/kubernetes/kubelet.account")
        addresses = f"--node-ip={self.address},{self.address6}"
        self.start("kubelet", "kubelet", *words, f"--hostname-override={self.name}", addresses)
        zero = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
        proxy = {
            **{"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables"},
            **{"hostnameOverride": self.name, "clusterCIDR": "10.244.0.0/16,fd00:244::/48", "conntrack": zero},
            **{
                "detectLocalMode": "ClusterCIDR",
                "clientConnection": {"kubeconfig": "/etc/kubernetes/kube-proxy.account"},
            },
        }
        self.write("/etc/kubernetes/kube-proxy.conf", json.dumps(proxy))
        self.start("kube-proxy", "kube-proxy", "--config=/etc/kubernetes/kube-proxy.conf")

    def elements(self) -> dict[str, Any]:
        return Host.elements(self)


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Control, list[Worker]]]:
    newest = ("newest/containerd", "newest/ctr", "newest/containerd-shim-runc-v2", "runc", "etcd")
    programs.require(*BINARIES, *newest)
    services = Services(tmp_path_factory.mktemp("kubernetes"))
    image.archive(services.path("who.tar"))
    lan = Lan(0)
    control = Control(lan, services)
    workers = [Worker(control, lan.switch, number, services.path("who.tar")) for number in (1, 2)]
    for node in workers:
        wait_for(lambda node=node: len(control.nodes().get(node.name, [])) == 2, "the nodes' ranges", 90)
        wait_for(lambda node=node: control.condition(node.name)[0], f"{node.name} to be ready", 90)
    for node, other in (workers, workers[::-1]):
        for subnet, way in zip(control.nodes()[other.name], (other.address, other.address6)):
            node.run("ip", "route", "replace", subnet, "via", way)
    yield control, workers
    for node in workers:
        node.close()
    services.stop_all()
    lan.close()


@pytest.fixture
def control(kubernetes: tuple[Control, list[Worker]]) -> Iterator[Control]:
    """A test's pods are gone after it, and nothing of them is left on any node."""
    control, workers = kubernetes
    yield control
    control.delete_pods()
    wait_for(lambda: not control.pods(), "the pods to be gone", 60)
    for node in workers:
        wait_for(lambda node=node: "attachments" not in node.elements(), "the table to be empty", 60)
        assert node.state_files() == []
        assert not [link["ifname"] for link in node.links() if link["ifname"].startswith(("nftcni", "vh"))]


def running(control: Control, *names: str) -> None:
    def all_run() -> bool:
        pods = control.pods()
        return all(pods[name]["status"]["phase"] == "Running" for name in names)

    wait_for(all_run, f"{', '.join(names)[:60]} to run", 180)


@pytest.mark.parametrize("version", [0, 1])
def test_pods_services_and_host_ports(kubernetes: tuple[Control, list[Worker]], control: Control, version: int) -> None:
    one, two = kubernetes[1]
    outside = control.lan.outside
    control.pod("a", "h1", app="a")
    control.pod("c", "h2", [{"containerPort": 80, "hostPort": 8080}], app="c")
    running(control, "a", "c")
    a, c = (control.addresses(name)[version] for name in ("a", "c"))
    [path] = one.file("/run/netns").iterdir()
    pod = one.opened("a", f"/run/netns/{path.name}")
    wait_for(lambda: browse(pod, c, 80) == f"c {a}", "pod to pod of another node")
    client = (outside.address, outside.address6)[version]
    if version == 0:
        assert browse(outside, two.address, 8080) == f"c {client}"
    port = {"name": "http", "port": 80, "targetPort": 80, "protocol": "TCP"}
    spec = {"selector": {"app": "c"}, "ports": [port], "ipFamilies": [("IPv4", "IPv6")[version]]}
    name = f"who{version}"
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
    address = control.ask("POST", "/api/v1/namespaces/default/services", service)["spec"]["clusterIP"]
    wait_for(lambda: browse(pod, address, 80) == f"c {a}", "the service to see the pod's address")
    control.ask("DELETE", f"/api/v1/namespaces/default/services/{name}")


def test_a_node_whose_table_was_deleted_is_not_ready_until_it_is_repaired(
    kubernetes: tuple[Control, list[Worker]], control: Control
) -> None:
    one = kubernetes[1][0]
    control.pod("a", "h1", [{"containerPort": 80, "hostPort": 8080}])
    running(control, "a")
    one.nft("delete table inet nftcni")
    wait_for(lambda: "run nftcni repair" in control.condition("h1")[1], "the node to say what to do", 90)
    assert not control.condition("h1")[0]
    one.run("/opt/cni/bin/nftcni", "repair")
    wait_for(lambda: control.condition("h1")[0], "the node to be ready again", 90)
    assert browse(control.lan.outside, one.address, 8080) == f"a {control.lan.outside.address}"


def test_fifty_pods_come_and_go(control: Control) -> None:
    names = [f"p{number}" for number in range(50)]
    for name in names:
        control.pod(name)
    running(control, *names)
    addresses = [address for name in names for address in control.addresses(name)]
    assert len(set(addresses)) == 100
