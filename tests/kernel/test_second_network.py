"""A subnet that is in use already: a second bridge with it would take the answers to all who have it, or get none.

The kernel takes two links with one subnet and goes by the first, so ADD asks it how it would reach the container, right
after the bridge got its address. A larger subnet around it on another link is no harm: the longer prefix wins.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.scratch import Host, Json, network, port
from support.traffic import Server, ask

FIRST = {4: "10.88.0.0/24", 6: "fd00:88::/64"}
GATEWAY = {4: "10.88.0.1", 6: "fd00:88::1"}
WIDE = {4: "10.88.200.1/16", 6: "fd00:88:0:1::1/48"}  # addresses in larger subnets that contain those
LAN = {4: "198.51.100.2", 6: "2001:db8:100::2"}
SEEN = {4: "198.51.100.1", 6: "2001:db8:100::1"}
VERSIONS = [pytest.param(4, id="v4"), pytest.param(6, id="v6")]


def refused_for(host: Host, config: Json, *words: str, container: str = "late") -> None:
    """ADD fails by a word about each of these, and nothing of it is left, the bridge included."""
    inside = host.container(container)
    answer = host.refused("ADD", config, container)
    assert answer.code == 7, answer.words
    for word in (config["bridge"], *words):
        assert word in answer.words, answer.words
    assert inside.link("eth0") is None


@pytest.mark.parametrize("version", VERSIONS)
def test_the_subnet_of_another_network(host: Host, version: int) -> None:
    lan = host.neighbour()
    first = network("one", FIRST[version])
    host.add(first)
    second = network("two", FIRST[version], ports=[port(8080, 80)])
    refused_for(host, second, "br-one", GATEWAY[version][:-1] + "3")
    with Server(lan, 80):
        assert ask(host.place("c1"), LAN[version], 80) == f"lan {SEEN[version]}"
    host.delete(first)
    host.add(second, "late")
    with Server(lan, 80):
        assert ask(host.place("late"), LAN[version], 80) == f"lan {SEEN[version]}"


@pytest.mark.parametrize("other", [4, 6])
def test_one_family_is_enough(host: Host, other: int) -> None:
    """Of a dual-stack network; what the other family has got already is taken back."""
    host.add(network("one", FIRST[other]))
    free = {4: "10.89.0.0/24", 6: "fd00:89::/64"}[10 - other]
    refused_for(host, network("two", *sorted((FIRST[other], free), key=lambda subnet: ":" in subnet)), "br-one")


@pytest.mark.parametrize(("version", "plugged_in"), [(4, True), (6, True), (4, False)])
def test_the_subnet_of_the_hosts_own_lan(host: Host, version: int, plugged_in: bool) -> None:
    """Also while its cable is unplugged. IPv6 has no route then."""
    host.set_sysctl("ipv6/conf/all/forwarding", "1")  # a router has anycast addresses, in the kernel's own time
    lan = host.neighbour()
    last = GATEWAY[version][:-1]
    host.run("ip", "addr", "add", last + "77" + FIRST[version][-3:], "dev", "to-lan")
    if not plugged_in:
        host.set_sysctl("ipv6/conf/to-lan/disable_ipv6", "1")
        lan.run("ip", "link", "set", "eth0", "down")
    refused_for(host, network("net0", FIRST[version]), "to-lan", last + "2")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_larger_subnet_around_it_is_no_harm(host: Host, version: int) -> None:
    """A LAN of 10.0.0.0/8 is common. All of it works: egress, published ports, siblings."""
    lan = host.neighbour()
    host.run("ip", "addr", "add", WIDE[version], "dev", "to-lan", *(["nodad"] if version == 6 else []))
    config = network("net0", FIRST[version], ports=[port(8080, 80)])
    result = host.add(config)
    host.add(network("net0", FIRST[version]), "c2")
    inside = host.place("c1")
    with Server(lan, 80), Server(inside, 80):
        assert ask(inside, LAN[version], 80) == f"lan {SEEN[version]}"
        assert ask(lan, SEEN[version], 8080) == f"c1 {LAN[version]}"
        sibling = GATEWAY[version][:-1] + "3"
        assert ask(host.place("c2"), GATEWAY[version][:-1] + "2", 80) == f"c1 {sibling}"
    assert host.cni("CHECK", {**config, "prevResult": result}).status == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_a_default_route_is_no_reason(host: Host, version: int) -> None:
    lan = host.neighbour()
    host.run("ip", "route", "add", "default", "via", LAN[version])
    host.add(network("net0", FIRST[version]))
    with Server(lan, 80):
        assert ask(host.place("c1"), LAN[version], 80) == f"lan {SEEN[version]}"


@pytest.mark.parametrize("version", VERSIONS)
def test_an_address_that_leads_to_a_smaller_network_is_refused(host: Host, version: int) -> None:
    """The longer prefix wins: a part of the first network's addresses is the second one's by now."""
    small, wanted = {4: ("10.88.0.128/25", "10.88.0.200"), 6: ("fd00:88::8000/113", "fd00:88::8765")}[version]
    host.add(network("one", FIRST[version]))
    host.add(network("two", small), "c2")
    host.container("late")
    answer = host.refused("ADD", network("one", FIRST[version], runtimeConfig={"ips": [wanted]}), "late")
    assert answer.code == 7 and wanted in answer.words and "br-two" in answer.words


def test_the_second_container_of_a_network_is_not_asked_again(host: Host) -> None:
    """An address that the LAN's link got meanwhile is not for ADD to judge: the bridge had the subnet first."""
    config = network("net0", *FIRST.values())
    host.add(config)
    host.neighbour()
    for address in ("10.88.0.200/24", "fd00:88::200/64"):
        host.run("ip", "addr", "add", address, "dev", "to-lan")
    result = host.add(config, "c2")
    with Server(host.place("c2"), 80):
        assert ask(host, "10.88.0.3", 80) == "c2 10.88.0.1"
    assert host.cni("CHECK", {**config, "prevResult": result}, "c2").status == 0


