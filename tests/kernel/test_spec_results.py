"""The result document of ADD (SPEC.md "Success"), lines 37 to 40 of the checklist in test_spec_checklist.

The shape of each version is spelled out here, what it says is compared with the kernel. Errors are the checklist's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.scratch import Host, Json, network

VERSIONS_020 = ("0.1.0", "0.2.0")
VERSIONS_040 = ("0.3.0", "0.3.1", "0.4.0")
VERSIONS_100 = ("1.0.0", "1.1.0")
DUAL = ("10.88.0.0/24", "fd00:88::/64")
DNS = {"nameservers": ["192.0.2.53"], "domain": "example.org", "search": ["a.example"], "options": ["ndots:2"]}
ROUTE = {"dst": "192.0.2.0/24", "gw": "10.88.0.7", "mtu": 1400, "advmss": 1360, "priority": 7, "table": 254, "scope": 0}


def with_routes(config: Json, *routes: Json) -> Json:
    return {**config, "ipam": {**config["ipam"], "routes": list(routes)}}


def keys(document: Json) -> set[str]:
    return set(document)


# 37, 38: shapes


@pytest.mark.parametrize("version", VERSIONS_020)
def test_shape_of_0_2_0(host: Host, version: str) -> None:
    """One address for each family with the routes of that family; no interfaces."""
    routes = ({"dst": "192.0.2.0/24", "gw": "10.88.0.7"}, {"dst": "2001:db8::/32", "gw": "fd00:88::1"})
    result = host.add(with_routes(network("net0", *DUAL, version=version, dns=DNS), *routes))
    assert result == {
        "cniVersion": version,
        "ip4": {"ip": "10.88.0.2/24", "gateway": "10.88.0.1", "routes": [routes[0]]},
        "ip6": {"ip": "fd00:88::2/64", "gateway": "fd00:88::1", "routes": [routes[1]]},
        "dns": DNS,
    }


@pytest.mark.parametrize("version", VERSIONS_020)
@pytest.mark.parametrize("ipam", [{}, None], ids=["empty", "absent"])
def test_0_2_0_cannot_say_that_there_is_no_address(host: Host, version: str, ipam: Any) -> None:
    host.container("c1")
    answer = host.refused("ADD", network(version=version, ipam=ipam))
    assert answer.code == 7 and version in answer.words


@pytest.mark.parametrize("version", VERSIONS_020)
def test_0_2_0_cannot_say_two_addresses_of_a_family(host: Host, version: str) -> None:
    host.container("c1")
    answer = host.refused("ADD", network("net0", "10.88.0.0/24", "10.89.0.0/24", version=version))
    assert answer.code == 7 and version in answer.words and "ranges" in answer.words


@pytest.mark.parametrize("version", VERSIONS_040)
def test_shape_of_0_4_0(host: Host, version: str) -> None:
    """Addresses say their family, `dns` is always there, interfaces have name, mac and sandbox."""
    result = host.add(with_routes(network("net0", *DUAL, version=version), ROUTE))
    assert keys(result) == {"cniVersion", "interfaces", "ips", "routes", "dns"}
    assert [keys(item) for item in result["interfaces"]] == [{"name", "mac"}] * 2 + [{"name", "mac", "sandbox"}]
    assert [item["version"] for item in result["ips"]] == ["4", "6"]
    assert [keys(item) for item in result["ips"]] == [{"version", "address", "gateway", "interface"}] * 2
    assert result["routes"] == [{"dst": ROUTE["dst"], "gw": ROUTE["gw"]}]
    assert result["dns"] == {}


@pytest.mark.parametrize("version", VERSIONS_100)
def test_shape_of_1_0_0_and_1_1_0(host: Host, version: str) -> None:
    """No family, no empty `dns`; mtu and the numbers of routes came with 1.1.0."""
    result = host.add(with_routes(network("net0", *DUAL, version=version), ROUTE))
    assert keys(result) == {"cniVersion", "interfaces", "ips", "routes"}
    assert [keys(item) for item in result["ips"]] == [{"address", "gateway", "interface"}] * 2
    if version == "1.1.0":
        assert result["routes"] == [ROUTE]
        assert [item["mtu"] for item in result["interfaces"]] == [1500] * 3
    else:
        assert result["routes"] == [{"dst": ROUTE["dst"], "gw": ROUTE["gw"]}]
        assert not any("mtu" in item for item in result["interfaces"])


@pytest.mark.parametrize("version", VERSIONS_040 + VERSIONS_100)
def test_interfaces_and_addresses_are_the_kernels(host: Host, version: str) -> None:
    result = host.add(network("net0", *DUAL, version=version, mtu=1400))
    container = host.namespaces[0]
    bridge, outside, inside = result["interfaces"]
    assert (bridge["name"], inside["name"]) == ("br-net0", "eth0")
    for place, item in ((host, bridge), (host, outside), (container, inside)):
        link = place.link(item["name"])
        assert item["mac"] == link["address"]
        assert item.get("mtu", 1400) == link["mtu"]
    assert host.link(outside["name"])["master"] == "br-net0"
    assert (inside["sandbox"], "sandbox" in bridge, "sandbox" in outside) == ("/run/netns/c1", False, False)
    assert [item["interface"] for item in result["ips"]] == [2, 2]
    assert {item["address"] for item in result["ips"]} == container.addresses("eth0")
    assert {f"{item['gateway']}/{size}" for item, size in zip(result["ips"], (24, 64))} == host.addresses("br-net0")


def test_the_sandbox_is_what_the_caller_said(host: Host) -> None:
    host.container("c1")
    odd = "/run/netns/../netns//c1"
    assert host.add(network(), netns=odd)["interfaces"][2]["sandbox"] == odd


def test_layer_two_has_interfaces_and_no_address(host: Host) -> None:
    result = host.add(network(ipam=None))
    assert len(result["interfaces"]) == 3 and not result.get("ips") and not result.get("routes")


# 38, 39: results of others


def previous(version: str, index: Any = 0) -> Json:
    address = {"address": "192.0.2.5/24", **({} if index is None else {"interface": index})}
    interfaces = [{"name": "net9", "sandbox": "/run/netns/c1"}]
    if version in VERSIONS_020:
        return {"ip4": {"ip": "192.0.2.5/24"}}
    if version in VERSIONS_040:
        address["version"] = "4"
    return {"interfaces": interfaces, "ips": [address]}


@pytest.mark.parametrize("version", VERSIONS_020 + VERSIONS_040 + VERSIONS_100)
@pytest.mark.parametrize("stated", [True, False], ids=["with-version", "without"])
def test_prev_result_is_read_in_the_configurations_version(host: Host, version: str, stated: bool) -> None:
    before = {**previous(version), **({"cniVersion": version} if stated else {})}
    subnets = ("fd00:88::/64",) if version in VERSIONS_020 else DUAL
    result = host.add(network("net0", *subnets, version=version, prevResult=before))
    assert result["cniVersion"] == version
    if version in VERSIONS_020:
        assert (result["ip4"]["ip"], result["ip6"]["ip"]) == ("192.0.2.5/24", "fd00:88::2/64")
    else:
        assert [item["address"] for item in result["ips"]] == ["192.0.2.5/24", "10.88.0.2/24", "fd00:88::2/64"]
        assert [result["interfaces"][item["interface"]]["name"] for item in result["ips"]] == ["net9", "eth0", "eth0"]


@pytest.mark.parametrize("index", [None, -1])
def test_an_address_without_an_interface_is_tolerated(host: Host, index: Any) -> None:
    """What libcni makes of an address when it converts a 0.2.0 result upwards."""
    result = host.add(network(prevResult=previous("1.1.0", index)))
    assert [item["address"] for item in result["ips"]] == ["192.0.2.5/24", "10.88.0.2/24"]


@pytest.mark.parametrize("asked", VERSIONS_020 + VERSIONS_040 + VERSIONS_100)
@pytest.mark.parametrize("answered", ["0.2.0", "0.4.0", "1.0.0", "1.1.0", None])
def test_a_delegates_result_is_converted(host: Host, tmp_path: Path, asked: str, answered: str | None) -> None:
    """Line 40: a result without a version has the configuration's."""
    shape = answered or asked
    address = {"address": "10.77.0.5/24", "gateway": "10.77.0.1"}
    document: Json = {"ips": [address]}
    if shape in VERSIONS_020:
        document = {"ip4": {"ip": "10.77.0.5/24", "gateway": "10.77.0.1"}}
    elif shape in VERSIONS_040:
        document = {"ips": [{**address, "version": "4"}], "dns": {}}
    if answered:
        document["cniVersion"] = answered
    script = tmp_path / "leaser"
    script.write_text(f"#!/bin/sh\ncat > /dev/null\n[ $CNI_COMMAND = ADD ] && echo '{json.dumps(document)}'\nexit 0\n")
    script.chmod(0o755)
    result = host.add(network(version=asked, ipam={"type": "leaser"}), env={"CNI_PATH": str(tmp_path)})
    assert result["cniVersion"] == asked
    found = result["ip4"]["ip"] if asked in VERSIONS_020 else result["ips"][0]["address"]
    assert found == "10.77.0.5/24"
    assert host.namespaces[0].addresses("eth0") == {"10.77.0.5/24"}
