"""kube-proxy in nftables mode beside us, on two nodes with static routes and the network of podcidr.template."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import kube
import programs
import proxy
import pytest
from api import Api
from lan import Lan, seen, wait_for
from services import Services
from support.scratch import port

SWITCH = "192.0.2.1"
LOCAL = "10.96.0.14", "fd00:96::14"  # externalTrafficPolicy Local, its pod is on the second node


@pytest.fixture(scope="module")
def cluster(lan: Lan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    programs.require("kube-proxy")
    services = Services(tmp_path_factory.mktemp("kube-proxy"))
    lan.switch.run("ip", "address", "add", f"{SWITCH}/24", "dev", "br0")
    started: list[Api] = []

    def load() -> None:
        started.append(Api(lan.switch, SWITCH, objects(lan)))
        account = {"clusters": [{"name": "c", "cluster": {"server": started[0].url}}], "current-context": "c"}
        account["contexts"] = [{"name": "c", "context": {"cluster": "c", "user": "u"}}]
        account_file = services.write("account", json.dumps({"apiVersion": "v1", "kind": "Config", **account}))
        for node in lan.nodes:
            configuration = proxy.configuration(node.name, account_file, kube.POD_NETWORKS)
            file = services.write(f"{node.name}.conf", json.dumps(configuration))
            services.start(node.name, node, str(programs.BIN / "kube-proxy"), f"--config={file}")
        for node in lan.nodes:
            for address in LOCAL:
                wait_for(lambda node=node, address=address: address in node.run("nft", "list", "ruleset"), "its rules")

    kube.prepare(lan, load)
    yield lan
    services.stop_all()
    started[0].close()


def objects(lan: Lan) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {"services": [], "endpointslices": [], "nodes": [], "servicecidrs": []}
    for node in lan.nodes:
        addresses = [{"type": "InternalIP", "address": address} for address in (node.address, node.address6)]
        spec = {"podCIDR": node.subnets[0], "podCIDRs": list(node.subnets)}
        found["nodes"].append({"metadata": {"name": node.name}, "spec": spec, "status": {"addresses": addresses}})
    for name, addresses in {**kube.SERVICES, "local": LOCAL}.items():
        pod = kube.BEHIND.get(name, "c")
        node_port = kube.NODE_PORTS.get(name, 30083)
        ports = [{"name": "http", "port": 80, "targetPort": 80, "protocol": "TCP", "nodePort": node_port}]
        spec = {
            **{"type": "NodePort", "clusterIP": addresses[0], "clusterIPs": list(addresses), "ports": ports},
            **{"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack", "sessionAffinity": "None"},
            "internalTrafficPolicy": "Cluster",
            "externalTrafficPolicy": "Local" if name == "local" else "Cluster",
        }
        found["services"].append({"metadata": {"name": name}, "spec": spec, "status": {"loadBalancer": {}}})
        for version in (4, 6):
            metadata = {"name": f"{name}-{version}", "labels": {"kubernetes.io/service-name": name}}
            node_name = "h2" if pod == "c" else "h1"
            conditions = {"ready": True, "serving": True, "terminating": False}
            end = {"addresses": [lan.address(pod, version)], "nodeName": node_name, "conditions": conditions}
            slice_ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
            found["endpointslices"].append(
                {"metadata": metadata, "addressType": f"IPv{version}", "endpoints": [end], "ports": slice_ports}
            )
    return found


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("filtered", ["0", "1"])
@pytest.mark.parametrize("row", kube.ROWS)
def test_services(cluster: Lan, row: str, filtered: str, version: int) -> None:
    kube.check(cluster, row, filtered, version)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("filtered", ["0", "1"])
def test_a_service_on_the_same_node_sees_the_client(cluster: Lan, filtered: str, version: int) -> None:
    kube.check_same_node(cluster, filtered, version)


@pytest.mark.parametrize("version", [4, 6])
def test_a_local_service_keeps_the_client_and_answers_on_its_node_only(cluster: Lan, version: int) -> None:
    one, two = cluster.nodes
    client = cluster.address("outside", version)
    assert seen(cluster.outside, cluster.address("h2", version), 30083) == f"c {client}"
    assert seen(cluster.outside, cluster.address("h1", version), 30083) in ("silence", "refused")


def test_neither_touches_the_others_table(cluster: Lan) -> None:
    """Pods come and go, our table is repaired; kube-proxy writes its own every 10 s."""
    one = cluster.nodes[0]
    theirs = one.run("nft", "list", "table", "ip", "kube-proxy")
    one.pod(one.pods(port(8090, 80)), "d")
    assert one.command("repair").returncode == 0
    assert one.cni("STATUS", one.pods(cniVersion="1.1.0")).status == 0
    assert seen(cluster.outside, one.address, 8090) == f"d {cluster.outside.address}"
    one.remove("d")
    assert one.run("nft", "list", "table", "ip", "kube-proxy") == theirs
    assert one.command("repair", "--check").returncode == 0
