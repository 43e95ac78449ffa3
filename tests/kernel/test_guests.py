"""Containers on a bridge where other machines live: nobody's address is taken, the router's least of all.

Also what a bridge needs that lost its last port, and which two networks may share one.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.scratch import PLUGIN, Host, Json, Namespace, network
from support.traffic import Server, ask

LAN = {4: "198.51.100.0/24", 6: "2001:db8:51::/64"}
ROUTER = {4: "198.51.100.1", 6: "2001:db8:51::1"}
OWN = {4: "198.51.100.10", 6: "2001:db8:51::10"}
PC = {4: "198.51.100.2", 6: "2001:db8:51::2"}
VERSIONS = pytest.mark.parametrize("version", [4, 6])


def plug(host: Host, bridge: str, name: str, *addresses: str) -> Namespace:
    """Another machine at a port of the bridge."""
    other = host.container(name)
    host.run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
    other.set_sysctl("ipv6/conf/eth0/accept_dad", "0")
    host.run("ip", "link", "set", f"to-{name}", "master", bridge, "up")
    for address in addresses:
        other.run("ip", "addr", "add", address, "dev", "eth0")
    other.run("ip", "link", "set", "eth0", "up")
    other.run("ip", "link", "set", "lo", "up")
    return other


def lan(host: Host, default: bool = True) -> tuple[Namespace, Namespace]:
    """The host's br0 is its LAN, with a router and a computer."""
    host.run("ip", "link", "add", "br0", "type", "bridge")
    host.set_sysctl("ipv6/conf/br0/accept_dad", "0")
    host.run("ip", "link", "set", "br0", "up")
    for version, length in ((4, 24), (6, 64)):
        host.run("ip", "addr", "add", f"{OWN[version]}/{length}", "dev", "br0")
    router = plug(host, "br0", "router", f"{ROUTER[4]}/24", f"{ROUTER[6]}/64")
    computer = plug(host, "br0", "pc", f"{PC[4]}/24", f"{PC[6]}/64")
    for version in (4, 6) if default else ():
        host.run("ip", f"-{version}", "route", "add", "default", "via", ROUTER[version], "dev", "br0")
    for version in (4, 6):
        for place in (host, computer):
            assert any(ask(place, ROUTER[version], 9) == "refused" for _ in range(10)), (
                "a new port forwards in a moment"
            )
    return router, computer


def address(result: Json) -> str:
    return str(result["ips"][0]["address"]).partition("/")[0]


def on_lan(version: int, **keys: Any) -> Json:
    return network("home", LAN[version], bridge="br0", **keys)


@VERSIONS
@pytest.mark.parametrize("default", [True, False], ids=["default route", "it answers"])
def test_the_routers_address_stays_the_routers(host: Host, version: int, default: bool) -> None:
    """No key but bridge and subnet: the container is a machine of the LAN, and the router is its router."""
    router, computer = lan(host, default)
    before = host.addresses("br0")
    result = host.add(on_lan(version))
    container = host.place("c1")
    assert host.addresses("br0") == before
    assert result["ips"][0]["gateway"] == ROUTER[version]
    assert address(result) not in (ROUTER[version], OWN[version], PC[version])
    (route,) = container.json("ip", f"-{version}", "-j", "route", "show", "default")
    assert route["gateway"] == ROUTER[version]
    with Server(router, 80), Server(computer, 80):
        assert ask(computer, ROUTER[version], 80).startswith("router")
        assert ask(container, ROUTER[version], 80) == f"router {address(result)}"
        assert ask(container, PC[version], 80) == f"pc {address(result)}"
    check = host.cni("CHECK", {**on_lan(version), "prevResult": result})
    assert check.status == 0, check.stdout
    assert host.add(on_lan(version)) == result
    host.delete(on_lan(version))
    assert host.addresses("br0") == before


