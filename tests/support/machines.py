"""Machines that are no containers, on the bridges of a scratch host."""

from __future__ import annotations

import pytest

from .scratch import Host, Namespace

NETFILTER = pytest.mark.parametrize("br_netfilter", ["0", "1"])


def machine(host: Host, bridge: str, *addresses: str, gateways: tuple[str, ...] = (), name: str = "vm") -> Namespace:
    """Not a container: a virtual machine on a tap, a computer on a port of the switch."""
    made = host.container(name)
    host.run("ip", "link", "add", f"tap-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
    host.run("ip", "link", "set", f"tap-{name}", "master", bridge, "up")
    made.set_sysctl("ipv6/conf/eth0/accept_dad", "0")
    for address in addresses:
        made.run("ip", "addr", "add", address, "dev", "eth0")
    for link in ("lo", "eth0"):
        made.run("ip", "link", "set", link, "up")
    for gateway in gateways:
        made.run("ip", "route", "add", "default", "via", gateway)
    return made
