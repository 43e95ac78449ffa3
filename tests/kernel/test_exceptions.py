"""`nonMasqueradeCIDRs`: what is excepted from the masquerade, by bridge, for as long as somebody on it asks for it."""

from __future__ import annotations

import pytest
from support.scratch import Host, Json, network
from support.traffic import Server, ask, serving

MANY = [f"10.{number // 250}.{number % 250}.0/24" for number in range(500)]
WIDE, NARROW = ["10.0.0.0/8", "fd00::/16"], ["10.1.0.0/16", "192.168.0.0/16"]


def excepted(name: str, *prefixes: str, number: int = 88) -> Json:
    subnets = (f"172.16.{number}.0/24", f"fd01:{number}::/64")
    return network(name, *subnets, bridge="br-one", nonMasqueradeCIDRs=[*prefixes])


def direct(host: Host) -> list[str]:
    """The table's prefixes of br-one, without its name."""
    found = [item["concat"][1] for name in ("direct4", "direct6") for item in host.elements().get(name, [])]
    return sorted(
        f"{item['prefix']['addr']}/{item['prefix']['len']}" if isinstance(item, dict) else str(item) for item in found
    )


def test_an_excepted_destination_sees_the_container(host: Host) -> None:
    lan = host.neighbour()
    lan.run("ip", "route", "add", "172.16.0.0/12", "via", "198.51.100.1")
    lan.run("ip", "route", "add", "fd01::/16", "via", "2001:db8:100::1")
    with serving(Server(lan, 81)):
        host.add(excepted("net0", "198.51.100.0/24", "2001:db8:100::2"))
        host.add(network("net1", "172.16.89.0/24"), "c2")
        one, two = host.namespaces[-2:]
        assert ask(one, "198.51.100.2", 81) == "lan 172.16.88.2"
        assert ask(one, "2001:db8:100::2", 81) == "lan fd01:88::2"
        assert ask(two, "198.51.100.2", 81) == "lan 198.51.100.1", "a network that did not ask for it"


@pytest.mark.parametrize("first", ["wide", "narrow"])
def test_two_networks_on_one_bridge(host: Host, first: str) -> None:
    """Prefixes lie inside each other, which the kernel refuses in one set; whoever stays keeps what it asked for."""
    for name in ("wide", "narrow"):
        host.container(name)
    before = host.snapshot()
    configs = {"wide": excepted("wide", *WIDE), "narrow": excepted("narrow", *NARROW, number=89)}
    second = "narrow" if first == "wide" else "wide"
    for name in (first, second):
        host.add(configs[name], name)
    assert set(direct(host)) >= {"10.0.0.0/8", "192.168.0.0/16", "fd00::/16"}
    results = host.command("repair", "--check")
    assert results.returncode == 0, results.stdout
    host.delete(configs[first], first)
    assert set(direct(host)) >= ({"10.0.0.0/8", "fd00::/16"} if second == "wide" else {"192.168.0.0/16"})
    host.delete(configs[second], second)
    assert host.snapshot() == before


def test_many(host: Host) -> None:
    for name in ("c1", "c2", "c3"):
        host.container(name)
    before = host.snapshot()
    config = excepted("net0", *MANY)
    for name in ("c1", "c2", "c3"):
        result = host.add(config, name)
    assert len(direct(host)) == len(MANY)
    host.delete(config)
    assert len(direct(host)) == len(MANY)
    answer = host.cni("CHECK", {**config, "prevResult": result}, "c3")
    assert answer.status == 0, answer.words
    host.nft("flush set inet nftcni direct4")
    answer = host.cni("CHECK", {**config, "prevResult": result}, "c3")
    assert answer.code == 104 and "direct4 lacks" in answer.words
    assert host.command("repair").returncode == 0
    assert len(direct(host)) == len(MANY)
    host.delete(config, "c2")
    host.delete(config, "c3")
    assert host.snapshot() == before


def test_what_is_no_prefix_is_named(host: Host) -> None:
    host.container("c1")
    answer = host.refused("ADD", excepted("net0", "10.0.0.0/8", "10.0.0.0/33"))
    assert answer.code == 7 and 'nonMasqueradeCIDRs[1]: "10.0.0.0/33"' in answer.words
