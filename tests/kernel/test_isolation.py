"""Isolation between networks: who may open a connection to whom. Whom it shows is `test_masquerade`.

Published ports across networks are rows of `test_ports_matrix`; here they are asked once for each setting.
"""

from __future__ import annotations

import pytest
from support.scratch import Host, Namespace, network, port
from support.traffic import Server, ask, serving

NETS = {"net0": ("10.88.0.0/24", "fd00:88::/64"), "net1": ("10.89.0.0/24", "fd00:89::/64")}


def attach(host: Host, name: str, net: str, **keys: object) -> Namespace:
    host.add(network(net, *NETS[net], **keys), name)
    return host.namespaces[-1]


@pytest.mark.parametrize(
    ("keys0", "keys1", "reached"),
    [
        ({}, {}, ""),
        ({"isolation": False}, {}, "1"),
        ({}, {"isolation": False}, "2"),
        ({"isolation": False}, {"isolation": False}, "12"),
        ({"gatewayMode": "nat-unprotected"}, {"gatewayMode": "open"}, "12"),
        ({"gatewayMode": "open", "isolation": True}, {"gatewayModeIPv6": "routed"}, ""),
        ({"ingressPolicy": "open"}, {"ingressPolicy": "open"}, "12"),
        ({"ingressPolicy": "same-bridge"}, {"ingressPolicy": "same-bridge"}, ""),
    ],
    ids=["default", "one-off", "other-off", "both-off", "modes", "closed", "policy-open", "policy-same-bridge"],
)
def test_a_network_is_reached_if_it_allows_that(
    host: Host, keys0: dict[str, object], keys1: dict[str, object], reached: str
) -> None:
    """Whether the asker's does is of no matter. In both families, with the asker's own address; published ports are
    reached in any case."""
    ports = [port(8080, 80, protocol) for protocol in ("tcp", "udp")]
    one, other = attach(host, "a", "net0", ports=ports, **keys0), attach(host, "b", "net1", **keys1)
    questions = [
        (one, "10.89.0.2", "b 10.88.0.2"),
        (other, "10.88.0.2", "a 10.89.0.2"),
        (one, "fd00:89::2", "b fd00:88::2"),
        (other, "fd00:88::2", "a fd00:89::2"),
    ]
    with serving(*(Server(place, 80, protocol) for place in (one, other) for protocol in ("tcp", "udp"))):
        for asker, target, answer in questions:
            allowed = ("1" if target.endswith("88.0.2") or "88::2" in target else "2") in reached
            for protocol in ("tcp", "udp"):
                assert ask(asker, target, 80, protocol) == (answer if allowed else "silence")
        for protocol in ("tcp", "udp"):
            assert ask(other, "10.89.0.1", 8080, protocol) == "a 10.89.0.2"
            assert ask(other, "fd00:89::1", 8080, protocol) == "a fd00:89::2"


def test_port_isolation_keeps_siblings_apart(host: Host) -> None:
    one, other = (attach(host, name, "net0", ingressPolicy="isolated") for name in "ab")
    with Server(one, 80):
        assert ask(other, "10.88.0.2", 80) == "refused" or ask(other, "10.88.0.2", 80) == "silence"
        assert ask(host, "10.88.0.2", 80) == "a 10.88.0.1"


def test_isolation_ends_with_the_network_and_starts_again(host: Host) -> None:
    """The last container of a network takes its elements along; a network of that name that comes back is closed."""
    one = attach(host, "a", "net0")
    for round_name in ("b", "c"):
        other = attach(host, round_name, "net1")
        with Server(one, 80):
            assert ask(other, "10.88.0.2", 80) == "silence"
        host.delete(network("net1", *NETS["net1"]), round_name)


def test_an_answer_to_an_isolated_network_is_let_through(host: Host) -> None:
    """What is dropped is the opening of a connection: who is reached by a published port may answer at length."""
    one = attach(host, "a", "net0", ports=[port(8080, 80)])
    other = attach(host, "b", "net1")
    with Server(one, 80, name="a" * 60000):
        assert len(ask(other, "10.89.0.1", 8080)) > 1000


@pytest.mark.parametrize("gone", ["DEL", "GC"])
def test_a_network_is_open_once_its_last_isolated_container_has_gone(host: Host, gone: str) -> None:
    """The setting was changed while containers ran; `repair --check` used to take the rest of it for nobody's."""
    asker = attach(host, "b", "net1", isolation=False)
    for name in ("a", "old", "older"):
        attach(host, name, "net0", isolation=name == "a" or name == "old")
    open_now = network("net0", *NETS["net0"], isolation=False)
    with Server(host.place("older"), 80):
        assert ask(asker, "10.88.0.4", 80) == "silence"
        host.delete(open_now, "a")
        assert ask(asker, "10.88.0.4", 80) == "silence", "one of them is left"
        if gone == "DEL":
            host.delete(open_now, "old")
        else:
            valid = [{"containerID": "older", "ifname": "eth0"}]
            assert host.cni("GC", {**open_now, "cni.dev/valid-attachments": valid}).status == 0
        assert ask(asker, "10.88.0.4", 80) == "older 10.89.0.2"
    assert host.command("repair", "--check").returncode == 0


def test_a_lost_record_leaves_the_bridge_what_it_has(host: Host) -> None:
    """What the container behind it needs is not known to the DEL of another one."""
    for name in ("a", "b"):
        attach(host, name, "net0")
    shared = {name: host.elements()[name] for name in ("bridges", "same_net", "isolated")}
    host.run("sh", "-c", "rm /run/nftcni/*.*/attachments/net0/b@eth0")
    host.delete(network("net0", *NETS["net0"]), "a")
    assert {name: host.elements()[name] for name in shared} == shared
