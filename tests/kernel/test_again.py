"""The same call again, and calls that come too late: idempotence, and what keeps one attachment's DEL off another's."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from support.scratch import Host, Json, network, port
from support.traffic import Server, ask

from nft import schema

DUAL = ("10.88.0.0/24", "fd00:88::/64")
CONFIG = network("net0", *DUAL, ports=[port(8080, 80), port(53, 53, "udp", "127.0.0.1")])


def whole(host: Host, result: Json, container: str = "c1") -> None:
    answer = host.cni("CHECK", {**CONFIG, "prevResult": result}, container)
    assert answer.status == 0, answer.words


def test_add_again_answers_the_same_and_changes_nothing(host: Host) -> None:
    first = host.add(CONFIG)
    before = host.snapshot()
    assert host.add(CONFIG) == first
    assert host.snapshot() == before
    whole(host, first)


LOSSES = {
    "elements": lambda host, _: host.nft("delete element inet nftcni dnat4 { tcp . 8080 }"),
    "marker": lambda host, _: host.nft("flush set inet nftcni attachments"),
    "all-elements": lambda host, _: host.nft("\n".join(f"flush {kind} nftcni {name}" for kind, name in SETS)),
    "ruleset": lambda host, _: host.nft("flush ruleset"),
    "bridge": lambda host, _: host.run("ip", "link", "del", "br-net0"),
    "pair": lambda _, inside: inside.run("ip", "link", "del", "eth0"),
    "address": lambda _, inside: inside.run("ip", "addr", "flush", "dev", "eth0"),
    "link-down": lambda _, inside: inside.run("ip", "link", "set", "eth0", "down"),
    "routes": lambda _, inside: inside.run("ip", "route", "flush", "dev", "eth0"),
    "gateway": lambda host, _: host.run("ip", "addr", "flush", "dev", "br-net0"),
    "forwarding": lambda host, _: host.set_sysctl("ipv4/ip_forward", "0"),
    "out-of-the-bridge": lambda host, _: host.run("ip", "link", "set", port_link(host), "nomaster"),
    "record": lambda host, _: host.run("sh", "-c", "rm /run/nftcni/*/attachments/net0/c1@eth0"),
    "state": lambda host, _: host.run("rm", "-rf", "/run/nftcni"),
}
SETS = [
    (f"{'map' if data else 'set'} {'bridge' if name in schema.LAYER2 else 'inet'}", name)
    for name, (_key, data) in schema.SETS.items()
    if name != "unrouted"
]


def port_link(host: Host) -> str:
    return next(str(item["ifname"]) for item in host.links() if item["master"] == "br-net0")


@pytest.mark.parametrize("loss", LOSSES)
def test_add_again_mends_what_is_missing(host: Host, loss: str) -> None:
    first = host.add(CONFIG)
    LOSSES[loss](host, host.namespaces[0])
    assert host.add(CONFIG) == first
    whole(host, first)
    with Server(host.namespaces[0], 80):
        assert ask(host, "127.0.0.1", 8080) == "c1 10.88.0.1"


def test_add_with_another_configuration_replaces(host: Host) -> None:
    host.add(CONFIG)
    changed = network("net0", *DUAL, ports=[port(9090, 80)], mtu=1400)
    result = host.add(changed)
    assert [item[0]["elem"]["val"]["concat"] for item in host.elements()["dnat4"]] == [["tcp", 9090]]
    assert host.namespaces[0].link("eth0")["mtu"] == 1400
    assert host.cni("CHECK", {**changed, "prevResult": result}).status == 0
    host.delete(CONFIG)
    assert host.elements() == {} and not host.state_files()


CHANGES: list[dict[str, Any]] = [
    {},
    {"netns": ""},
    {"netns": "/run/netns/never"},
    {"config": {**CONFIG, "prevResult": {"garbage": True}}},
    {"config": network("net0", *DUAL)},
    {"config": {**CONFIG, "ipam": 5, "bridge": 7}},
]


@pytest.mark.parametrize("order", [[0, 0, 0], [1, 0, 2], [5, 4, 3], [3, 1], [2, 5, 1, 0]], ids=str)
def test_del_any_number_of_times_in_any_order(host: Host, order: list[int]) -> None:
    host.container("c1")
    before = host.snapshot()
    host.add(CONFIG)
    for number in order:
        change = dict(CHANGES[number])
        host.delete(change.pop("config", CONFIG), **change)
        assert host.snapshot() == before


@pytest.mark.parametrize("state", ["kept", "lost"])
@pytest.mark.parametrize("what", ["port", "address", "both"])
def test_a_late_del_takes_nothing_of_the_next_owner(host: Host, state: str, what: str) -> None:
    """kubernetes-sigs and netavark have lost ports this way: DEL A, ADD B on A's port, DEL A once more."""
    tiny = network("net0", bridge="br0", ipam={"ranges": [[{"subnet": "10.88.0.0/30"}]]})  # one address
    wide = network("net0", bridge="br0")
    ports = {"runtimeConfig": {"portMappings": [port(8080, 80)]}}
    for name in ("a", "b"):
        host.container(name)
    config_a = {**(tiny if what != "port" else wide), **ports}
    config_b = {**(tiny if what != "port" else wide), **(ports if what != "address" else {})}
    host.add(config_a, "a")
    host.delete(config_a, "a")
    result = host.add(config_b, "b")
    before = host.snapshot()
    if state == "lost":
        host.run("rm", "-rf", "/run/nftcni")
    for _ in range(2):
        host.delete(config_a, "a", netns="")
    after = host.snapshot()
    assert (after["elements"], after["links"]) == (before["elements"], before["links"])
    if state == "kept":
        assert after == before
        assert host.cni("CHECK", {**config_b, "prevResult": result}, "b").status == 0
    # What B holds is still held, state or not.
    host.container("c")
    assert host.cni("ADD", config_b if what != "address" else config_a, "c").code in (100, 101, 102)


