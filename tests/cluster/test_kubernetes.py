"""A whole Kubernetes on two nodes: pods, services, host ports, and what is left of them.

Addresses and answers are those of sockets, what is left is what the kernel and the state folder have.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import programs
import pytest
from lan import wait_for
from services import Services
from whole import PROGRAMS, Whole

MANY = 50
CASES = r"\[sig-network\] (HostPort|Networking Granular Checks: Pods) .*\[Conformance\]"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    programs.require(*PROGRAMS)
    made = Whole(Services(tmp_path_factory.mktemp("kubernetes")))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(whole: Whole) -> Iterator[Whole]:
    """With both nodes ready, and nothing left of the pods that a test makes."""
    wait_for(whole.ready, "both nodes to be ready", 120)
    before = whole.left()
    assert not any(place[kind] for place in before for kind in ("elements", "records", "namespaces")), before
    yield whole
    for name in whole.plane.names("Service") - {"kubernetes"}:
        whole.plane.delete("Service", name)
    whole.remove(whole.plane.names("Pod"))
    wait_for(lambda: whole.left() == before, "the last traces of the pods", 60)


def test_pods_of_two_nodes_see_each_other(cluster: Whole) -> None:
    one, two = cluster.nodes
    here, there = cluster.pod("here", one), cluster.pod("there", two)
    for mine, theirs in zip(here, there):
        assert cluster.seen_by_pod(one, mine, theirs) == f"there {mine}"
        assert cluster.seen_by_pod(two, theirs, mine) == f"here {theirs}"
        assert cluster.answer(cluster.lan.outside, theirs).startswith("there ")


def test_a_service_sees_whom_kubernetes_says(cluster: Whole) -> None:
    one, two = cluster.nodes
    client = cluster.pod("client", one)
    cluster.start_pod("near", one)
    cluster.start_pod("far", two)
    services = {name: cluster.service(name) for name in ("near", "far", "client")}
    for name in services:
        cluster.running(name)
    for version, mine in enumerate(client):
        for name in ("near", "far"):
            assert cluster.seen_by_pod(one, mine, services[name][version]) == f"{name} {mine}"
        assert cluster.seen_by_pod(one, mine, services["client"][version]).startswith("client ")
        node = (one.address, one.address6)[version]
        assert cluster.answer(one, services["far"][version]) == f"far {node}"
        assert cluster.answer(cluster.lan.outside, node, cluster.node_port("far")) == f"far {node}"


def test_a_host_port_answers_another_host_and_goes_with_its_pod(cluster: Whole) -> None:
    one, outside = cluster.nodes[0], cluster.lan.outside
    before = cluster.left()
    cluster.pod("web", one, 8080)
    assert cluster.answer(outside, one.address, 8080) == f"web {outside.address}"
    assert cluster.answer(outside, one.address6, 8080) == f"web {outside.address6}"
    assert "8080" in str(one.left()["elements"])
    cluster.remove(["web"])
    wait_for(lambda: cluster.left() == before, "the last traces of the pod", 60)


@pytest.mark.parametrize("turn", ["first", "again"])
def test_many_pods_leave_nothing(cluster: Whole, turn: str) -> None:
    before = cluster.left()
    begun = time.monotonic()
    names = [f"many-{number}" for number in range(MANY)]
    for name in names:
        cluster.start_pod(name)
    addresses = {address for name in names for address in cluster.running(name)}
    assert len(addresses) == 2 * MANY
    assert sum(len(node.namespaces_of_pods()) for node in cluster.nodes) == MANY
    assert all(node.namespaces_of_pods() for node in cluster.nodes)
    ready = time.monotonic()
    cluster.remove(names)
    wait_for(lambda: cluster.left() == before, "the last traces of the pods", 120)
    print(f"{MANY} pods, {turn}: ready in {ready - begun:.0f} s, gone in {time.monotonic() - ready:.0f} s")


def test_a_node_without_our_table_is_not_ready_and_says_what_to_do(cluster: Whole) -> None:
    one, outside = cluster.nodes[0], cluster.lan.outside
    cluster.pod("web", one, 8080)
    one.nft("delete table inet nftcni")
    wait_for(lambda: "run nftcni repair" in one.problem(), "the node to say what to do", 120)
    assert "table inet nftcni is missing" in one.problem()
    assert not cluster.nodes[1].problem()
    one.run("/opt/cni/bin/nftcni", "repair")
    wait_for(cluster.ready, "the node to be ready again", 120)
    assert cluster.answer(outside, one.address, 8080) == f"web {outside.address}"


def test_the_conformance_cases_of_host_ports_and_of_traffic_between_pods_pass(cluster: Whole) -> None:
    """One of host ports; between pods, and between nodes and pods, by HTTP and by UDP. Those of services need names."""
    programs.require("e2e.test", "agnhost", "curl", "nc.traditional")
    passed, said = cluster.conformance(CASES)
    assert passed == 5, said
