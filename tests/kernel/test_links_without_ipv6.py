"""Links of the host that need no IPv6 of their own have none, or each link would make the next one slower: the kernel
walks all IPv6 routes when a link comes or goes. And one link that goes does not make the kernel look at all others.

The oracles are `ip -6 route` and strace.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.scratch import PLUGIN, Host, Json, network, port
from support.traffic import Server, ask

DUAL = ("10.88.0.0/24", "fd00:88::/64")
LIMITS = {"ingressRate": 8_000_000, "ingressBurst": 80_000, "egressRate": 8_000_000, "egressBurst": 80_000}


def host_ends(host: Host) -> list[str]:
    """Of containers: veths and what limits their rates."""
    found = host.json("ip", "-j", "-d", "link")
    return [item["ifname"] for item in found if item.get("linkinfo", {}).get("info_kind") in ("veth", "ifb")]


def routes_of(host: Host, link: str) -> list[Json]:
    """Of all tables, the local and multicast ones too."""
    found = host.json("ip", "-j", "-6", "route", "show", "table", "all")
    return [route for route in found if route.get("dev") == link]


def addresses_of(host: Host, link: str) -> list[Json]:
    (found,) = host.json("ip", "-j", "-6", "addr", "show", "dev", link) or [{}]
    return found.get("addr_info", [])


def ptp(*subnets: str) -> Json:
    return network("net0", *subnets, bridge=None, mode="ptp")


@pytest.mark.parametrize(
    "config",
    [
        network("net0", *DUAL),
        network("net0", "10.88.0.0/24"),
        network("net0", *DUAL, runtimeConfig={"bandwidth": LIMITS}),
        ptp("10.88.0.0/24"),
    ],
    ids=["port", "port of IPv4", "port with rates", "point to point of IPv4"],
)
def test_host_ends_have_no_ipv6_routes(host: Host, config: Json) -> None:
    result = host.add(config)
    ends = host_ends(host)
    assert len(ends) == (2 if "runtimeConfig" in config else 1)
    for link in ends:
        assert (addresses_of(host, link), routes_of(host, link)) == ([], []), link
    assert host.cni("CHECK", {**config, "prevResult": result}).status == 0


def test_ipv6_passes_a_port_that_has_none(host: Host) -> None:
    host.add(network("net0", *DUAL, ports=[port(8080, 80)]))
    host.add(network("net0", *DUAL), "c2")
    one, other = host.place("c1"), host.place("c2")
    with Server(one, 80):
        assert ask(other, "fd00:88::2", 80) == "c1 fd00:88::3"
        assert ask(host, "fd00:88::1", 8080).startswith("c1 ")


def test_point_to_point_with_ipv6_keeps_it(host: Host) -> None:
    host.add(ptp(*DUAL))
    (link,) = host_ends(host)
    assert {entry["local"] for entry in addresses_of(host, link)} >= {"fd00:88::1"}
    with Server(host.place("c1"), 80):
        assert ask(host, "fd00:88::2", 80) == "c1 fd00:88::1"


def test_a_port_of_an_earlier_edition_is_well(host: Host) -> None:
    """It has IPv6 and takes no advertisements."""
    config = network("net0", *DUAL)
    result = host.add(config)
    (link,) = host_ends(host)
    host.set_sysctl(f"ipv6/conf/{link}/accept_ra", "0")
    host.set_sysctl(f"ipv6/conf/{link}/disable_ipv6", "0")
    assert host.cni("CHECK", {**config, "prevResult": result}).status == 0
    assert host.command("repair", "--check").returncode == 0


def test_one_link_goes_by_its_index(host: Host, tmp_path: Path) -> None:
    """For a group the kernel would look at all links of the host (rtnl_group_dellink)."""
    config = network("net0", *DUAL)
    for name in ("c1", "c2"):
        host.add(config, name)
    log = tmp_path / "sent"
    variables = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_PATH": "/x"}
    traced = ("strace", "-f", "-qq", "-e", "trace=sendto", "-o", str(log), PLUGIN)
    assert host.call(*traced, input=json.dumps(config), env=variables).returncode == 0
    (removal,) = [line for line in log.read_text().splitlines() if "nlmsg_type=RTM_DELLINK" in line]
    assert "IFLA_GROUP" not in removal and len(host_ends(host)) == 1
