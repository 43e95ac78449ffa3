"""Adopted bridges, told apart by the kernel's own addresses, routes and neighbours: the host is the router of other
machines there, or one machine among others. More of the second kind is in `test_uplink`.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.machines import NETFILTER, machine
from support.scratch import Host, Json, Namespace, network, port
from support.traffic import Server, ask, serving

PODS = ("10.88.0.0/24", "fd00:88::/64")
WAN = ("198.51.100.2", "2001:db8:100::2")


def router(host: Host) -> tuple[Namespace, Namespace]:
    """br-lan with a PC on it, as OpenWrt, Proxmox and libvirt have it, and the way out."""
    wan = host.neighbour("wan")
    host.run("ip", "link", "add", "br-lan", "up", "type", "bridge")
    host.set_sysctl("ipv6/conf/br-lan/accept_dad", "0")
    for address in ("192.0.2.1/24", "2001:db8:2::1/64"):
        host.run("ip", "addr", "add", address, "dev", "br-lan")
    for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        host.set_sysctl(key, "1")
    gateways = ("192.0.2.1", "2001:db8:2::1")
    pc = machine(host, "br-lan", "192.0.2.50/24", "2001:db8:2::50/64", gateways=gateways, name="pc")
    host.nft('table inet router { chain c { type nat hook postrouting priority 100; oifname "to-wan" masquerade; }; }')
    return pc, wan


def on_the_lan(**keys: Any) -> Json:
    ranges = [
        [{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.200"}],
        [{"subnet": "2001:db8:2::/64", "rangeStart": "2001:db8:2::200"}],
    ]
    return network("lan", bridge="br-lan", ipam={"ranges": ranges}, **keys)


@NETFILTER
def test_the_machines_of_a_bridge_that_the_host_routes_for_are_no_containers(host: Host, br_netfilter: str) -> None:
    """cni#638: the first container on br-lan cut its PCs off from containers of other networks."""
    pc, wan = router(host)
    host.bridge_netfilter(br_netfilter)
    host.add(network("pods", *PODS, ports=[port(8080, 80)]), "app")
    app = host.place("app")

    def all_reached() -> None:
        for address in ("192.0.2.50", "2001:db8:2::50"):
            assert ask(app, address, 80, timeout=3).startswith("pc ")
        for address, seen in (("192.0.2.1", "192.0.2.50"), ("2001:db8:2::1", "2001:db8:2::50")):
            assert ask(pc, address, 8080, timeout=3) == f"app {seen}"
        assert ask(pc, WAN[0], 80, timeout=3) == "wan 198.51.100.1"

    with serving(*(Server(place, 80) for place in (pc, wan, app))):
        all_reached()
        host.add(on_the_lan(ports=[port(8081, 80)]), "onlan")
        with Server(host.place("onlan"), 80):
            all_reached()
            assert ask(pc, "192.0.2.200", 80, timeout=3) == "onlan 192.0.2.50"
            assert ask(pc, "192.0.2.1", 8081, timeout=3).startswith("onlan ")
            assert ask(wan, "198.51.100.1", 8081, timeout=3) == "onlan 198.51.100.2"
            assert ask(wan, "2001:db8:100::1", 8081, timeout=3) == "onlan 2001:db8:100::2"
        host.delete(on_the_lan(), "onlan")
        all_reached()


@pytest.mark.parametrize("known_by", ["route", "neighbour"])
def test_the_routers_address_is_not_taken(host: Host, known_by: str) -> None:
    """A network on the host's LAN bridge with nothing but the LAN's subnet: its first address is the router's."""
    host.run("ip", "link", "add", "br0", "up", "type", "bridge")
    host.run("ip", "addr", "add", "192.0.2.10/24", "dev", "br0")
    lan = machine(host, "br0", "192.0.2.1/24", name="router")
    if known_by == "route":
        host.run("ip", "route", "add", "default", "via", "192.0.2.1")
    else:
        assert ask(host, "192.0.2.1", 9, timeout=3) == "refused"
    ranges = [[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100"}]]
    config = network("home", bridge="br0", ipam={"ranges": ranges}, ports=[port(8080, 80)])
    host.add(config, "a")
    assert host.addresses("br0") == {"192.0.2.10/24"}
    with serving(Server(host.place("a"), 80), Server(lan, 80)):
        assert ask(host, "192.0.2.1", 80, timeout=3) == "router 192.0.2.10"
        assert ask(lan, "192.0.2.10", 8080, timeout=3).startswith("a ")
        assert ask(host.place("a"), "192.0.2.1", 80, timeout=3) == "router 192.0.2.100"
        assert ask(host, "127.0.0.1", 8080) == "a 192.0.2.10"
    host.delete(config, "a")
    assert host.elements() == {} and host.addresses("br0") == {"192.0.2.10/24"}


@pytest.mark.parametrize("family", ["4", "6"])
def test_links_that_are_told_to_forward_one_by_one(host: Host, family: str) -> None:
    """A router with ip_forward=1 and conf.default.forwarding=0."""
    lan = host.neighbour()
    for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        host.set_sysctl(key, "1")
    for key in ("ipv4/conf/default/forwarding", "ipv6/conf/default/forwarding"):
        host.set_sysctl(key, "0")
    host.add(network("net0", *PODS, ports=[port(8080, 80)]), "a")
    with serving(Server(lan, 80), Server(host.place("a"), 80)):
        for address in (WAN[0],) if family == "4" else (WAN[1],):
            assert ask(host.place("a"), address, 80, timeout=3).startswith("lan ")
        assert ask(lan, "198.51.100.1", 8080, timeout=3) == "a 198.51.100.2"