def test_the_router_is_where_the_default_route_says(host: Host) -> None:
    """Not at the subnet's first address, which somebody else has, or nobody."""
    lan(host, default=False)
    plug(host, "br0", "real", "198.51.100.254/24")
    host.run("ip", "route", "add", "default", "via", "198.51.100.254", "dev", "br0")
    result = host.add(on_lan(4))
    assert result["ips"][0]["gateway"] == "198.51.100.254"
    (route,) = host.place("c1").json("ip", "-j", "route", "show", "default")
    assert route["gateway"] == "198.51.100.254"


def test_a_router_known_by_its_link_local_address(host: Host) -> None:
    """As router advertisements make it known."""
    router, _ = lan(host, default=False)
    router.run("ip", "addr", "del", f"{ROUTER[6]}/64", "dev", "eth0")
    (local,) = [
        info["local"]
        for item in router.json("ip", "-6", "-j", "addr", "show", "dev", "eth0")
        for info in item["addr_info"]
        if info["scope"] == "link"
    ]
    host.run("ip", "-6", "route", "add", "default", "via", local, "dev", "br0")
    result = host.add(on_lan(6))
    assert result["ips"][0]["gateway"] == local
    (route,) = host.place("c1").json("ip", "-6", "-j", "route", "show", "default")
    assert route["gateway"] == local


@pytest.mark.parametrize("role", ["", "bridge"])
@pytest.mark.parametrize("key", ["isGateway", "isDefaultGateway"])
def test_who_insists_is_refused(host: Host, key: str, role: str) -> None:
    lan(host)
    host.container("c1")
    host.run("ln", "-s", PLUGIN, "/run/cni/bridge")
    answer = host.refused("ADD", on_lan(4, **{key: True}), plugin="/run/cni/bridge" if role else PLUGIN)
    assert answer.code == 7 and key in answer.words and ROUTER[4] in answer.words and "br0" in answer.words


def test_another_subnet_on_the_same_bridge_is_the_hosts(host: Host) -> None:
    """The LAN's router is not that subnet's."""
    lan(host)
    result = host.add(network("home", "10.88.0.0/24", bridge="br0"))
    assert result["ips"][0]["gateway"] == "10.88.0.1" and "10.88.0.1/24" in host.addresses("br0")


@VERSIONS
def test_an_address_that_a_neighbour_has_is_not_handed_out(host: Host, version: int) -> None:
    """.2 and .3 of them are taken; .10 is the host's own."""
    lan(host)
    plug(host, "br0", "tv", "198.51.100.3/24", "2001:db8:51::3/64")
    config = on_lan(version)
    first = OWN[version][:-2] + "9"
    config["ipam"]["ranges"][0][0]["rangeEnd"] = OWN[version] + "0"
    assert address(host.add(config)) == PC[version][:-1] + "4"
    del config["ipam"]["ranges"][0][0]["rangeEnd"]
    config["ipam"]["ranges"][0][0]["rangeStart"] = first
    assert address(host.add(config, "c2")) == first
    assert address(host.add(config, "c3")) != OWN[version]


@VERSIONS
def test_a_requested_one_is_refused_naming_who_has_it(host: Host, version: int) -> None:
    _, computer = lan(host)
    host.container("c1")
    answer = host.refused("ADD", on_lan(version, args={"cni": {"ips": [PC[version]]}}))
    assert answer.code == 102 and computer.link("eth0")["address"] in answer.words
    answer = host.refused("ADD", on_lan(version, args={"cni": {"ips": [OWN[version]]}}))
    assert answer.code == 102 and "this host" in answer.words


def test_nobody_is_asked_on_a_bridge_of_ours(host: Host) -> None:
    """Nor on an adopted one with our containers alone."""
    host.run("ip", "link", "add", "br-net0", "type", "bridge")
    host.add(network())
    host.container("c2")
    trace = ("strace", "-f", "-e", "trace=socket", "-o", "/run/trace", PLUGIN)
    env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c2", "CNI_NETNS": "/run/netns/c2", "CNI_IFNAME": "eth0"}
    done = host.call(*trace, input=json.dumps(network()), env={**env, "CNI_PATH": "/x"})
    assert done.returncode == 0, done.stdout
    assert "AF_PACKET" not in host.file("/run/trace").read_text()


