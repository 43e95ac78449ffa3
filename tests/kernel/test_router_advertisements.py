"""A host whose IPv6 routes are from a router of the LAN keeps them when the first container makes it a router itself.

A router takes no advertisements with accept_ra 1, and the kernel removes what came by them (addrconf_fixup_forwarding,
rt6_purge_dflt_routers); with accept_ra 2 it goes on taking them (ip-sysctl.rst). The advertisements here are real ones.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Callable

import pytest
from support.scratch import Host, Json, Namespace, network

DUAL = ("10.88.0.0/24", "fd00:88::/64")
PATIENCE = 10.0  # seconds until a test gives up; what it takes is a fraction of one


def uplink(host: Host, name: str = "lan", number: int = 1) -> Namespace:
    """A neighbour that is a router, on a link of the host that takes advertisements."""
    router = host.neighbour(name, number)
    router.set_sysctl("ipv6/conf/all/forwarding", "1")
    host.set_sysctl(f"ipv6/conf/to-{name}/accept_ra", "1")
    wait(lambda: link_local(router, "eth0") and link_local(host, f"to-{name}"))
    return router


def link_local(place: Namespace, link: str) -> Json:
    """The address that advertisements come from and go through; the kernel makes it in its own time."""
    return place.json("ip", "-j", "-6", "addr", "show", "dev", link, "scope", "link", "-tentative")


def wait(said: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not said():
        assert time.monotonic() < end
        time.sleep(0.01)


def advertise(router: Namespace, lifetime: int = 1800, prefix: str = "") -> None:
    """A router advertisement (RFC 4861, section 4.2); hosts make themselves an address of the prefix."""
    with router.entered():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        index = socket.if_nametoindex("eth0")
    with sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0)
        if prefix:
            message += struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + socket.inet_pton(
                socket.AF_INET6, prefix
            )
        sock.sendto(message, ("ff02::1", 0, 0, index))


def learnt(host: Host) -> list[str]:
    """The links of the default routes that came by advertisements, without their lifetimes."""
    found: Json = host.json("ip", "-j", "-6", "route", "show", "default", "proto", "ra")
    return sorted(item["dev"] for item in found)


def wait_for(host: Host, devices: list[str]) -> None:
    wait(lambda: learnt(host) == devices)


def test_the_default_route_stays_and_later_advertisements_count(host: Host) -> None:
    router = uplink(host)
    advertise(router)
    wait_for(host, ["to-lan"])
    host.add(network("net0", *DUAL))
    assert host.sysctl("ipv6/conf/all/forwarding") == "1"
    assert learnt(host) == ["to-lan"]
    advertise(router, lifetime=0)
    wait_for(host, [])
    advertise(router)
    wait_for(host, ["to-lan"])


def test_the_routes_of_two_links_stay(host: Host) -> None:
    for router in [uplink(host, "lan", 1), uplink(host, "far", 2)]:
        advertise(router)
    wait_for(host, ["to-far", "to-lan"])
    host.add(network("net0", "fd00:88::/64"))
    assert learnt(host) == ["to-far", "to-lan"]


def test_a_router_that_is_heard_of_later(host: Host) -> None:
    """A boot: the first container is faster than the first advertisement."""
    idle, deaf = uplink(host), uplink(host, "deaf", 2)
    host.set_sysctl("ipv6/conf/to-deaf/accept_ra", "0")
    keys = [f"ipv6/conf/{name}/accept_ra" for name in ("to-deaf", "all", "default", "lo")]
    before, sysctls = [host.sysctl(key) for key in keys], host.sysctls()
    config = network("net0", *DUAL)
    host.add(config)
    assert [host.sysctl(key) for key in keys] == before
    advertise(deaf)
    advertise(idle, prefix="2001:db8:77::")
    wait_for(host, ["to-lan"])
    wait(lambda: any("2001:db8:77:" in address for address in host.addresses("to-lan")))
    host.delete(config)
    assert host.sysctls() == sysctls and learnt(host) == ["to-lan"]


def test_what_an_administrator_sets_meanwhile_stays(host: Host) -> None:
    uplink(host)
    host.add(network("net0", *DUAL))
    host.set_sysctl("ipv6/conf/to-lan/accept_ra", "0")
    host.delete(network("net0", *DUAL))
    assert host.sysctl("ipv6/conf/to-lan/accept_ra") == "0"


def test_a_link_that_keeps_its_routes_without_listening_stays_deaf(host: Host) -> None:
    """accept_ra 0 is somebody's decision (systemd-networkd does it by itself); the route is none of the kernel's."""
    uplink(host)
    host.set_sysctl("ipv6/conf/to-lan/accept_ra", "0")
    host.run("ip", "-6", "route", "add", "default", "via", "2001:db8:100::2", "dev", "to-lan", "proto", "ra")
    host.add(network("net0", *DUAL))
    assert host.sysctl("ipv6/conf/to-lan/accept_ra") == "0" and learnt(host) == ["to-lan"]


def test_ipv4_alone_changes_nothing(host: Host) -> None:
    advertise(uplink(host))
    wait_for(host, ["to-lan"])
    before = host.sysctls()
    config = network("net0", "10.88.0.0/24")
    host.add(config)
    host.delete(config)
    assert host.sysctls() == before and learnt(host) == ["to-lan"]
    assert host.sysctl("ipv6/conf/all/forwarding") == "0"


def test_a_host_that_forwards_already_is_left_as_it_is(host: Host) -> None:
    """Its administrator has decided what its links take."""
    host.set_sysctl("ipv6/conf/all/forwarding", "1")
    uplink(host)
    host.run("ip", "-6", "route", "add", "default", "via", "2001:db8:100::2", "dev", "to-lan", "proto", "ra")
    host.add(network("net0", *DUAL))
    assert host.sysctl("ipv6/conf/to-lan/accept_ra") == "1"


def test_repair_keeps_them_too(host: Host) -> None:
    """Somebody has switched forwarding off, and a router of the LAN was heard since."""
    config = network("net0", *DUAL)
    host.add(config)
    host.set_sysctl("ipv6/conf/all/forwarding", "0")
    advertise(uplink(host))
    wait_for(host, ["to-lan"])
    assert host.command("repair").returncode == 0
    assert host.sysctl("ipv6/conf/all/forwarding") == "1"
    assert learnt(host) == ["to-lan"]


@pytest.mark.parametrize("gone", ["DEL", "GC"])
def test_they_are_there_when_the_last_container_has_gone(host: Host, gone: str) -> None:
    advertise(uplink(host))
    wait_for(host, ["to-lan"])
    before = host.sysctls()
    config = network("net0", *DUAL)
    host.add(config)
    if gone == "DEL":
        host.delete(config)
    else:
        assert host.cni("GC", {**config, "cni.dev/valid-attachments": []}).status == 0
    assert learnt(host) == ["to-lan"]
    assert host.sysctls() == before


def test_the_addresses_of_a_link_without_a_route_are_kept_alive(host: Host) -> None:
    """A router that is not the default one (lifetime 0) announces a prefix: what is heard of it keeps the address."""
    router = uplink(host)
    advertise(router, lifetime=0, prefix="2001:db8:77::")
    wait(lambda: any("2001:db8:77:" in address for address in host.addresses("to-lan")))
    host.add(network("net0", *DUAL))
    assert host.sysctl("ipv6/conf/to-lan/accept_ra") == "2"
    advertise(router, lifetime=0, prefix="2001:db8:78::")
    wait(lambda: any("2001:db8:78:" in address for address in host.addresses("to-lan")))