def test_two_networks_with_one_container_and_interface_name(host: Host) -> None:
    """The key is (network, container, interface): the same container ID on another network is another attachment."""
    configs = [network(f"net{n}", f"10.{88 + n}.0.0/24", ports=[port(8080 + n, 80)]) for n in (0, 1)]
    host.add(configs[0], ifname="eth0")
    host.add(configs[1], ifname="eth1")
    host.delete(configs[0], ifname="eth1")
    host.delete(configs[1], ifname="eth0")
    assert len(host.elements()["attachments"]) == 2


@pytest.mark.parametrize("first", ["c1", "c2"])
def test_a_port_is_refused_as_long_as_somebody_has_it(host: Host, first: str) -> None:
    config = network(ports=[port(8080, 80)])
    second = "c2" if first == "c1" else "c1"
    host.add(config, first)
    host.container(second)
    answer = host.refused("ADD", config, second)
    assert answer.code == 100
    assert all(word in answer.words for word in ("8080", "net0", first, "eth0"))
    host.delete(config, first)
    host.add(config, second)


CONFLICTS = [
    ("", "", True),
    ("", "127.0.0.1", True),
    ("127.0.0.1", "", True),
    ("127.0.0.1", "127.0.0.1", True),
    ("127.0.0.1", "198.51.100.1", False),
    ("0.0.0.0", "::", False),
    ("0.0.0.0", "fd00::1", False),
    ("::", "fd00::1", True),
    ("", "::", True),
]


@pytest.mark.parametrize(("one", "other", "conflict"), CONFLICTS)
@pytest.mark.parametrize("state", ["kept", "lost"])
def test_which_host_addresses_conflict(host: Host, one: str, other: str, conflict: bool, state: str) -> None:
    """By the rule of bind(2), also across networks, and also when only the kernel's table knows."""
    host.add(network("net0", *DUAL, ports=[port(8080, 80, ip=one)]))
    if state == "lost":
        host.run("rm", "-rf", "/run/nftcni")
    host.container("c2")
    answer = host.cni("ADD", network("net1", "10.89.0.0/24", "fd00:89::/64", ports=[port(8080, 80, ip=other)]), "c2")
    assert answer.code == (100 if conflict else 0), answer.stdout
    if conflict:
        assert "net0" in answer.words and "c1" in answer.words


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(["tcp", "udp", "sctp"], 2)))
def test_protocols_do_not_conflict(host: Host, one: str, other: str) -> None:
    host.add(network(ports=[port(8080, 80, one)]))
    host.add(network(ports=[port(8080, 80, other)]), "c2")
