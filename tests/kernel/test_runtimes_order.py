"""More of what real callers do around ADD: restarts, sockets that hold the port, failures, static runtimeConfig.

The calls that nerdctl, podman, containerd and CRI-O make in their plainest order are test_nerdctl_order.
"""

from __future__ import annotations

import socket
from typing import Any

import pytest
from support.scratch import Host, Json, network, port
from support.traffic import Server, ask, open_socket

DUAL = ("10.88.0.0/24", "fd00:88::/64")
ID = "default-" + "cd" * 32
ARGS = "IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=web"
BOTH = [port(8080, 80, ip="0.0.0.0"), port(8080, 80, ip="::0"), port(5300, 53, "udp", "::")]


def settled(host: Host) -> Host:
    """With a neighbour, and a router before: forwarding stays on, and with it the kernel's own anycast routes."""
    host.neighbour()
    for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        host.set_sysctl(key, "1")
    return host


def test_nerdctl_with_both_families(host: Host) -> None:
    """`-p 8080:80 -p '[::]:8080:80'`: the IPv6 wildcard arrives as it was written, here as ::0."""
    lan = settled(host).place("lan")
    container = host.container("c1")
    before = host.snapshot()
    config = network("bridge", *DUAL, version="1.0.0", ports=BOTH, runtimeConfig=None)
    config["runtimeConfig"] = {"portMappings": BOTH, "ips": ["fd00:88::77"]}
    host.delete(config, ID, netns="", args=ARGS)
    result = host.add(config, ID, netns=container.path, args=f"{ARGS};IP=10.88.0.77")
    assert [item["address"] for item in result["ips"]] == ["10.88.0.77/24", "fd00:88::77/64"]
    with Server(container, 80), Server(container, 53, "udp"):
        assert ask(lan, "198.51.100.1", 8080) == "c1 198.51.100.2"
        assert ask(lan, "2001:db8:100::1", 8080) == "c1 2001:db8:100::2"
        assert ask(lan, "2001:db8:100::1", 5300, "udp") == "c1 2001:db8:100::2"
    host.delete(config, ID, netns="", args=ARGS)
    host.delete(network("bridge", version="1.0.0"), ID, netns="", args="IgnoreUnknown=1")
    assert host.snapshot() == before


@pytest.mark.parametrize("before_start", [1, 2])
def test_nerdctl_stops_and_starts(host: Host, before_start: int) -> None:
    """The first DEL("") comes while the container still runs; the start has a new namespace and the same ID."""
    lan = settled(host).place("lan")
    first, second = host.container("first"), host.container("second")
    before = host.snapshot()
    config = network("bridge", *DUAL, version="1.0.0", ports=BOTH)
    host.add(config, ID, netns=first.path, args=ARGS)
    for _ in range(before_start):
        host.delete(config, ID, netns="", args=ARGS)
    assert first.link("eth0") is None
    assert ask(lan, "198.51.100.1", 8080) == "refused"
    host.delete(config, ID, netns="", args=ARGS)
    host.add(config, ID, netns=second.path, args=ARGS)
    with Server(second, 80):
        assert ask(lan, "198.51.100.1", 8080) == "second 198.51.100.2"
    host.delete(config, ID, netns="")
    assert host.snapshot() == before


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_socket_on_the_host_port_is_no_conflict(host: Host, protocol: str) -> None:
    """nerdctl and podman have a process hold the port before they call ADD."""
    lan = settled(host).place("lan")
    with open_socket(host, socket.AF_INET, protocol) as holder:
        holder.bind(("0.0.0.0", 8080))
        if protocol == "tcp":
            holder.listen()
        reserver = host.popen("sleep", "infinity", pass_fds=(holder.fileno(),))
        host.add(network(ports=[port(8080, 80, protocol, "0.0.0.0")]))
        with Server(host.namespaces[-1], 80, protocol):
            assert ask(lan, "198.51.100.1", 8080, protocol) == "c1 198.51.100.2"
        reserver.kill()
        reserver.wait()


def test_containerd_deletes_with_the_namespace_after_a_failed_add(host: Host) -> None:
    holder = network("cri", *DUAL, version="1.0.0", ports=[port(8080, 80)])
    host.add(holder, "holder")
    host.container("c1")
    before = host.snapshot()
    assert host.refused("ADD", holder).code == 100
    host.delete(holder)
    host.delete(holder, netns="")
    assert host.snapshot() == before


def test_a_static_runtime_config_as_for_ctr(host: Host) -> None:
    """`ctr run --cni` has no capabilities; what stands in the conflist's plugin object arrives as it is."""
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    host.add(network(runtimeConfig={"portMappings": [mapping]}, capabilities={"portMappings": True}))
    assert [item[1]["concat"] for item in host.elements()["dnat4"]] == [["10.88.0.2", 80]]


def test_what_containerd_sends_besides(host: Host) -> None:
    """Its capability arguments in Go's case: annotations, cgroup path, dns and a bandwidth that asks for nothing."""
    config = network("k8s", *DUAL, version="1.0.0")
    config["runtimeConfig"] = {
        "io.kubernetes.cri.pod-annotations": {"kubernetes.io/config.seen": "2026"},
        "cgroupPath": "/kubepods/x",
        "dns": {"Servers": ["10.96.0.10"], "Searches": ["default.svc"], "Options": ["ndots:5"]},
        "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
        "bandwidth": {},
    }
    result = host.add(config)
    assert result["dns"] == {"nameservers": ["10.96.0.10"], "search": ["default.svc"], "options": ["ndots:5"]}
    assert {"dnat4", "dnat6"} <= set(host.elements())


def test_podman_asks_versions_with_dummies_and_reads_0_4_0(host: Host) -> None:
    dummies = {"CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_PATH": "dummy", "CNI_ARGS": ""}
    answer = host.cni("VERSION", {"cniVersion": "0.4.0"}, container="dummy", env=dummies)
    assert "0.4.0" in answer.document["supportedVersions"]
    result = host.add(network("podman", *DUAL, version="0.4.0"))
    assert [item["interface"] for item in result["ips"]] == [2, 2] and result["interfaces"][2]["mac"]


SHARED: list[tuple[str, Json]] = [
    ("same-bridge", {"bridge": "br-shared", "isolation": False}),
    ("own-bridges", {}),
]


@pytest.mark.parametrize(("case", "keys"), SHARED)
def test_one_container_on_two_networks_is_removed_one_by_one(host: Host, case: str, keys: Any) -> None:
    """go-cni adds both at once with one ID and removes them in turn; each DEL takes its own network only."""
    configs = [
        network("one", "10.88.0.0/24", ports=[port(8080, 80)], **keys),
        network("two", "10.89.0.0/24", ports=[port(8081, 80)], **keys),
    ]
    container = host.container("c1")
    before = host.snapshot()
    for number, config in enumerate(configs):
        host.add(config, ID, netns=container.path, ifname=f"eth{number}")
    host.delete(configs[0], ID, netns="", ifname="eth0")
    assert (container.link("eth0"), container.addresses("eth1")) == (None, {"10.89.0.2/24"})
    assert [item[0]["elem"]["val"]["concat"] for item in host.elements()["dnat4"]] == [["tcp", 8081]]
    host.delete(configs[1], ID, netns="", ifname="eth1")
    assert host.snapshot() == before
