"""A node of Kubernetes: containerd 2 as the README says, kubelet and kube-proxy, on a machine of its own on the LAN."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import programs
import proxy
import readme
from control_plane import POD_NETWORKS, ControlPlane
from lan import plug, wait_for
from machine import PATH, Machine, start_containerd
from support.scratch import Host, Namespace

OLD, NEW = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"
PAUSE = "docker.io/library/pause:latest"
CONTAINERD = f"""
version = 3
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE}"
[plugins."{NEW}"]
  restrict_oom_score_adj = true
  disable_apparmor = true
"""
# The kubelet writes these, which are the whole machine's: here it writes files.
COVER = """
for file in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys \
    kernel/keys/root_maxbytes; do
    mkdir -p "/run/covered/${file%/*}"
    cat "/proc/sys/$file" >"/run/covered/$file"
    mount --bind "/run/covered/$file" "/proc/sys/$file"
done
mount -t tmpfs log /var/log
"""
GROUP = "nftcni-cluster"


class KubeNode(Machine):
    def __init__(self, plane: ControlPlane, number: int) -> None:
        super().__init__()
        self.plane = plane
        self.name = f"h{number}"
        self.address, self.address6 = f"192.0.2.{100 + number}", f"2001:db8::{100 + number}"
        self.env["PATH"] = f"{programs.BIN}/newest:{PATH}"

    def start_kubelet(self, images: list[Path]) -> None:
        plane = self.plane
        plug(plane.lan.switch, self, self.name, self.address, self.address6)
        self.set_sysctl("ipv4/ip_forward", "1")
        self.set_sysctl("ipv6/conf/all/forwarding", "1")
        self.bridge_netfilter("1")
        self.run("sh", "-ec", COVER)
        for line in readme.commands("Kubernetes"):
            self.shell(line)
        template = self.file("/etc/cni/podcidr.template")
        template.write_text(template.read_text().replace('"1.0.0"', '"1.1.0"'))
        self.write("/etc/containerd/config.toml", CONTAINERD + readme.settings("Kubernetes").replace(OLD, NEW))
        start_containerd(self)
        for image in images:
            self.run("ctr", "-n", "k8s.io", "images", "import", str(image))
        self.write("/etc/kubelet", json.dumps({**KUBELET, "cgroupRoot": f"/{GROUP}-{self.name}"}))
        account = plane.account(f"system:node:{self.name}")
        where = (f"--hostname-override={self.name}", f"--node-ip={self.address},{self.address6}")
        self.start("kubelet", "kubelet", "--config=/etc/kubelet", f"--kubeconfig={account}", *where)

    def start_proxy(self) -> None:
        """Not before Kubernetes knows the node: kube-proxy waits 30 s for it, and ends if it comes later."""
        wait_for(self.subnets, f"the pod network of {self.name}", 120)
        configuration = proxy.configuration(self.name, self.plane.account("system:kube-proxy"), POD_NETWORKS)
        self.write("/etc/kube-proxy", json.dumps(configuration))
        self.start("kube-proxy", "kube-proxy", "--config=/etc/kube-proxy")

    def subnets(self) -> list[str]:
        """Its part of the pod networks, once Kubernetes has given it one."""
        node = self.plane.get("Node", self.name) or {"spec": {}}
        return list(node["spec"].get("podCIDRs", ()))

    def problem(self) -> str:
        """What Kubernetes says of the node; "" when it is ready."""
        node = self.plane.get("Node", self.name) or {"status": {}}
        conditions = {item["type"]: item for item in node["status"].get("conditions", ())}
        ready = conditions.get("Ready", {"status": "False", "message": "nothing is known"})
        return "" if ready["status"] == "True" else str(ready["message"])

    def namespaces_of_pods(self) -> list[Path]:
        return list(self.file("/run/netns").glob("cni-*"))

    @contextlib.contextmanager
    def pod_namespace(self, address: str) -> Iterator[Namespace]:
        """Of the pod that the kernel says has this address."""
        for path in self.namespaces_of_pods():
            found = Namespace(path.name, f"/run/netns/{path.name}", os.open(path, os.O_RDONLY))
            try:
                if address in {item.split("/")[0] for item in found.addresses("eth0")}:
                    yield found
                    return
            finally:
                found.close()
        raise AssertionError(f"no pod on {self.name} has {address}")

    def left(self) -> dict[str, Any]:
        """Whatever a pod's network may leave on a node."""
        files = [str(path) for path in self.file("/var/lib/cni").rglob("*") if path.is_file()]
        return {
            "links": self.links(),
            "routes": self.routes(),
            "elements": Host.elements(self),
            "records": self.state_files(),
            "files": sorted(path for path in files if "last_reserved_ip" not in path and not path.endswith("/lock")),
            "namespaces": sorted(path.name for path in self.namespaces_of_pods()),
        }

    def close(self) -> None:
        for log in self.file("/run").glob("*.log"):
            shutil.copy(log, self.plane.services.path(f"{self.name}-{log.name}"))
        super().close()
        wait_for(lambda: _without_groups(f"{GROUP}-{self.name}"), f"the end of the control groups of {self.name}")


KUBELET = {
    **{"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"},
    **{"authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}}},
    **{"authorization": {"mode": "AlwaysAllow"}, "clusterDNS": ["10.96.0.10"], "resolvConf": "/etc/resolv.conf"},
    **{"cgroupDriver": "cgroupfs", "cgroupsPerQOS": False, "enforceNodeAllocatable": []},
    **{"failCgroupV1": False, "failSwapOn": False, "evictionHard": {"memory.available": "50Mi"}},
    **{"imageGCHighThresholdPercent": 100, "nodeStatusUpdateFrequency": "2s"},
    "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
}


def _without_groups(name: str) -> bool:
    """They can be removed when the kernel has ended the last process in them."""
    groups = Path("/sys/fs/cgroup")
    folders = [*groups.glob(name), *groups.glob(f"*/{name}")]
    for folder in folders:
        for inner, _, _ in os.walk(folder, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(inner)
    return not any(folder.exists() for folder in folders)
