"""A network on a bridge that is the host's own way out: its port is the LAN, its containers' gateway another machine.

What is forwarded by such a bridge is neither isolated nor spared the masquerade, or the first container on it would cut
off those of all other networks. Bridges that only look like it (the gateway is the host's, or the bridge is ours) are
none.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from support.scratch import CHECKOUT, Host, Json, Namespace, network, port
from support.traffic import Server, ask, serving

SHARED = ("closed", "isolated", "same_net")
PODS = ("10.88.0.0/24", "fd00:88::/64")
HOST = ("192.0.2.2", "2001:db8:2::2")
ROUTER = ("192.0.2.9", "2001:db8:2::9")
OWN = (("192.0.2.100", "2001:db8:2::100"), ("192.0.2.101", "2001:db8:2::101"))  # of the first two containers there
FAMILIES = [pytest.param(0, id="v4"), pytest.param(1, id="v6")]


def uplink(host: Host, name: str = "br0") -> Namespace:
    """The host's eth0 is a port of a bridge that has its addresses; a machine of the LAN is the router there."""
    lan = host.container("lan")
    host.run("ip", "link", "add", name, "type", "bridge")
    pair = ("type", "veth", "peer", "name", "eth0", "netns", "lan")
    host.run("ip", "link", "add", "eth0", "address", "fe:00:00:00:00:01", *pair)  # higher than any container's
    for place, link in ((host, "eth0"), (host, name), (lan, "eth0")):
        place.set_sysctl(f"ipv6/conf/{link}/accept_dad", "0")
    host.run("ip", "link", "set", "eth0", "master", name, "up")
    for place, link, addresses in ((host, name, HOST), (lan, "eth0", ROUTER)):
        for address in addresses:
            place.run("ip", "addr", "add", address + ("/64" if ":" in address else "/24"), "dev", link)
        place.run("ip", "link", "set", link, "up")
    lan.run("ip", "link", "set", "lo", "up")
    # A cable that was plugged in long ago: the bridge forwards, and both ends know each other.
    while host.link("eth0")["linkinfo"]["info_slave_data"]["state"] != "forwarding":
        time.sleep(0.001)
    for place, link, far, there in ((host, name, ROUTER, lan.link("eth0")), (lan, "eth0", HOST, host.link(name))):
        place.run("ip", "neigh", "replace", far[1], "lladdr", there["address"], "dev", link, "nud", "permanent")
    assert ask(host, ROUTER[0], 9, timeout=3) == ask(host, ROUTER[1], 9, timeout=3) == "refused"
    return lan


def ranges(gateways: tuple[str, ...]) -> Json:
    return [
        [{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "gateway": gateways[0]}],
        [{"subnet": "2001:db8:2::/64", "rangeStart": "2001:db8:2::100", "gateway": gateways[1]}],
    ]


