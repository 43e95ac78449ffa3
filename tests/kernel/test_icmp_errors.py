"""What routers and closed ports answer finds its way back through both translations: path MTU, refusals."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time

import pytest
from support.machines import NETFILTER
from support.scratch import Host, Namespace, network, port
from support.traffic import ask, open_socket

NET = ("10.88.0.0/24", "fd00:88::/64")
HOST = ("198.51.100.1", "2001:db8:100::1")
LAN = ("198.51.100.2", "2001:db8:100::2")
FAR = ("192.0.2.2", "2001:db8:2::2")
PORTS = [port(8080, 80), port(8080, 80, "udp")]
FAMILIES = [pytest.param(socket.AF_INET, id="v4"), pytest.param(socket.AF_INET6, id="v6")]
MTU_DISCOVER = {socket.AF_INET: (socket.IPPROTO_IP, 10), socket.AF_INET6: (socket.IPPROTO_IPV6, 23)}
DO = 2  # IP_PMTUDISC_DO, IPV6_PMTUDISC_DO: never in fragments
WAYS = ["in by a published port", "out"]


def narrow(host: Host) -> Namespace:
    """A machine behind a router of the LAN, whose link there takes 1300 bytes."""
    router, far = host.neighbour(), host.container("far")
    host.run("ip", "link", "add", "narrow", "type", "veth", "peer", "name", "eth0", "netns", "far")
    host.run("ip", "link", "set", "narrow", "netns", "lan")
    for place, link, last, mtu in ((router, "narrow", "1", "1300"), (far, "eth0", "2", "1500")):
        for address, length in zip(FAR, ("/24", "/64")):
            flags = ["nodad"] if ":" in address else []
            place.run("ip", "addr", "add", address[:-1] + last + length, "dev", link, *flags)
        place.run("ip", "link", "set", link, "mtu", mtu, "up")
    for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        router.set_sysctl(key, "1")
    for address, gateway, subnet in zip(FAR, LAN, ("192.0.2.0/24", "2001:db8:2::/64")):
        # It says that it takes as much as ever, and sends no more than the router's end does, which drops the rest
        # without a word (is_skb_forwardable).
        way = ["via", address[:-1] + "1", "mtu", "1300", "advmss", "1440"]
        far.run("ip", "route", "add", "default", *way)
        host.run("ip", "route", "add", subnet, "via", gateway)
    return far


def ends(host: Host, br_netfilter: str, way: str, six: bool) -> tuple[Namespace, Namespace, tuple[str, int]]:
    """The client, the server, and where the one asks the other. One is the container, one is behind the narrow link."""
    far = narrow(host)
    host.bridge_netfilter(br_netfilter)
    host.add(network("net0", *NET, ports=PORTS), "a")
    if way == WAYS[0]:
        return far, host.place("a"), (HOST[six], 8080)
    return host.place("a"), far, (FAR[six], 80)


@NETFILTER
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_much_passes_a_narrow_link(host: Host, br_netfilter: str, way: str, family: socket.AddressFamily) -> None:
    client, server, place = ends(host, br_netfilter, way, family == socket.AF_INET6)
    with open_socket(server, family, "tcp") as listener, open_socket(client, family, "tcp") as one:
        listener.bind(("", 80))
        listener.listen(1)
        one.settimeout(10)
        one.connect(place)
        other, _ = listener.accept()
        with other:
            other.settimeout(10)
            much = os.urandom(200_000)
            for sender, receiver in ((one, other), (other, one)):
                thread = threading.Thread(target=sender.sendall, args=(much,))
                thread.start()
                got = b""
                while len(got) < len(much):
                    got += receiver.recv(65536)
                thread.join()
                assert got == much


@NETFILTER
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_container_hears_of_the_paths_mtu(
    host: Host, br_netfilter: str, way: str, family: socket.AddressFamily
) -> None:
    client, server, place = ends(host, br_netfilter, way, family == socket.AF_INET6)
    with open_socket(server, family, "udp") as served, open_socket(client, family, "udp") as one:
        served.bind(("", 80))
        served.settimeout(3)
        one.connect(place)
        one.send(b"?")
        _, peer = served.recvfrom(100)
        inside, target = (served, peer) if way == WAYS[0] else (one, None)
        inside.setsockopt(*MTU_DISCOVER[family], DO)
        with pytest.raises(OSError) as error:
            for _ in range(20):
                inside.sendto(bytes(1400), target) if target else inside.send(bytes(1400))
                time.sleep(0.1)
        assert error.value.errno == errno.EMSGSIZE


@NETFILTER
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_nobody_listens_in_the_container(host: Host, br_netfilter: str, protocol: str) -> None:
    """The refusal comes at once, from the address that was asked."""
    lan = host.neighbour()
    host.bridge_netfilter(br_netfilter)
    for name in ("a", "b"):
        host.add(network("net0", *NET, ports=PORTS if name == "a" else ()), name)
    for place in (lan, host, host.place("a"), host.place("b")):
        for address in HOST:
            assert ask(place, address, 8080, protocol) == "refused", (place.name, address)
    assert ask(host, "127.0.0.1", 8080, protocol) == "refused"
