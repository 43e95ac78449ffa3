"""A control plane on the LAN's switch: etcd, API server, controller manager and scheduler, and one client of theirs."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
from typing import Any

import programs
from etcd import ADDRESS, URL, Etcd
from lan import Lan, wait_for
from services import Services

Json = Any
SERVICE_NETWORKS = "10.96.0.0/16,fd00:96::/108"
POD_NETWORKS = "10.244.0.0/16,fd00:244::/48"
TOKENS = "admin", "h1", "h2"


class Control:
    def __init__(self, lan: Lan, services: Services) -> None:
        self.lan, self.services = lan, services
        Etcd(lan, services)
        key = str(services.path("key"))
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        groups = {"admin": "system:masters"}
        lines = [f'{name}-token,{name},{name},"{groups.get(name, "system:nodes")}"\n' for name in TOKENS]
        tokens = services.write("tokens", "".join(lines))
        self._start(
            "kube-apiserver",
            *(f"--etcd-servers={URL}", f"--bind-address={ADDRESS}", f"--advertise-address={ADDRESS}"),
            *(f"--cert-dir={services.path('certificates')}", f"--token-auth-file={tokens}"),
            *("--authorization-mode=AlwaysAllow", f"--service-cluster-ip-range={SERVICE_NETWORKS}"),
            *("--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={key}"),
            *(f"--service-account-signing-key-file={key}", "--disable-admission-plugins=ServiceAccount"),
        )
        wait_for(self._is_ready, "the API server", 120)
        account = self.account("admin")
        shared = ("--leader-elect=false", "--authentication-kubeconfig=", "--authorization-kubeconfig=")
        self._start(
            *("kube-controller-manager", f"--kubeconfig={account}", "--allocate-node-cidrs=true", *shared),
            *(f"--cluster-cidr={POD_NETWORKS}", f"--service-cluster-ip-range={SERVICE_NETWORKS}", "--secure-port=0"),
            *("--node-cidr-mask-size-ipv4=24", "--node-cidr-mask-size-ipv6=64"),
            f"--service-account-private-key-file={key}",
        )
        self._start("kube-scheduler", f"--kubeconfig={account}", "--secure-port=0", *shared)

    def _start(self, name: str, *words: str) -> None:
        self.services.start(name, self.lan.switch, str(programs.BIN / name), *words)

    def account(self, name: str) -> str:
        """The path of a kubeconfig; JSON is YAML."""
        cluster = {"server": f"https://{ADDRESS}:6443", "insecure-skip-tls-verify": True}
        document = {
            **{"apiVersion": "v1", "kind": "Config", "current-context": "c"},
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": f"{name}-token"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
        return self.services.write(f"{name}.account", json.dumps(document))

    def _is_ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz") is not None
        except (OSError, AssertionError):
            return False

    def ask(self, method: str, path: str, document: Json = None) -> Json:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(ADDRESS, 6443, timeout=20, context=context)
        with self.lan.switch.entered():
            connection.connect()
        headers = {"Authorization": "Bearer admin-token", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(document) if document is not None else None, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        assert answer.status < 300, f"{method} {path}: {text}"
        return json.loads(text) if text.startswith("{") else text

    # What tests ask for

    def pod(self, name: str, node: str = "", ports: Json = (), **labels: str) -> None:
        """Its sandbox is the web server; the container only has to be there."""
        container = {
            **{"name": "c", "image": "docker.io/library/who:latest", "imagePullPolicy": "Never"},
            **{"command": ["sleep", "100000"], "ports": list(ports)},
        }
        spec = {"containers": [container], "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False}
        if node:
            spec["nodeName"] = node
        metadata = {"name": name, "labels": labels}
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        self.ask("POST", "/api/v1/namespaces/default/pods", document)

    def pods(self) -> dict[str, Json]:
        items = self.ask("GET", "/api/v1/namespaces/default/pods")["items"]
        return {item["metadata"]["name"]: item for item in items}

    def addresses(self, name: str) -> list[str]:
        return [entry["ip"] for entry in self.pods()[name]["status"].get("podIPs", [])]

    def delete_pods(self) -> None:
        self.ask("DELETE", "/api/v1/namespaces/default/pods?gracePeriodSeconds=0")

    def condition(self, node: str) -> tuple[bool, str]:
        """Whether it is Ready, and its words."""
        status = self.ask("GET", f"/api/v1/nodes/{node}")["status"]
        ready = next(item for item in status.get("conditions", []) if item["type"] == "Ready")
        return ready["status"] == "True", str(ready["message"])

    def nodes(self) -> dict[str, list[str]]:
        items = self.ask("GET", "/api/v1/nodes")["items"]
        return {item["metadata"]["name"]: item["spec"].get("podCIDRs", []) for item in items}
