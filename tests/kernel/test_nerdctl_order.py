"""The order and the spelling of real callers, replayed: nerdctl's four calls, podman's reload, containerd's pod.

What each sends was recorded from the programs themselves; the keys are in Go's case because go-cni has no json tags.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.scratch import Host, network, port
from support.traffic import Server, ask, ask_on, open_socket, socket

DUAL = ("10.88.0.0/24", "fd00:88::/64")
PORTS = [port(8080, 80, ip="0.0.0.0"), port(5300, 53, "udp", "0.0.0.0"), port(7000, 70, "sctp", "0.0.0.0")]
NERDCTL_ARGS = "NERDCTL_CNI_DHCP_HOSTNAME=web;IgnoreUnknown=1;IP=10.88.0.9;MAC=02:42:0a:58:00:09"
ID = "default-" + "ab" * 32


def test_nerdctl_leaves_the_host_exactly_as_it_was(host: Host) -> None:
    lan = host.neighbour()
    container = host.container("c1")
    before, settings = host.snapshot(), host.sysctls()
    config: Any = network("bridge", "10.88.0.0/24", version="1.0.0", ports=PORTS)
    host.delete(config, ID, netns="", args=NERDCTL_ARGS)
    result = host.add(config, ID, netns=container.path, args=NERDCTL_ARGS)
    assert result["ips"][0]["address"] == "10.88.0.9/24"
    assert container.link("eth0")["address"] == "02:42:0a:58:00:09"
    with Server(container, 80), Server(container, 53, "udp"):
        assert ask(lan, "198.51.100.1", 8080) == "c1 198.51.100.2"
        assert ask(lan, "198.51.100.1", 5300, "udp") == "c1 198.51.100.2"
    host.delete(config, ID, netns="")
    host.delete(network("bridge", version="1.0.0"), ID, netns="", args="IgnoreUnknown=1")
    assert host.snapshot() == before
    assert host.sysctls() == settings


def test_podman_reloads_into_the_living_namespace(host: Host) -> None:
    config = network("podman", *DUAL, version="0.4.0", ports=PORTS[:1])
    args = "IgnoreUnknown=1;K8S_POD_NAME=web"
    first = host.add(config, args=args)
    mac = first["interfaces"][2]["mac"]
    host.delete({**config, "prevResult": first}, args=args)
    assert host.namespaces[0].link("eth0") is None
    again = host.add(config, args=f"{args};MAC={mac};IP=10.88.0.2")
    assert again["interfaces"][2]["mac"] == mac
    assert again["ips"][0]["address"] == "10.88.0.2/24"


def test_containerd_removes_a_pod_twice(host: Host) -> None:
    """With the namespace and the result, then with neither (sandbox_stop.go, sandbox_remove.go)."""
    config = network("cri", *DUAL, version="1.0.0", ports=[port(8080, 80)])
    args = "K8S_POD_NAMESPACE=default;IgnoreUnknown=1;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=y"
    host.container("c1")
    before = host.snapshot()
    result = host.add(config, args=args)
    host.delete({**config, "prevResult": result}, args=args)
    host.delete(config, netns="", args=args)
    assert host.snapshot() == before


def test_crio_checks_at_once_and_deletes_with_a_stale_path(host: Host) -> None:
    config = network("crio", *DUAL)
    assert host.cni("VERSION", {"cniVersion": "1.1.0"}).status == 0
    before = host.snapshot()
    result = host.add(config)
    assert host.cni("CHECK", {**config, "prevResult": result}).status == 0
    host.end("c1")
    host.delete({**config, "prevResult": result})
    empty: list[object] = []
    lists = {"cni.dev/valid-attachments": empty, "cni.dev/attachments": empty}
    assert host.cni("GC", {**config, **lists}).status == 0
    assert host.snapshot() == before


@pytest.mark.parametrize("count", [1, 40])
def test_udp_flows_from_before_the_add_find_the_container(host: Host, count: int) -> None:
    """kubernetes#102559: the flow keeps its old way as long as packets come. All ports are done in one pass."""
    lan = host.neighbour()
    host.nft("table inet t {\n chain c {\n type filter hook input priority 0; ct state new accept;\n }\n}")
    ports = [port(5300 + number, 53, "udp") for number in range(count)]
    sockets = [open_socket(lan, socket.AF_INET, "udp") for _ in ports]
    unrelated = open_socket(lan, socket.AF_INET, "udp")
    with Server(host, 9999, "udp"):
        assert ask_on(unrelated, "198.51.100.1", 9999) == "host 198.51.100.2"
        for sock, mapping in zip(sockets, ports):
            sock.connect(("198.51.100.1", mapping["HostPort"]))
            sock.send(b"before")
        kept = [line for line in host.flows() if "dport=9999" in line]
        host.add(network(ports=ports))
        container = host.namespaces[-1]
        with Server(container, 53, "udp"):
            for sock, mapping in zip(sockets, ports):
                answer = ask_on(sock, "198.51.100.1", mapping["HostPort"])
                answer = answer if answer != "refused" else ask_on(sock, "198.51.100.1", mapping["HostPort"])
                assert answer == "c1 198.51.100.2"
        assert len(kept) == len([line for line in host.flows() if "dport=9999" in line]) == 1
    for sock in [*sockets, unrelated]:
        sock.close()


def test_udp_flows_do_not_outlive_the_container(host: Host) -> None:
    lan = host.neighbour()
    host.container("c1")
    before = host.flows()
    config = network(ports=[port(5300, 53, "udp"), port(5301, 54, "udp")])
    host.add(config)
    with Server(host.namespaces[-1], 53, "udp"), Server(host.namespaces[-1], 54, "udp"):
        assert ask(lan, "198.51.100.1", 5300, "udp") == ask(lan, "198.51.100.1", 5301, "udp") == "c1 198.51.100.2"
    assert len(host.flows()) == len(before) + 2
    host.delete(config)
    assert host.flows() == before
