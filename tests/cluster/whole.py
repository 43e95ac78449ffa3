"""A whole Kubernetes of two nodes with static routes between them, and pods and services in words of the tests."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import image
import programs
from control_plane import ControlPlane
from kube_node import PAUSE, KubeNode
from lan import Lan, wait_for
from machine import browse
from services import Services

PROGRAMS = (
    *("openssl", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
    *("runc", "newest/containerd", "newest/ctr", "newest/containerd-shim-runc-v2"),
)
EVIDENCE = {
    "ruleset": ("nft", "list", "ruleset"),
    "flows": ("conntrack", "-L"),
    "links": ("ip", "-d", "address"),
    "neighbours": ("ip", "neighbour"),
    "ports": ("bridge", "-d", "link"),
}
PAUSED = {"Cmd": ["sleep", "2147483647"]}
AGNHOST = {"Entrypoint": ["/agnhost"], "Cmd": ["pause"]}


class Whole:
    def __init__(self, services: Services) -> None:
        self.services = services
        self.lan = Lan(0)
        self.plane = ControlPlane(self.lan, services)
        self.nodes: list[KubeNode] = []

    def start(self) -> None:
        services = self.services
        self.plane.start()
        who, pause = services.path("who.tar"), services.path("pause.tar")
        image.archive(who)
        image.archive(pause, PAUSE, starts=PAUSED)
        for number in (1, 2):
            self.nodes.append(KubeNode(self.plane, number))
            self.nodes[-1].start_kubelet([who, pause])
        for node in self.nodes:
            node.start_proxy()
        for host in (*self.nodes, self.lan.outside):
            for node in self.nodes:
                if node is not host:
                    for subnet, way in zip(node.subnets(), (node.address, node.address6)):
                        host.run("ip", "route", "replace", subnet, "via", way)

    def ready(self) -> bool:
        return not any(node.problem() for node in self.nodes)

    def start_pod(self, name: str, node: KubeNode | None = None, *ports: int) -> None:
        """A web server of its name, where the scheduler wants it or on a node. Ports are the node's."""
        published = [{"containerPort": 80, "hostPort": port} for port in ports]
        container = {"name": "who", "image": image.NAME, "imagePullPolicy": "Never", "ports": published}
        spec: dict[str, Any] = {"containers": [container], "terminationGracePeriodSeconds": 1}
        if node:
            spec["nodeSelector"] = {"kubernetes.io/hostname": node.name}
        self.plane.create("Pod", name, spec)

    def pod(self, name: str, node: KubeNode | None = None, *ports: int) -> list[str]:
        """Its addresses, IPv4 first, when it is ready."""
        self.start_pod(name, node, *ports)
        return self.running(name)

    def running(self, name: str) -> list[str]:
        def look() -> list[str]:
            status = self.plane.get("Pod", name)["status"]
            conditions = {item["type"]: item["status"] for item in status.get("conditions", ())}
            return [item["ip"] for item in status["podIPs"]] if conditions.get("Ready") == "True" else []

        return list(wait_for(look, f"the pod {name}", 180))

    def service(self, name: str) -> list[str]:
        """Addresses of a service that leads to the pod of its name."""
        spec = {"type": "NodePort", "selector": {"app": name}, "ports": [{"port": 80}]}
        self.plane.create("Service", name, {**spec, "ipFamilyPolicy": "RequireDualStack"})
        return list(self.plane.get("Service", name)["spec"]["clusterIPs"])

    def node_port(self, name: str) -> int:
        return int(self.plane.get("Service", name)["spec"]["ports"][0]["nodePort"])

    def seen_by_pod(self, node: KubeNode, address: str, target: str, port: int = 80) -> str:
        """What answers the pod with this address, and whom it saw."""
        with node.pod_namespace(address) as inside:
            return self.answer(inside, target, port)

    def answer(self, place: Any, target: str, port: int = 80) -> str:
        """kube-proxy and the neighbours learn of a new pod in their own time."""

        def look() -> str:
            said = browse(place, target, port)
            return "" if said in ("silence", "refused") else said

        try:
            return str(wait_for(look, f"an answer of {target} port {port}", 60))
        except AssertionError as problem:
            self._keep_evidence()
            raise AssertionError(f"{problem}: {browse(place, target, port)}") from problem

    def _keep_evidence(self) -> None:
        """Beside the logs of all programs, as it was when something went wrong."""
        for node in self.nodes:
            for name, words in EVIDENCE.items():
                self.services.write(f"{node.name}-{name}", node.run(*words, check=False))

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self.plane.delete("Pod", name)
        wait_for(lambda: not self.plane.names("Pod"), "the end of all pods", 300)

    def left(self) -> list[Any]:
        return [node.left() for node in self.nodes]

    def conformance(self, focus: str) -> tuple[int, str]:
        """How many cases of Kubernetes' own suite ran and passed, and all it said. Its image is built, not pulled."""
        path = self.services.path("agnhost.tar")
        image.archive(path, *_agnhost_names(), starts=AGNHOST, files=_agnhost_files())
        for node in self.nodes:
            node.run("ctr", "-n", "k8s.io", "images", "import", str(path))
        words = (f"--kubeconfig={self.plane.account('admin')}", "--provider=skeleton", "--ginkgo.no-color")
        done = self.lan.switch.popen(
            # A folder of the switch's: it asks where it is, and what was opened outside has no name there.
            *("env", "--chdir=/", str(programs.BIN / "e2e.test"), *words, f"--ginkgo.focus={focus}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = done.communicate(timeout=900)
        found = re.search(r"Ran (\d+) of \d+ Specs.*\n.*-- (\d+) Passed \| 0 Failed", said)
        return (int(found[2]) if found and found[1] == found[2] and done.returncode == 0 else 0), said

    def close(self) -> None:
        with contextlib.ExitStack() as ends:
            for end in (self.lan.close, self.services.stop_all, *(node.close for node in self.nodes)):
                ends.callback(end)


def _agnhost_names() -> list[str]:
    """Under which the cases ask for their image."""
    done = subprocess.run([programs.BIN / "e2e.test", "--list-images"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.split() if "/e2e-test-images/agnhost:" in line]


def _agnhost_files() -> dict[str, Path]:
    """The program of Kubernetes, with the curl and nc that its cases call and the libraries they need.

    busybox has a shell of its own, but that one prefers its own nc, which has no UDP.
    """
    tools = {
        **{"bin/sh": Path("/bin/dash"), "bin/curl": Path("/usr/bin/curl")},
        "bin/nc": programs.BIN / "nc.traditional",
    }
    files = {"agnhost": programs.BIN / "agnhost", **tools}
    for tool in tools.values():
        said = subprocess.run(["ldd", tool], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", said):
            files[library.lstrip("/")] = Path(library)
    return files