@pytest.mark.parametrize("keys", [{}, {"isGateway": False}], ids=["gateway", "internal"])
def test_the_same_bridge_may_serve_two_networks_of_one_subnet(host: Host, keys: dict[str, Any]) -> None:
    for name in ("one", "two"):
        host.add(network(name, *FIRST.values(), bridge="br0", isolation=False, **keys), name)
    with Server(host.place("one"), 80):
        assert ask(host.place("two"), "10.88.0.2", 80) == "one 10.88.0.3"


def test_internal_networks_never_meet_so_they_may_have_one_subnet(host: Host) -> None:
    """Their bridges have no address, so the host has no route to be mistaken about."""
    for name in ("one", "two"):
        host.add(network(name, "10.88.0.0/24", isGateway=False), name)
    assert host.run("ip", "route") == ""


@pytest.mark.parametrize("version", VERSIONS)
def test_an_adopted_bridge_loses_what_it_was_given(host: Host, version: int) -> None:
    host.add(network("one", FIRST[version]))
    host.run("ip", "link", "add", "br-two", "type", "bridge")
    refused_for(host, network("two", FIRST[version]), "br-one")
    assert host.addresses("br-two") == set() and "UP" not in host.link("br-two")["flags"]


def test_it_can_be_asked_again_once_the_other_is_gone(host: Host) -> None:
    """A refusal leaves no memory: no lease, no port, no bridge of its own."""
    first, second = network("one", *FIRST.values()), network("two", *FIRST.values(), ports=[port(8080, 80)])
    before = host.snapshot()
    host.add(first)
    refused_for(host, second, "br-one")
    host.delete(first)
    host.add(second, "late")
    host.delete(second, "late")
    assert host.snapshot() == before


def adopt(host: Host, name: str) -> None:
    host.run("ip", "link", "add", name, "type", "bridge")


@pytest.mark.parametrize("kind", ["ours", "adopted", "adopted and up"])
@pytest.mark.parametrize("sysctl", ["", "ignore_routes_with_linkdown"])
def test_a_bridge_without_its_first_port_is_no_reason(host: Host, sysctl: str, kind: str) -> None:
    """It has no carrier yet: IPv6 has no route by it then, and IPv4 may be told to leave it aside (as routers do). The
    way is the default route until the container is there."""
    lan = host.neighbour()
    for version in (4, 6):
        host.run("ip", f"-{version}", "route", "add", "default", "via", LAN[version])
    for family in ("ipv4", "ipv6") if sysctl else ():
        for scope in ("all", "default"):
            host.set_sysctl(f"{family}/conf/{scope}/{sysctl}", "1")
    if kind != "ours":
        adopt(host, "br-net0")
    if kind == "adopted and up":
        host.run("ip", "link", "set", "br-net0", "up")
    host.add(network("net0", *FIRST.values()))
    with Server(lan, 80):
        for version in (4, 6):
            assert ask(host.place("c1"), LAN[version], 80) == f"lan {SEEN[version]}"
