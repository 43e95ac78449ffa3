"""Two containers of every two kinds of network, and one of them goes: the other has everything that it had.

The table has elements that several attachments share. Whether the one that goes takes one that the other needs is asked
of CHECK and `repair`, and of the kernel whether nothing is left after both.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from support.scratch import Host, Json, network, port

KINDS: dict[str, dict[str, Any]] = {
    "nat": {},
    "nat with all options": {"hairpinMode": False, "portIsolation": True, "macspoofchk": True, "promiscMode": True},
    "point to point": {"mode": "ptp", "bridge": None},
    "point to point, routed": {"mode": "ptp", "bridge": None, "gatewayMode": "routed"},
    "routed": {"gatewayMode": "routed"},
    "open": {"gatewayMode": "open", "ipMasq": False},
    "isolated": {"gatewayMode": "isolated"},
    "IPv6 routed alone": {"gatewayModeIPv6": "routed"},
    "without protections": {"antiSpoof": False, "isolation": False},
    "exceptions from the masquerade": {"nonMasqueradeCIDRs": ["10.0.0.0/8", "fd00::/8"]},
    "smaller exceptions": {"nonMasqueradeCIDRs": ["10.1.0.0/16", "fd00:1::/32"]},
    "conditions": {"conditionsV4": ["ip ttl > 3"], "conditionsV6": ["ip6 hoplimit > 3"]},
    "rates": {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000},
    "adopted bridge": {"bridge": "br-own"},
    "adopted bridge without gateway": {"bridge": "br-own", "isGateway": False},
}


def of_kind(kind: str, number: int) -> Json:
    """A network of its own, which publishes two ports; two of one kind share the name and the bridge."""
    keys = KINDS[kind]
    which = list(KINDS).index(kind)
    ports = [port(8000 + number, 80), port(8000 + number, 53, "udp")] if keys.get("gatewayMode") != "isolated" else []
    name = f"net{which}"
    subnets = (f"10.88.{which}.0/24", f"fd00:88:{which:x}::/64")
    return network(name, *subnets, ports=ports, **{"bridge": f"br{which}", **keys})


@pytest.mark.parametrize("staying", KINDS)
def test_what_goes_takes_nothing_that_the_other_needs(host: Host, staying: str) -> None:
    host.run("ip", "link", "add", "br-own", "type", "bridge")
    host.container("c1")
    host.container("c2")
    host.rest()
    before = host.snapshot()
    stays = of_kind(staying, 1)
    ways = itertools.cycle(("DEL", "GC") if list(KINDS).index(staying) % 2 else ("GC", "DEL"))
    for going, way in zip(KINDS, ways):
        goes = of_kind(going, 2)
        if stays["name"] != goes["name"] and stays.get("bridge") == goes.get("bridge") == "br-own":
            continue  # refused: two networks on one bridge
        result = host.add(stays, "c1")
        host.add(goes, "c2")
        if way == "DEL":
            host.delete(goes, "c2")
        else:
            kept = [{"containerID": "c1", "ifname": "eth0"}]
            assert host.cni("GC", {**goes, "cni.dev/valid-attachments": kept}).status == 0
        answer = host.cni("CHECK", {**stays, "prevResult": result}, "c1")
        assert answer.words == "", f"{going}, {way}"
        told = host.command("repair", "--check").stdout
        assert told == "nothing to repair\n", f"{going}, {way}: {told}"
        host.delete(stays, "c1")
        assert host.snapshot() == before, going
