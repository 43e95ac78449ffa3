"""Kubernetes' own control plane on the LAN's switch: etcd, the API server, controllers and scheduler, and its API."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
from typing import Any

import programs
from etcd import ADDRESS, Etcd
from etcd import URL as STORE
from lan import Lan, wait_for
from services import Services

POD_NETWORKS = "10.244.0.0/16", "fd00:244::/48"  # a node's IPv6 part may be 16 bits longer at most
SERVICE_NETWORKS = "10.96.0.0/16", "fd00:96::/108"
PLURALS = {"Pod": "pods", "Service": "services", "Node": "nodes"}
GROUPS = {"admin": "system:masters", "system:kube-proxy": "", "system:node:h1": "system:nodes"}
GROUPS["system:node:h2"] = "system:nodes"


class ControlPlane:
    """Everybody authenticates with their name as token; what they may do is decided as in any cluster."""

    def __init__(self, lan: Lan, services: Services) -> None:
        self.lan, self.services = lan, services
        self.certificates = services.path("certificates")
        self.authority = self.certificates / "apiserver.crt"

    def start(self) -> None:
        services = self.services
        Etcd(self.lan, services)
        key = services.path("accounts.key")
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        tokens = "".join(f'{name},{name},{name},"{group}"\n' for name, group in GROUPS.items())
        service_networks = f"--service-cluster-ip-range={','.join(SERVICE_NETWORKS)}"
        self._start(
            "kube-apiserver",
            *(f"--etcd-servers={STORE}", f"--bind-address={ADDRESS}", f"--advertise-address={ADDRESS}"),
            *(f"--cert-dir={self.certificates}", f"--token-auth-file={services.write('tokens', tokens)}"),
            *("--authorization-mode=Node,RBAC", "--allow-privileged=true", service_networks),
            *("--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={key}"),
            *(f"--service-account-signing-key-file={key}", "--kubelet-preferred-address-types=InternalIP"),
        )
        wait_for(self._ready, "the API server", 120)
        account = self.account("admin")
        alone = (f"--kubeconfig={account}", "--leader-elect=false", "--secure-port=0")
        self._start(
            "kube-controller-manager",
            *(*alone, "--allocate-node-cidrs=true", f"--cluster-cidr={','.join(POD_NETWORKS)}", service_networks),
            *("--node-cidr-mask-size-ipv4=24", "--node-cidr-mask-size-ipv6=64"),
            *(f"--service-account-private-key-file={key}", f"--root-ca-file={self.authority}"),
        )
        self._start("kube-scheduler", *alone)
        wait_for(lambda: self.ask("GET", "/api/v1/namespaces/default/serviceaccounts/default"), "the first account", 60)

    def account(self, user: str) -> str:
        """The file with which a program speaks for somebody."""
        named = {
            "clusters": [{"name": "c", "cluster": self._cluster()}],
            "users": [{"name": "u", "user": {"token": user}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
        document = {"apiVersion": "v1", "kind": "Config", "current-context": "c", **named}
        return self.services.write(f"account-{user.replace(':', '-')}", json.dumps(document))

    def ask(self, method: str, path: str, document: Any = None) -> Any:
        """The answer, None if there is no such object."""
        context = ssl.create_default_context(cafile=str(self.authority))
        connection = http.client.HTTPSConnection(ADDRESS, 6443, timeout=30, context=context)
        with self.lan.switch.entered():
            connection.connect()
        headers = {"Authorization": "Bearer admin", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(document) if document else None, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status == 404:
            return None
        assert answer.status < 300, text
        return json.loads(text) if text.startswith("{") else text

    def create(self, kind: str, name: str, spec: Any) -> None:
        metadata = {"name": name, "labels": {"app": name}}
        self.ask("POST", self._path(kind), {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec})

    def get(self, kind: str, name: str) -> Any:
        return self.ask("GET", f"{self._path(kind)}/{name}")

    def names(self, kind: str) -> set[str]:
        return {item["metadata"]["name"] for item in self.ask("GET", self._path(kind))["items"]}

    def delete(self, kind: str, name: str) -> None:
        self.ask("DELETE", f"{self._path(kind)}/{name}")

    def _path(self, kind: str) -> str:
        return f"/api/v1/{'' if kind == 'Node' else 'namespaces/default/'}{PLURALS[kind]}"

    def _cluster(self) -> Any:
        return {"server": f"https://{ADDRESS}:6443", "certificate-authority": str(self.authority)}

    def _ready(self) -> bool:
        try:
            return bool(self.ask("GET", "/readyz") == "ok")
        except (OSError, AssertionError):
            return False

    def _start(self, program: str, *words: str) -> None:
        self.services.start(program, self.lan.switch, str(programs.BIN / program), *words)
