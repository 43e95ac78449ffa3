"""containerd without nerdctl: the CRI as the kubelet uses it, by crictl, and `ctr run --cni`.

The network is conf/10-nftcni.conflist, which has both families.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import readme
from kubelet import Kubelet, host_port, network_is_ready
from machine import browse, start_containerd, wait_for
from nerdctl import HERE, HERE6, NEIGHBOUR, NEIGHBOUR6

pytestmark = pytest.mark.parametrize("containerd", ["distribution", "newest"], indirect=True, scope="module")


@pytest.fixture(autouse=True)
def unchanged(kubelet: Kubelet) -> Iterator[None]:
    before = kubelet.machine.state()
    yield
    kubelet.remove(*kubelet("pods", "-q").split())
    kubelet.machine.check_unchanged(before)


def test_a_pod_with_a_host_port_in_both_families(kubelet: Kubelet) -> None:
    pod = kubelet.pod("web", host_port(8080))
    v4, v6 = kubelet.addresses(pod)
    assert {v4, v6} == {item.split("/")[0] for item in kubelet.inside(pod).addresses("eth0")}
    assert browse(kubelet.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"
    assert browse(kubelet.machine.lan, HERE6, 8080) == f"web {NEIGHBOUR6}"
    assert browse(kubelet.inside(pod), "127.0.0.1", 80) == "web 127.0.0.1", "the loopback is up"
    kubelet("stopp", pod)
    assert browse(kubelet.machine.lan, HERE, 8080) == "refused"


def test_a_port_for_one_address_of_the_host(kubelet: Kubelet) -> None:
    kubelet.pod("web", host_port(8080, ip="127.0.0.1"))
    assert browse(kubelet.machine, "127.0.0.1", 8080).startswith("web ")
    assert browse(kubelet.machine.lan, HERE, 8080) == "refused"


def test_pods_reach_each_other_and_keep_their_address(kubelet: Kubelet) -> None:
    one, two = kubelet.pod("one"), kubelet.pod("two")
    for here, there in zip(kubelet.addresses(one), kubelet.addresses(two)):
        assert browse(kubelet.inside(one), there, 80) == f"two {here}"


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


def test_the_template_for_a_range_of_the_kubelet_is_valid(kubelet: Kubelet) -> None:
    """containerd renders conf/podcidr.template when it is told a range, and serves pods from it."""
    machine = kubelet.machine
    install, copy = readme.commands("Kubernetes")
    assert install == "conf/install --conflist none"  # it is installed
    machine.shell(copy)
    table, line = readme.settings("Kubernetes").splitlines()
    config = machine.file("/etc/containerd/config.toml").read_text()
    folder = '  conf_dir = "/etc/cni/net.d"'
    assert table in config and folder in config
    with_template = config.replace(folder, f'  conf_dir = "/run/rendered"\n{line}')
    machine.run("mkdir", "-p", "/run/rendered")
    try:
        machine.write("/etc/containerd/config.toml", with_template)
        machine.stop("containerd")
        start_containerd(machine)
        wait_for(lambda: kubelet("info"), "the CRI")
        kubelet("update-runtime-config", "--pod-cidr", "10.244.9.0/24")
        wait_for(lambda: network_is_ready(kubelet), "the rendered network")
        pod = kubelet.pod("web", host_port(8080))
        assert kubelet.addresses(pod)[0].startswith("10.244.9.")
        kubelet.remove(pod)
    finally:
        machine.write("/etc/containerd/config.toml", config)
        machine.stop("containerd")
        start_containerd(machine)
