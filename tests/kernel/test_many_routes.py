"""A host with the routes and neighbours of a router: the kernel is asked for those that matter, and passes over the
others.

The oracles are strace, which counts what the kernel hands over, and what `ip` says.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.scratch import PLUGIN, Host, Json, network

MANY = 2000  # of each version
NEIGHBOURS = 500
FEW = 100


@pytest.fixture
def router(host: Host) -> Host:
    """2000 routes of each version by a link to the LAN, and 500 neighbours there."""
    host.neighbour("lan", 1)
    lines = [
        f"route add {dst} dev to-lan proto bgp"
        for number in range(MANY)
        for dst in (f"20.{number >> 8}.{number & 255}.0/24", f"2001:db8:{number + 0x1000:x}::/48")
    ]
    lines += [
        f"neigh replace 2001:db8:100::{number:x} lladdr 02:00:00:00:00:01 dev to-lan nud permanent"
        for number in range(0x1000, 0x1000 + NEIGHBOURS)
    ]
    assert host.call("ip", "-batch", "-", input="\n".join(lines) + "\n").returncode == 0
    assert len(host.json("ip", "-j", "-6", "route", "show", "proto", "bgp")) == MANY
    return host


def handed_over(host: Host, config: Json, log: Path, verb: str = "ADD") -> tuple[Json, int]:
    """The verb's result, and how many routes and neighbours the kernel handed over for it."""
    variables = {
        **{"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_PATH": "/x"},
        **{"CNI_NETNS": "/run/netns/c1"},
    }
    traced = ("strace", "-f", "-qq", "-v", "-e", "trace=recvfrom,recvmsg", "-o", str(log), PLUGIN)
    done = host.call(*traced, input=json.dumps(config), env=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    text = log.read_text()
    count = sum(text.count(f"nlmsg_type={kind}") for kind in ("RTM_NEWROUTE", "RTM_NEWNEIGH"))
    return json.loads(done.stdout or "{}"), count


def test_the_first_container_with_ipv6(router: Host, tmp_path: Path) -> None:
    """Before the host forwards it looks for routes from router advertisements."""
    router.container("c1")
    config = network("net0", "10.88.0.0/24", "fd00:88::/64")
    _result, count = handed_over(router, config, tmp_path / "received")
    assert router.sysctl("ipv6/conf/all/forwarding") == "1"
    assert count < FEW


def with_bridge(host: Host) -> None:
    host.container("c1")
    host.run("ip", "link", "add", "br0", "type", "bridge")
    host.run("ip", "link", "set", "br0", "up")
    host.run("ip", "addr", "add", "192.0.2.2/24", "dev", "br0")


def on_bridge(**named: str) -> Json:
    ipam = {"ranges": [[{"subnet": "192.0.2.0/24", **named}]], "routes": [{"dst": "0.0.0.0/0"}]}
    return network("net0", bridge="br0", ipam=ipam)


@pytest.mark.parametrize("named", [{}, {"gateway": "192.0.2.9"}], ids=["no gateway named", "gateway named"])
def test_a_bridge_of_somebody_else(router: Host, tmp_path: Path, named: dict[str, str]) -> None:
    """Who is the router there, the routes by that bridge tell."""
    with_bridge(router)
    router.run("ip", "route", "add", "default", "via", "192.0.2.9", "dev", "br0")
    result, count = handed_over(router, on_bridge(**named), tmp_path / "received")
    assert [item["gateway"] for item in result["ips"]] == ["192.0.2.9"]
    assert count < FEW
    _result, count = handed_over(router, {**on_bridge(**named), "prevResult": result}, tmp_path / "again", "CHECK")
    assert count < FEW


def test_a_bridge_without_a_router(router: Host, tmp_path: Path) -> None:
    """No route leads to the gateway, so the neighbours are asked for it."""
    with_bridge(router)
    _result, count = handed_over(router, on_bridge(gateway="192.0.2.9"), tmp_path / "received")
    assert "192.0.2.9/24" in router.addresses("br0") and count < FEW
