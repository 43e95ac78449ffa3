"""VLANs of bridge ports, which need a kernel with BRIDGE_VLAN_FILTERING: access ports, trunks, CHECK, nothing left."""

from __future__ import annotations

from typing import Any

import pytest
from kernels.scenarios.scene import PATIENCE
from support.scratch import Host, Json, network
from support.traffic import Server, ask


def tagged(address: str, **keys: Any) -> Json:
    ipam = {"type": "static", "addresses": [{"address": f"{address}/24"}]}
    return network("net0", isGateway=False, ipam=ipam, **keys)


def vlans(host: Host, link: str) -> dict[int, set[str]]:
    """What iproute2 says of one port: the flags of each VLAN."""
    found: dict[int, set[str]] = {}
    for entry in host.json("bridge", "-j", "vlan", "show"):
        if entry["ifname"] == link:
            for item in entry["vlans"]:
                for number in range(item["vlan"], item.get("vlanEnd", item["vlan"]) + 1):
                    found[number] = set(item.get("flags", ()))
    return found


NATIVE = {"PVID", "Egress Untagged"}
PORTS: list[tuple[Json, dict[int, set[str]]]] = [
    ({"vlan": 10}, {10: NATIVE}),
    ({"vlan": 10, "preserveDefaultVlan": True}, {1: {"Egress Untagged"}, 10: NATIVE}),
    ({"vlanTrunk": [{"id": 30}, {"minID": 10, "maxID": 12}]}, {1: NATIVE, 10: set(), 11: set(), 12: set(), 30: set()}),
    ({"vlan": 5, "vlanTrunk": [{"minID": 4, "maxID": 6}]}, {4: set(), 5: NATIVE, 6: set()}),
]


@pytest.mark.parametrize(("keys", "wanted"), PORTS)
def test_a_ports_vlans(host: Host, keys: Json, wanted: dict[int, set[str]]) -> None:
    host.container("c1")
    before = host.snapshot()
    config = tagged("10.88.0.2", **keys)
    result = host.add(config)
    port = result["interfaces"][1]["name"]
    assert vlans(host, port) == wanted
    assert host.add(config) == result
    assert vlans(host, port) == wanted
    checked = {**config, "prevResult": result}
    assert host.cni("CHECK", checked).status == 0
    host.run("bridge", "vlan", "del", "dev", port, "vid", str(max(wanted)))
    answer = host.cni("CHECK", checked)
    assert answer.code == 104 and str(max(wanted)) in answer.words
    host.add(config)
    host.run("bridge", "vlan", "add", "dev", port, "vid", "77")
    assert host.cni("CHECK", checked).code == (0 if keys.get("preserveDefaultVlan") else 104)
    host.delete(config)
    assert host.snapshot() == before


def test_only_the_same_vlan_is_reached(host: Host) -> None:
    for number, keys in enumerate([{"vlan": 10}, {"vlan": 10}, {"vlan": 20}, {"vlanTrunk": [{"id": 10}]}], 2):
        host.add(tagged(f"10.88.0.{number}", **keys), f"c{number}")
    trunk = host.place("c5")
    trunk.run("ip", "addr", "flush", "dev", "eth0")
    trunk.run("ip", "link", "add", "link", "eth0", "name", "eth0.10", "type", "vlan", "id", "10")
    trunk.run("ip", "addr", "add", "10.88.0.5/24", "dev", "eth0.10")
    trunk.run("ip", "link", "set", "eth0.10", "up")
    with Server(host.place("c2"), 80):
        assert ask(host.place("c3"), "10.88.0.2", 80, timeout=PATIENCE) == "c2 10.88.0.3"
        assert ask(trunk, "10.88.0.2", 80, timeout=PATIENCE) == "c2 10.88.0.5"
        assert ask(host.place("c4"), "10.88.0.2", 80) in ("silence", "refused")


def test_a_bridge_of_others_has_to_filter_itself(host: Host) -> None:
    host.run("ip", "link", "add", "br-net0", "type", "bridge")
    host.container("c1")
    answer = host.refused("ADD", tagged("10.88.0.2", vlan=10))
    assert answer.code == 7 and "vlan_filtering" in answer.words
    host.run("ip", "link", "set", "br-net0", "type", "bridge", "vlan_filtering", "1")
    result = host.add(tagged("10.88.0.2", vlan=10))
    assert vlans(host, result["interfaces"][1]["name"]) == {10: NATIVE}
