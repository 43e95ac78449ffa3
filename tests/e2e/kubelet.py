"""The CRI as the kubelet uses it, by crictl, on a host with containerd."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from machine import Machine, browse, wait_for
from support.scratch import Namespace


class Kubelet:
    """What the kubelet asks of containerd, in words of crictl."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._number = 0

    def __call__(self, *words: str) -> str:
        endpoint = "unix:///run/containerd/containerd.sock"
        return self.machine.run("crictl", "-r", endpoint, "-i", endpoint, *words).strip()

    def pod(self, name: str, *ports: dict[str, Any], **keys: Any) -> str:
        """A pod's ID. The pause image is the web server, so that the pod answers by itself."""
        self._number += 1
        metadata = {"name": name, "namespace": "default", "uid": f"uid-{self._number}", "attempt": 0}
        linux: dict[str, Any] = {"security_context": {"namespace_options": {}}}
        config = {"metadata": metadata, "hostname": name, "linux": linux, "port_mappings": list(ports), **keys}
        self.machine.write("/run/pod.json", json.dumps(config))
        pod = self("runp", "/run/pod.json")
        wait_for(lambda: browse(self.machine, self.addresses(pod)[0], 80).startswith(f"{name} "), f"the pod {name}")
        return pod

    def status(self, pod: str) -> Any:
        return json.loads(self("inspectp", "-o", "json", pod))

    def addresses(self, pod: str) -> list[str]:
        network = self.status(pod)["status"]["network"]
        return [network["ip"], *(item["ip"] for item in network.get("additionalIps") or [])]

    def inside(self, pod: str) -> Namespace:
        return self.machine.inside(pod, str(self.status(pod)["info"]["pid"]))

    def remove(self, *pods: str) -> None:
        for pod in pods:
            self("stopp", pod)
            self("rmp", pod)


@contextlib.contextmanager
def without_pods(kubelet: Kubelet) -> Iterator[None]:
    """Whatever pods were made in here are removed, and the host is then what it was before."""
    before = kubelet.machine.state()
    yield
    kubelet.remove(*kubelet("pods", "-q").split())
    kubelet.machine.check_unchanged(before)


def host_port(number: int, inside: int = 80, ip: str = "") -> dict[str, Any]:
    return {"protocol": 0, "container_port": inside, "host_port": number, "host_ip": ip}


def network_problem(kubelet: Kubelet) -> str:
    """What the CRI says of the network, "" when it is ready."""
    conditions = json.loads(kubelet("info"))["status"]["conditions"]
    network = next(item for item in conditions if item["type"] == "NetworkReady")
    return "" if network["status"] else str(network["message"])


def network_is_ready(kubelet: Kubelet) -> bool:
    return not network_problem(kubelet)
