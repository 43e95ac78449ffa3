"""What kube-proxy is told on a node, by the tests' own API and by the real one. JSON is YAML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def configuration(name: str, account: str, networks: Iterable[str]) -> Any:
    """It leaves the machine's own sysctls alone."""
    conntrack = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    words = "application/json"
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": name,
        "clusterCIDR": ",".join(networks),
        "detectLocalMode": "ClusterCIDR",
        "clientConnection": {"kubeconfig": account, "contentType": words, "acceptContentTypes": words},
        "conntrack": conntrack,
        "nftables": {"minSyncPeriod": "0s", "syncPeriod": "10s"},
    }
