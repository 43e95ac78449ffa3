"""`forceAddress`: whether a bridge's other addresses give way to the gateway's, as in the reference bridge plugin."""

from __future__ import annotations

from support.scratch import Host, network

SUBNETS = ("10.88.0.0/24", "fd00:88::/64")
GATEWAYS = {"10.88.0.1/24", "fd00:88::1/64"}


def make_bridge(host: Host) -> None:
    host.run("ip", "link", "add", "br-net0", "type", "bridge")
    for address in ("192.0.2.1/24", "fd00:88::5/64", "fd00:99::1/64"):
        host.run("ip", "addr", "add", address, "dev", "br-net0")


def test_other_addresses_stay_by_default(host: Host) -> None:
    make_bridge(host)
    host.add(network("net0", *SUBNETS))
    assert host.addresses("br-net0") == GATEWAYS | {"192.0.2.1/24", "fd00:88::5/64", "fd00:99::1/64"}


def test_conflicting_addresses_give_way_when_forced(host: Host) -> None:
    make_bridge(host)
    host.add(network("net0", *SUBNETS, forceAddress=True))
    assert host.addresses("br-net0") == GATEWAYS | {"fd00:99::1/64"}