# The bridge's own address


@pytest.mark.parametrize("has_address", [True, False])
def test_a_bridge_that_lost_its_last_port(host: Host, has_address: bool) -> None:
    """Its MAC address is all zeroes then; it gets one, and keeps it while containers come and go."""
    host.run("ip", "link", "add", "br-net0", "type", "bridge")
    host.run("ip", "link", "set", "br-net0", "up")
    if has_address:
        host.run("ip", "addr", "add", "10.88.0.1/24", "dev", "br-net0")
    host.run("ip", "link", "add", "p0", "type", "veth", "peer", "name", "p1")
    host.run("ip", "link", "set", "p0", "master", "br-net0", "up")
    host.run("ip", "link", "del", "p0")
    assert host.link("br-net0")["address"] == "00:00:00:00:00:00"
    config = network("net0", "10.88.0.0/24", "fd00:88::/64")
    result = host.add(config)
    mac = host.link("br-net0")["address"]
    assert mac not in ("00:00:00:00:00:00", host.place("c1").link("eth0")["address"])
    assert result["interfaces"][0]["mac"] == mac
    assert ask(host.place("c1"), "10.88.0.1", 9) == ask(host.place("c1"), "fd00:88::1", 9) == "refused"
    host.add(config, "c2")
    host.delete(config, "c2")
    assert host.link("br-net0")["address"] == mac
    assert ask(host.place("c1"), "10.88.0.1", 9) == "refused"


def test_an_adopted_bridge_keeps_its_mac_address(host: Host) -> None:
    host.run("ip", "link", "add", "br-net0", "type", "bridge")
    mac = host.link("br-net0")["address"]
    host.add(network())
    assert host.link("br-net0")["address"] == mac
    assert ask(host.place("c1"), "10.88.0.1", 9) == "refused"
    entries = host.json("bridge", "-j", "fdb", "show", "br", "br-net0")
    assert any(item["mac"] == mac and "permanent" in item["state"] for item in entries)


# Two networks on one bridge


def test_a_second_isolated_network_on_a_bridge_is_refused(host: Host) -> None:
    """By the default of the key bridge, too. Its name is said, and what to do."""
    shop, bank = network("shop", "10.5.0.0/24", bridge=None), network("bank", "10.6.0.0/24", bridge=None)
    host.add(shop, "shop")
    host.container("bank")
    answer = host.refused("ADD", bank, "bank")
    assert answer.code == 7 and "shop" in answer.words and "nftcni0" in answer.words and "bridge" in answer.words
    answer = host.refused("ADD", {**bank, "isolation": False}, "bank")
    assert answer.code == 7 and "shop" in answer.words
    host.add(shop, "more")
    host.delete(shop, "shop")
    host.delete(shop, "more")
    host.add(bank, "bank", netns="/run/netns/bank")


def test_two_networks_that_are_not_isolated_may_share_one(host: Host) -> None:
    for name, subnet in (("shop", "10.5.0.0/24"), ("bank", "10.6.0.0/24")):
        host.add(network(name, subnet, bridge="br0", isolation=False), name)
    with Server(host.place("bank"), 80):
        assert ask(host.place("shop"), "10.6.0.2", 80).startswith("bank")


def test_the_reference_bridges_networks_share_one_as_ever(host: Host) -> None:
    host.run("ln", "-s", PLUGIN, "/run/cni/bridge")
    for name, subnet in (("shop", "10.5.0.0/24"), ("bank", "10.6.0.0/24")):
        config = network(name, subnet, bridge="br0", isGateway=True)
        config["ipam"]["type"] = "host-local"
        host.add(config, name, plugin="/run/cni/bridge")
