"""containerd without nerdctl: the CRI as the kubelet uses it, by crictl, and `ctr run --cni`.

The network is conf/net.d/10-nftcni.conflist, which has both families. One that containerd writes by itself is in
test_kubernetes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import readme
from kubelet import Kubelet, host_port, network_is_ready, without_pods
from machine import browse, start_containerd, wait_for
from nerdctl import HERE, HERE6, NEIGHBOUR, NEIGHBOUR6
from support.traffic import Server, ask

pytestmark = pytest.mark.parametrize("containerd", ["distribution", "newest"], indirect=True, scope="module")


@pytest.fixture(autouse=True)
def unchanged(kubelet: Kubelet) -> Iterator[None]:
    with without_pods(kubelet):
        yield


def test_a_pod_with_a_host_port_in_both_families(kubelet: Kubelet) -> None:
    pod = kubelet.pod("web", host_port(8080))
    v4, v6 = kubelet.addresses(pod)
    assert {v4, v6} == {item.split("/")[0] for item in kubelet.inside(pod).addresses("eth0")}
    assert browse(kubelet.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"
    assert browse(kubelet.machine.lan, HERE6, 8080) == f"web {NEIGHBOUR6}"
    assert browse(kubelet.inside(pod), "127.0.0.1", 80) == "web 127.0.0.1", "the loopback is up"
    kubelet("stopp", pod)
    assert browse(kubelet.machine.lan, HERE, 8080) == "refused"


def test_a_host_port_of_udp(kubelet: Kubelet) -> None:
    pod = kubelet.pod("dns", {**host_port(5353, 53), "protocol": 1})
    with Server(kubelet.inside(pod), 53, "udp", "dns"):
        assert ask(kubelet.machine.lan, HERE, 5353, "udp") == f"dns {NEIGHBOUR}"
        assert ask(kubelet.machine.lan, HERE6, 5353, "udp") == f"dns {NEIGHBOUR6}"


def test_a_port_for_one_address_of_the_host(kubelet: Kubelet) -> None:
    kubelet.pod("web", host_port(8080, ip="127.0.0.1"))
    assert browse(kubelet.machine, "127.0.0.1", 8080).startswith("web ")
    assert browse(kubelet.machine.lan, HERE, 8080) == "refused"


def test_pods_reach_each_other_and_keep_their_address(kubelet: Kubelet) -> None:
    one, two = kubelet.pod("one"), kubelet.pod("two")
    for here, there in zip(kubelet.addresses(one), kubelet.addresses(two)):
        assert browse(kubelet.inside(one), there, 80) == f"two {here}"


def test_the_way_out(kubelet: Kubelet) -> None:
    """The LAN sees the host's addresses."""
    pod = kubelet.pod("web")
    with Server(kubelet.machine.lan, 80):
        for address, seen in ((NEIGHBOUR, HERE), (NEIGHBOUR6, HERE6)):
            assert ask(kubelet.inside(pod), address, 80) == f"lan {seen}"


def test_dns_is_the_pods_and_bandwidth_does_no_harm(kubelet: Kubelet) -> None:
    dns = {"servers": ["10.96.0.10"], "searches": ["svc.cluster.local"], "options": ["ndots:5"]}
    annotations = {"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "10M"}
    pod = kubelet.pod("web", host_port(8080), dns_config=dns, annotations=annotations)
    folder = f"/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{pod}"
    assert "nameserver 10.96.0.10" in kubelet.machine.file(f"{folder}/resolv.conf").read_text()
    assert browse(kubelet.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"


def test_a_second_pod_with_the_port_is_refused_by_name(kubelet: Kubelet) -> None:
    kubelet.pod("web", host_port(8080))
    with pytest.raises(AssertionError, match="8080.*taken by network pods"):
        kubelet.pod("late", host_port(8080))
    assert browse(kubelet.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"


def test_a_pod_whose_namespace_is_gone_can_be_removed(kubelet: Kubelet) -> None:
    pod = kubelet.pod("web", host_port(8080))
    kubelet.machine.run("kill", "-9", str(kubelet.status(pod)["info"]["pid"]))
    path = next(
        item["path"]
        for item in kubelet.status(pod)["info"]["runtimeSpec"]["linux"]["namespaces"]
        if item["type"] == "network"
    )
    for command in ("umount", "rm"):  # containerd 2 may have done so already
        kubelet.machine.run(command, path, check=False)
    assert not kubelet.machine.file(path).exists()
    kubelet.remove(pod)
    assert browse(kubelet.machine.lan, HERE, 8080) == "refused"


def test_pods_survive_a_restart_of_containerd(kubelet: Kubelet) -> None:
    pod = kubelet.pod("web", host_port(8080))
    kubelet.machine.stop("containerd")
    assert browse(kubelet.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"
    start_containerd(kubelet.machine)
    wait_for(lambda: pod in kubelet("pods", "-q", "--no-trunc"), "containerd to know its pods")
    assert browse(kubelet.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"


def test_ctr_run(kubelet: Kubelet) -> None:
    """It passes no ports; the container is attached before its task starts and detached when it ends."""
    for line in readme.commands("containerd")[1:]:
        said = kubelet.machine.shell(line, "docker.io/library/who:latest")
    assert "inet 10.84." in said


STATIC = "/etc/cni/net.d/05-static.conflist"


@pytest.fixture
def static(kubelet: Kubelet) -> Iterator[Any]:
    """A network whose every container publishes the same port, by the file alone; its plugin object."""
    machine = kubelet.machine
    conflist = json.loads(machine.file("/etc/cni/net.d/10-nftcni.conflist").read_text())
    plugin = conflist["plugins"][0]
    del plugin["capabilities"]
    plugin.update(bridge="static0", ipam={"ranges": [[{"subnet": "10.60.0.0/24"}]]})
    plugin["runtimeConfig"] = {"portMappings": [{"hostPort": 8088, "containerPort": 80, "protocol": "tcp"}]}
    conflist["name"] = "static"
    machine.write(STATIC, json.dumps(conflist))
    yield {**plugin, "name": "static", "cniVersion": conflist["cniVersion"]}
    machine.run("rm", STATIC)
    wait_for(lambda: network_is_ready(kubelet), "the network of before")


def test_ctr_run_detached_with_a_static_port(kubelet: Kubelet, static: Any) -> None:
    """`ctr task kill` detaches since containerd 1.7; that of 1.6.20 does not, and the administrator has to."""
    machine = kubelet.machine
    before = machine.snapshot()
    machine.run("ctr", "run", "-d", "--cni", "docker.io/library/who:latest", "one")
    wait_for(lambda: browse(machine.lan, HERE, 8088).endswith(f" {NEIGHBOUR}"), "the static port")
    machine.run("ctr", "task", "kill", "-s", "KILL", "one")
    wait_for(lambda: "STOPPED" in machine.run("ctr", "task", "ls"), "the task's end")
    machine.run("ctr", "task", "rm", "one")
    machine.run("ctr", "container", "rm", "one")
    if " 1.6." in machine.run("ctr", "--version"):
        assert machine.snapshot() != before, "this ctr has learned to detach; say so in the README"
        gone = machine.cni("DEL", static, "default-one", netns="", plugin="/opt/cni/bin/nftcni")
        assert gone.status == 0, gone.stdout
        machine.run("rm", "/var/lib/cni/results/static-default-one-eth0")
    assert machine.snapshot() == before
    assert browse(machine.lan, HERE, 8088) == "refused"
