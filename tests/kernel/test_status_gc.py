"""STATUS: ready or not, with the reason. GC: what is not on the runtime's list goes, and nothing of anybody else's."""

from __future__ import annotations

from typing import Any

import pytest
from support.scratch import Host, network, port

DUAL = ("10.88.0.0/24", "fd00:88::/64")
DROP = "table ip filter {{\n chain {} {{\n type filter hook {} priority 0; policy {};\n }}\n}}"


def test_a_fresh_host_is_ready(host: Host) -> None:
    before = host.snapshot()
    answer = host.cni("STATUS", network("net0", *DUAL), container="", ifname="", netns="")
    assert (answer.status, answer.stdout) == (0, "")
    assert host.snapshot() == before


def test_a_host_with_containers_is_ready(host: Host) -> None:
    host.add(network("net0", *DUAL))
    assert host.cni("STATUS", network("net0", *DUAL)).status == 0


@pytest.mark.parametrize("subnet", ["10.88.0.0/29", "fd00:88::/125"])
def test_an_exhausted_pool_is_not_ready(host: Host, subnet: str) -> None:
    config = network("net0", subnet)
    size = 5 if "." in subnet else 6
    for number in range(size):
        assert host.cni("STATUS", config).status == 0
        host.add(config, f"c{number}")
    answer = host.cni("STATUS", config)
    assert answer.code == 50 and subnet in answer.words and str(size) in answer.words
    host.delete(config, "c0")
    assert host.cni("STATUS", config).status == 0


@pytest.mark.parametrize(
    ("key", "words"),
    [("ipv4/ip_forward", "ip_forward"), ("ipv6/conf/all/forwarding", "ipv6/conf/all/forwarding")],
)
def test_forwarding_off_degrades(host: Host, key: str, words: str) -> None:
    host.add(network("net0", *DUAL))
    host.set_sysctl(key, "0")
    answer = host.cni("STATUS", network("net0", *DUAL))
    assert answer.code == 51 and words in answer.words and "repair" in answer.words


def test_a_missing_table_degrades(host: Host) -> None:
    host.add(network())
    host.nft("flush ruleset")
    answer = host.cni("STATUS", network())
    assert answer.code == 51 and "table inet nftcni" in answer.words and "repair" in answer.words


@pytest.mark.parametrize(
    ("hook", "policy", "code"),
    [("forward", "drop", 51), ("forward", "accept", 0), ("input", "drop", 0)],
)
def test_somebody_elses_forward_policy(host: Host, hook: str, policy: str, code: int) -> None:
    host.nft(DROP.format("FORWARD", hook, policy))
    answer = host.cni("STATUS", network())
    assert answer.code == code
    if code:
        assert "ip filter FORWARD" in answer.words and "doctor" in answer.words


def stale(host: Host, config: Any, valid: list[tuple[str, str]], key: str = "cni.dev/valid-attachments") -> Any:
    entries = [{"containerID": container, "ifname": ifname} for container, ifname in valid]
    return host.cni("GC", {**config, key: entries})


def attached(host: Host) -> list[str]:
    return sorted(path.split("/attachments/")[1] for path in host.state_files() if "/attachments/" in path)


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_gc_takes_what_is_not_on_the_list(host: Host, key: str) -> None:
    config = network("net0", *DUAL, isDefaultGateway=False)
    for number in range(3):
        with_port = {
            **config,
            "runtimeConfig": {"portMappings": [port(8080 + number, 80), port(53 + number, 53, "udp")]},
        }
        host.add(with_port, f"c{number}")
    host.add(config, "c1", ifname="eth1")
    answer = stale(host, config, [("c1", "eth0"), ("gone", "eth0")], key)
    assert (answer.status, answer.stdout) == (0, "")
    assert attached(host) == ["net0/c1@eth0"]
    assert {item["elem"]["comment"] for item in host.elements()["attachments"]} == {"net0/c1/eth0"}
    assert len([item for item in host.links() if item["master"] == "br-net0"]) == 1


def test_an_empty_list_takes_all_and_leaves_the_host_as_it_was(host: Host) -> None:
    config = network("net0", *DUAL, ports=[port(8080, 80), port(53, 53, "udp")])
    for name in ("c1", "c2"):
        host.container(name)
    before = host.snapshot()
    host.add(config)
    host.add(network("net0", *DUAL), "c2")
    for _ in range(2):
        assert stale(host, config, []).status == 0
        assert host.snapshot() == before


def test_without_a_list_nothing_goes(host: Host) -> None:
    """cnitool sends none. Absent is not empty."""
    host.add(network())
    answer = host.refused("GC", network())
    assert answer.code == 7 and "cni.dev/valid-attachments" in answer.words


@pytest.mark.parametrize("entries", ["all", [5], [{"containerID": "c1"}], [{"ifname": "eth0"}], {}])
def test_a_list_that_is_none(host: Host, entries: Any) -> None:
    host.add(network())
    assert host.refused("GC", {**network(), "cni.dev/valid-attachments": entries}).code == 7


def test_other_networks_are_not_touched(host: Host) -> None:
    """Networks with names that begin alike, on one bridge and on their own."""
    for name in ("net0", "net0.b", "net01"):
        host.add(network(name, bridge="br0", isolation=False), f"c-{name}")
    host.add(network("net", "10.89.0.0/24", bridge="br1"), "c-net")
    assert stale(host, network("net0", bridge="br0", isolation=False), []).status == 0
    assert attached(host) == ["net/c-net@eth0", "net0.b/c-net0.b@eth0", "net01/c-net01@eth0"]
    assert host.link("br0") is not None and host.link("br1") is not None


def test_gc_with_state_lost_works_from_the_table(host: Host) -> None:
    config = network("net0", *DUAL, ports=[port(8080, 80)])
    host.container("c1")
    before = host.snapshot()
    host.add(config)
    host.run("rm", "-rf", "/run/nftcni")
    assert stale(host, config, []).status == 0
    assert host.snapshot() == before
