"""What the plugin takes over instead of making it: attachments whose records were lost, and somebody else's bridge.

Neither may be changed by that: the host's links, flags, addresses and sysctls are the oracle.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.scratch import PLUGIN, Host, Json, Namespace, network, port
from support.traffic import Server, ask

DUAL = ("10.88.0.0/24", "fd00:88::/64")
PORTS = [port(8080, 80), port(53, 53, "udp", "127.0.0.1")]

# Records


ASKED: dict[str, dict[str, Any]] = {
    "nothing special": {},
    "isolation off": {"isolation": False},
    "isolated ports": {"portIsolation": True},
    "hairpin off": {"hairpinMode": False},
    "no masquerade": {"ipMasq": False},
    "no gateway": {"isGateway": False},
    "all of them": {"isolation": False, "portIsolation": True, "hairpinMode": False, "ipMasq": False},
}


def port_flags(host: Host) -> list[tuple[str, Json]]:
    """All that the kernel keeps of each bridge port, but for its timers and what the bridge counts."""
    keys = ("hairpin", "isolated", "learning", "flood", "guard", "fastleave", "proxy_arp", "neigh_suppress", "state")
    links = [item for item in host.json("ip", "-j", "-d", "link") if item.get("master")]
    return [(item["ifname"], {key: item["linkinfo"]["info_slave_data"][key] for key in keys}) for item in links]


@pytest.mark.parametrize("keys", ASKED.values(), ids=ASKED)
def test_a_lost_record_keeps_what_its_port_and_network_have(host: Host, keys: dict[str, Any]) -> None:
    """Repair used to turn isolation on for a network that had asked for none, and ports' isolation off."""
    host.add(network("net0", *DUAL, ports=PORTS, **keys))
    host.add(network("net0", *DUAL, **keys), "c2")

    def look() -> list[Json]:
        parts = host.elements(), host.links(), port_flags(host), host.addresses("br-net0"), host.sysctls()
        return [*parts, host.routes()]

    before = look()
    host.run("rm", "-rf", "/run/nftcni")
    done = host.command("repair")
    assert (done.returncode, done.stdout) == (0, "nothing to repair\n"), done.stdout
    assert look() == before
    host.nft("insert rule inet nftcni filter_forward drop")
    done = host.command("repair")
    assert done.returncode == 0 and "restored net0/c1/eth0" in done.stdout, done.stdout
    assert look() == before
    for name in ("c1", "c2"):
        host.delete(network("net0", *DUAL, **keys), name)
    assert host.link("br-net0") is None and host.elements() == {} and host.state_files() == []


def test_two_networks_of_which_one_is_isolated(host: Host) -> None:
    """The adopted records of one bridge say nothing of the other's."""
    host.add(network("net0", "10.88.0.0/24", isolation=False))
    host.add(network("net1", "10.89.0.0/24", portIsolation=True), "c2")
    before = host.elements(), port_flags(host)
    host.run("rm", "-rf", "/run/nftcni")
    host.nft("flush set inet nftcni masq4")
    host.command("repair")
    now = host.elements()
    lost = ("masq4", "masquerading")  # the second follows from the first
    assert {name: now[name] for name in before[0] if name not in lost} == {
        name: items for name, items in before[0].items() if name not in lost
    }
    assert port_flags(host) == before[1]


@pytest.fixture
def routed(host: Host) -> Namespace:
    """c1 as the reference `ptp` attaches it: a veth pair, a route to its address on the host's end, no bridge."""
    container = host.container("c1")
    words = ("ip", "link", "add", "ptp0", "type", "veth", "peer", "name", "eth0", "netns", "c1")
    host.run(*words)
    host.run("ip", "addr", "add", "10.5.0.1/32", "dev", "ptp0")
    host.run("ip", "link", "set", "ptp0", "up")
    host.run("ip", "route", "add", "10.5.0.2/32", "dev", "ptp0")
    for rest in (("addr", "add", "10.5.0.2/24"), ("link", "set", "up")):
        container.run("ip", *rest, "dev", "eth0")
    container.run("ip", "route", "add", "default", "via", "10.5.0.1", "dev", "eth0")
    host.set_sysctl("ipv4/ip_forward", "1")
    return container


PTP = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "ptp0"}, {"name": "eth0", "sandbox": "/run/netns/c1"}],
    "ips": [{"address": "10.5.0.2/24", "gateway": "10.5.0.1", "interface": 1}],
}
COMMON = {"cniVersion": "1.0.0", "name": "chain", "prevResult": PTP}
CHAIN = {
    "portmap": {**COMMON, "type": "portmap", "runtimeConfig": {"portMappings": [port(8080, 80)]}},
    "firewall": {**COMMON, "type": "firewall", "ingressPolicy": "same-bridge"},
}


