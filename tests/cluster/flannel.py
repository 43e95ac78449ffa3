"""flanneld with etcd on the nodes of a LAN, and the three ways to name it in a network."""

from __future__ import annotations

import shutil
from typing import Any

import programs
from etcd import URL, Etcd
from lan import Lan, Node, wait_for
from services import Services
from support.scratch import PLUGIN

POOL = "/coreos.com/network"
FILE = "/run/flannel/subnet.env"
NETWORK = {
    **{"Network": "10.245.0.0/16", "SubnetLen": 24, "EnableIPv6": True, "IPv6Network": "fd00:245::/48"},
    **{"IPv6SubnetLen": 64, "EnableNFTables": True},
}
DELEGATE = {"bridge": "nftcni-meta", "isDefaultGateway": True, "gatewayMode": "open"}
EXCEPTIONS = ["10.245.0.0/16", "fd00:245::/48"]
WAYS: dict[str, dict[str, Any]] = {
    "lease": {"type": "nftcni", "bridge": "nftcni-lease", "ipam": {"type": "flannel"}},
    "meta-nftcni": {
        **{"type": "flannel", "dataDir": "/run/cni/meta"},
        "delegate": {"type": "nftcni", **DELEGATE, "nonMasqueradeCIDRs": EXCEPTIONS},
    },
    "meta-bridge": {
        **{"type": "flannel", "dataDir": "/run/cni/drop"},
        "delegate": {**DELEGATE, "bridge": "cni0", "hairpinMode": True, "nonMasqueradeCIDRs": EXCEPTIONS},
    },
}


class Flannel:
    def __init__(self, lan: Lan, services: Services, backend: str, masquerade: str) -> None:
        self.lan, self.services, self.masquerade = lan, services, masquerade
        self.etcd = Etcd(lan, services)
        self.etcd.put(f"{POOL}/config", {**NETWORK, "Backend": {"Type": backend}})
        self.bin = services.path("bin")
        self.bin.mkdir()
        shutil.copy(programs.BIN / "flannel", self.bin)
        for name in ("nftcni", "bridge", "portmap"):
            (self.bin / name).symlink_to(PLUGIN)
        for node in lan.nodes:
            node.env["CNI_PATH"] = str(self.bin)
            self.start(node)
        for node in lan.nodes:
            wait_for(node.file(FILE).exists, f"the lease of {node.name}")

    def start(self, node: Node) -> None:
        words = (f"--etcd-endpoints={URL}", "--iface=eth0", f"--ip-masq={self.masquerade}", f"--subnet-file={FILE}")
        self.services.start(f"flanneld-{node.name}", node, str(programs.BIN / "flanneld"), *words)

    def pod(self, node: Node, way: str, name: str, *ports: Any) -> None:
        plugin = WAYS[way]
        config = {"cniVersion": "0.3.1" if plugin["type"] == "flannel" else "1.0.0", "name": way, **plugin}
        if ports:
            config["runtimeConfig"] = {"portMappings": list(ports)}
        node.pod(config, name, plugin=str(self.bin / plugin["type"]), env={"CNI_PATH": str(self.bin)})

    def close(self) -> None:
        self.services.stop_all()
        self.lan.close()