def on_the_lan(gateways: tuple[str, ...] = ROUTER, **keys: Any) -> Json:
    """Containers are machines of the LAN, with the LAN's router."""
    ipam = {"ranges": ranges(gateways), "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}
    return network("lan", bridge="br0", ipam=ipam, **{"isGateway": False, "ipMasq": False, **keys})


def shared_by(host: Host, bridge: str) -> set[str]:
    """The sets that name the bridge as one of containers; it may be a link that the host did not route for before."""
    elements = host.elements()
    names = SHARED if bridge not in str(elements.get("unrouted", "")) else SHARED[:2]
    return {name for name in names if bridge in str(elements.get(name, ""))}


def agrees(host: Host, config: Json, result: Json, container: str = "a") -> None:
    """CHECK has nothing to say; nor has repair, and it brings everything back as it was, also without records."""
    check = host.cni("CHECK", {**config, "prevResult": result}, container)
    assert check.status == 0, check.stdout
    done = host.command("repair", "--check")
    assert done.returncode == 0, done.stdout
    before = host.elements()
    for loss in (["nft", "flush", "ruleset"], ["rm", "-rf", "/run/nftcni"]):
        host.run(*loss)
        host.command("repair")
        assert host.elements() == before, loss
        done = host.command("repair", "--check")
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("keys", [{}, {"isolation": False}, {"ipMasq": True}], ids=["default", "open", "masq"])
@pytest.mark.parametrize("br_netfilter", ["0", "1"])
def test_other_networks_get_out_by_it(host: Host, br_netfilter: str, keys: dict[str, Any]) -> None:
    """Before, while and after there is a container on it, with the host's address."""
    lan = uplink(host)
    host.bridge_netfilter(br_netfilter)
    host.add(network("pods", *PODS), "p")
    host.add(network("open", "10.89.0.0/24", "fd00:89::/64", isolation=False), "o")
    config = on_the_lan(**keys)

    def all_get_out() -> None:
        for name in ("p", "o"):
            for address, seen in zip(ROUTER, HOST):
                assert ask(host.place(name), address, 80) == f"lan {seen}", name

    with Server(lan, 80):
        all_get_out()
        host.add(config, "a")
        all_get_out()
        host.add(network("pods", *PODS), "p2")
        assert ask(host.place("p2"), ROUTER[0], 80) == f"lan {HOST[0]}"
        host.delete(config, "a")
        all_get_out()


@pytest.mark.parametrize("br_netfilter", ["0", "1"])
@pytest.mark.parametrize("masq", [False, True])
def test_its_container_is_a_machine_of_the_lan(host: Host, br_netfilter: str, masq: bool) -> None:
    """It meets the others with its own address, whatever ipMasq says: nobody routes between them."""
    lan = uplink(host)
    host.bridge_netfilter(br_netfilter)
    host.add(on_the_lan(ipMasq=masq), "a")
    host.add(on_the_lan(ipMasq=masq), "b")
    one, other = host.place("a"), host.place("b")
    with serving(Server(lan, 80), Server(one, 80), Server(host, 8000)):
        for address, hosts, own, second in zip(ROUTER, HOST, *OWN):
            assert ask(one, address, 80) == f"lan {own}"
            assert ask(one, hosts, 8000) == f"host {own}"
            assert ask(lan, own, 80) == f"a {address}"
            assert ask(host, own, 80) == f"a {hosts}"
            assert ask(other, own, 80) == f"a {second}"


@pytest.mark.parametrize("br_netfilter", ["0", "1"])
def test_published_ports_of_other_networks_are_reached_by_it(host: Host, br_netfilter: str) -> None:
    lan = uplink(host)
    host.bridge_netfilter(br_netfilter)
    host.add(network("pods", *PODS, ports=[port(8080, 80)]), "p")
    host.add(on_the_lan(), "a")
    with Server(host.place("p"), 80):
        for address, router, own in zip(HOST, ROUTER, OWN[0]):
            assert ask(lan, address, 8080) == f"p {router}"
            assert ask(host.place("a"), address, 8080) == f"p {own}"
            assert ask(host.place("p"), address, 8080).startswith("p ")


def test_del_leaves_the_bridge_as_it_was(host: Host) -> None:
    """Its addresses, sysctls and ports; MAC address included, which would follow the containers' otherwise."""
    uplink(host)
    host.add(network("pods", *PODS), "p")
    for name in ("a", "b"):
        host.container(name)
    before, sysctls = host.snapshot(), host.sysctls()
    for name in ("a", "b"):
        host.add(on_the_lan(), name)
        assert host.link("br0")["address"] == host.link("eth0")["address"], "neighbours know the host by it"
    for name in ("a", "b"):
        host.delete(on_the_lan(), name)
    assert host.snapshot() == before
    assert host.sysctls() == sysctls


@pytest.mark.parametrize("keys", [{}, {"isolation": False}, {"ipMasq": True}], ids=["default", "open", "masq"])
def test_no_set_of_bridges_names_it(host: Host, keys: dict[str, Any]) -> None:
    uplink(host)
    host.add(network("pods", *PODS), "p")
    config = on_the_lan(**keys)
    result = host.add(config, "a")
    assert host.add(config, "a") == result
    host.add(config, "b")
    assert shared_by(host, "br0") == set()
    assert shared_by(host, "br-pods") == set(SHARED)
    agrees(host, config, result)


def test_two_networks_on_it(host: Host) -> None:
    """The second is no reason to take it for a bridge of containers, nor is the end of the first."""
    lan = uplink(host)
    host.add(network("pods", *PODS), "p")
    first, second = on_the_lan(), {**on_the_lan(), "name": "lan2"}
    host.add(first, "a")
    result = host.add(second, "b")
    host.delete(first, "a")
    assert shared_by(host, "br0") == set()
    agrees(host, second, result, "b")
    with Server(lan, 80):
        assert ask(host.place("p"), ROUTER[0], 80) == f"lan {HOST[0]}"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bridge_whose_gateway_is_the_host_is_isolated(host: Host, family: int) -> None:
    """`isGateway` is false since its administrator gave it the address; containers go out by the host all the same."""
    uplink(host)
    subnet, gateway = (("10.77.0.0/24", "10.77.0.1"), ("fd00:77::/64", "fd00:77::1"))[family]
    host.run("ip", "link", "add", "br-own", "up", "type", "bridge")
    host.run("ip", "addr", "add", gateway + subnet[-3:], "dev", "br-own", *(["nodad"] if family else []))
    config = network("own", bridge="br-own", ipam={"ranges": [[{"subnet": subnet}]]}, isGateway=False)
    result = host.add(config, "a")
    host.add(network("pods", *PODS), "p")
    assert shared_by(host, "br-own") >= {"closed", "isolated"}
    target = result["ips"][0]["address"].split("/")[0]
    with Server(host.place("a"), 80):
        assert ask(host.place("p"), target, 80) == "silence"
        assert ask(host, target, 80) == f"a {gateway}"
    agrees(host, config, result)


def test_a_gateway_address_that_is_still_tentative_is_the_hosts_too(host: Host) -> None:
    """The kernel looks for duplicates only once the bridge has a carrier, which is its first container's."""
    host.run("ip", "link", "add", "br-own", "up", "type", "bridge")
    host.run("ip", "addr", "add", "fd00:77::1/64", "dev", "br-own")
    config = network("own", bridge="br-own", ipam={"ranges": [[{"subnet": "fd00:77::/64"}]]}, isGateway=False)
    host.add(config, "a")
    assert shared_by(host, "br-own") >= {"closed", "isolated"}


def test_an_internal_network_is_isolated(host: Host) -> None:
    """The bridge is ours, so nobody goes out by it."""
    config = network("inner", "10.77.0.0/24", "fd00:77::/64", isGateway=False)
    host.add(config, "a")
    assert shared_by(host, "br-inner") == set(SHARED)
    result = host.add(config, "b")
    host.delete(config, "a")
    assert shared_by(host, "br-inner") == set(SHARED)
    agrees(host, config, result, "b")


def foreign(gateways: tuple[str, ...]) -> Json:
    """What somebody else's `bridge` plugin on br0 has answered."""
    return {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "br0"}, {"name": "vethx"}, {"name": "eth0", "sandbox": "/run/netns/a"}],
        "ips": [
            {"address": address, "gateway": gateway, "interface": 2}
            for address, gateway in zip(("192.0.2.100/24", "2001:db8:2::100/64"), gateways)
        ],
    }