@pytest.mark.parametrize("previous", ["told", "not told"])
@pytest.mark.parametrize("roles", [["portmap"], ["portmap", "firewall"], ["firewall"]])
def test_a_chain_behind_a_foreign_ptp_with_the_state_lost(
    host: Host, routed: Namespace, roles: list[str], previous: str
) -> None:
    """The adopted record passed for an attachment with a link of its own, which DEL of `portmap` leaves alone. What
    the other plugin made stays. Runtimes that lost their cache send no prevResult."""
    before = host.snapshot()
    for role in roles:
        host.run("ln", "-s", PLUGIN, f"/run/cni/{role}")
        answer = host.cni("ADD", CHAIN[role], plugin=f"/run/cni/{role}")
        assert answer.status == 0, answer.stdout
    if "portmap" in roles:
        with Server(routed, 80):
            assert ask(host, "127.0.0.1", 8080) != "refused"
    assert host.elements() != {}
    host.run("rm", "-rf", "/run/nftcni")
    for role in reversed(roles):
        config = {key: value for key, value in CHAIN[role].items() if previous == "told" or key != "prevResult"}
        host.delete(config, plugin=f"/run/cni/{role}", netns="")
    assert host.snapshot() == before
    assert routed.link("eth0") is not None


# Bridges


def given_back(host: Host) -> Json:
    return [host.snapshot(), host.sysctls()]


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("ipv6", ["0", "1"], ids=["ipv6-on", "ipv6-off"])
@pytest.mark.parametrize("localnet", ["0", "1"], ids=["strict", "route_localnet"])
def test_an_adopted_bridge_is_given_back_as_it_was(host: Host, up: bool, ipv6: str, localnet: str) -> None:
    """Its state and sysctls, which an ADD changes, once the last of two containers has gone; not before."""
    host.run("ip", "link", "add", "br-net0", "type", "bridge")
    host.set_sysctl("ipv6/conf/br-net0/disable_ipv6", ipv6)
    host.set_sysctl("ipv4/conf/br-net0/route_localnet", localnet)
    host.run("ip", "addr", "add", "192.0.2.1/24", "dev", "br-net0")
    host.run("ip", "link", "set", "br-net0", "up" if up else "down")
    for name in ("c1", "c2"):
        host.container(name)
    before = given_back(host)
    first, second = network("net0", *DUAL), network("net0", *DUAL, ports=PORTS)
    host.add(first)
    with_one = given_back(host)[1]["ipv4/conf/br-net0/route_localnet"]
    assert with_one.strip() == localnet, "only a port needs it"
    result = host.add(second, "c2", netns="/run/netns/c2")
    assert host.add(second, "c2", netns="/run/netns/c2") == result
    host.delete(first)
    assert host.cni("CHECK", {**second, "prevResult": result}, "c2").words == ""
    with Server(host.place("c2"), 80):
        assert ask(host, "127.0.0.1", 8080) == "c2 10.88.0.1"
        assert ask(host, "fd00:88::3", 80) == "c2 fd00:88::1"
    host.delete(second, "c2")
    assert given_back(host) == before


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_the_addresses_of_an_adopted_bridge_stay(host: Host, up: bool) -> None:
    """Also where they are just those that a container's network needs as gateways: they were there before."""
    host.run("ip", "link", "add", "br-net0", "type", "bridge")
    had = {"10.88.0.1/24", "fd00:88::1/64", "192.0.2.1/24", "2001:db8:7::1/64"}
    for address in sorted(had):
        host.run("ip", "addr", "add", address, "dev", "br-net0")
    if up:
        host.run("ip", "link", "set", "br-net0", "up")
    for name in ("c1", "c2"):
        host.container(name)
    before = host.links(), host.sysctls(), host.elements(), host.state_files()  # IPv6 routes come with a first port
    config = network("net0", *DUAL)
    for name in ("c1", "c2"):
        host.add(config, name, netns=f"/run/netns/{name}")
    assert host.addresses("br-net0") == had
    for name in ("c1", "c2"):
        host.delete(config, name)
        assert host.addresses("br-net0") == had
    assert (host.links(), host.sysctls(), host.elements(), host.state_files()) == before


def test_what_the_second_network_gives_an_adopted_bridge_goes_too(host: Host) -> None:
    """One that needs forwarding, after one that has no gateway: each notes what it changed, the last one undoes all."""
    host.run("ip", "link", "add", "br0", "type", "bridge")
    for name in ("c1", "c2"):
        host.container(name)
    before = given_back(host)
    first, second = network("one", *DUAL, bridge="br0", isGateway=False), network("two", "10.89.0.0/24", bridge="br0")
    host.add(first, netns="/run/netns/c1")
    host.add(second, "c2", netns="/run/netns/c2")
    host.delete(second, "c2")
    assert "UP" in host.link("br0")["flags"]
    host.delete(first)
    assert given_back(host) == before


def test_gc_gives_an_adopted_bridge_back(host: Host) -> None:
    host.run("ip", "link", "add", "br-net0", "type", "bridge")
    for name in ("c1", "c2"):
        host.container(name)
    before = given_back(host)
    for name in ("c1", "c2"):
        host.add(network("net0", *DUAL), name, netns=f"/run/netns/{name}")
    assert host.cni("GC", {**network("net0", *DUAL), "cni.dev/valid-attachments": []}).status == 0
    assert given_back(host) == before


def test_a_failed_add_gives_an_adopted_bridge_back(host: Host) -> None:
    """The container has an interface of that name already: the bridge is ready by the time the kernel says so."""
    host.run("ip", "link", "add", "br-net0", "type", "bridge")
    host.container("c1").run("ip", "link", "add", "eth0", "type", "bridge")
    before = host.sysctls()
    assert host.refused("ADD", network("net0", *DUAL)).code == 103
    assert host.sysctls() == before