def join(host: Host, gateways: tuple[str, ...]) -> Namespace:
    """A container on br0 that is not ours."""
    inside = host.container("a")
    pair = ("type", "veth", "peer", "name", "eth0", "netns", "a")
    host.run("ip", "link", "add", "vethx", "master", "br0", "up", *pair)
    inside.set_sysctl("ipv6/conf/eth0/accept_dad", "0")
    for entry in foreign(gateways)["ips"]:
        inside.run("ip", "addr", "add", entry["address"], "dev", "eth0")
    inside.run("ip", "link", "set", "eth0", "up")
    for gateway in gateways:
        inside.run("ip", "route", "add", "default", "via", gateway)
    return inside


@pytest.mark.parametrize(("gateways", "named"), [(ROUTER, set()), (HOST, set())], ids=["lan", "host"])
def test_portmap_behind_a_foreign_bridge(
    host: Host, tmp_path: Path, gateways: tuple[str, ...], named: set[str]
) -> None:
    """The drop-in knows the bridge by prevResult alone: it is one of containers if the gateway there is the host's."""
    lan = uplink(host)
    host.add(network("pods", *PODS), "p")
    inside = join(host, gateways)
    portmap = tmp_path / "portmap"
    portmap.symlink_to(CHECKOUT / "conf" / "nftcni")
    config = {"cniVersion": "1.0.0", "name": "chain", "type": "portmap", "prevResult": foreign(gateways)}
    config["runtimeConfig"] = {"portMappings": [port(8080, 80)]}
    before = host.snapshot()
    host.add(config, "a", plugin=str(portmap))
    assert shared_by(host, "br0") == named
    assert bool(host.elements().get("guests4")) is (gateways == ROUTER)
    with serving(Server(lan, 80), Server(inside, 80)):
        for address, router in zip(HOST, ROUTER):
            if gateways == ROUTER:
                assert ask(host.place("p"), router, 80) == f"lan {address}"
            assert ask(host, address, 8080) == f"a {address}"
            assert ask(host.place("p"), address, 8080).startswith("a ")
    assert host.cni("CHECK", config, "a", plugin=str(portmap)).status == 0
    assert host.command("repair", "--check").returncode == 0
    elements = host.elements()
    host.nft("flush ruleset")
    assert host.command("repair").returncode == 0
    assert host.elements() == elements
    host.delete(config, "a", plugin=str(portmap))
    assert host.snapshot()["elements"] == before["elements"] and host.links() == before["links"]


def test_a_port_behind_a_foreign_uplink_is_reached_by_127_0_0_1(host: Host, tmp_path: Path) -> None:
    uplink(host)
    inside = join(host, ROUTER)
    portmap = tmp_path / "portmap"
    portmap.symlink_to(CHECKOUT / "conf" / "nftcni")
    config = {"cniVersion": "1.0.0", "name": "chain", "type": "portmap", "prevResult": foreign(ROUTER)}
    config["runtimeConfig"] = {"portMappings": [port(8080, 80)]}
    host.add(config, "a", plugin=str(portmap))
    with Server(inside, 80):
        assert ask(host, "127.0.0.1", 8080) == f"a {HOST[0]}"
