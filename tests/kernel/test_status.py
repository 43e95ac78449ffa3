"""More of STATUS: whose forward chains count, what is exhausted with several ranges, what a fresh host may lack.

The plain cases, and GC's, are test_status_gc; a foreign `ipam.type` is test_delegation.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.scratch import Answer, Host, Json, network

DUAL = ("10.88.0.0/24", "fd00:88::/64")
READY, CANNOT, DEGRADED = 0, 50, 51
CHAIN = "table {} foreign {{\n chain fw {{\n type filter hook forward priority {}; policy {};\n {}\n }}\n}}"


def status(host: Host, config: Json) -> Answer:
    before = host.snapshot()
    answer = host.cni("STATUS", config, container="", netns="", ifname="")
    assert (answer.stdout == "") == (answer.status == 0)
    assert "Traceback" not in answer.stdout + answer.stderr
    assert host.snapshot() == before
    return answer


# family, priority, policy, rule, code for a network of IPv4, of IPv6
FOREIGN: list[tuple[str, str, str, str, int, int]] = [
    ("ip", "filter", "drop", "", DEGRADED, READY),
    ("ip6", "filter", "drop", "", READY, DEGRADED),
    ("inet", "filter", "drop", "", DEGRADED, DEGRADED),
    ("inet", "10", "drop", "", DEGRADED, DEGRADED),
    ("inet", "-10", "drop", "", DEGRADED, DEGRADED),
    ("inet", "filter", "accept", "", READY, READY),
    ("inet", "filter", "accept", "ct state invalid drop", READY, READY),
    ("bridge", "filter", "accept", "", READY, READY),
    ("arp", "filter", "drop", "", READY, READY),
]


@pytest.mark.parametrize(("family", "priority", "policy", "rule", "four", "six"), FOREIGN)
def test_whose_forward_chain_counts(
    host: Host, family: str, priority: str, policy: str, rule: str, four: int, six: int
) -> None:
    if family == "arp":
        host.nft("table arp foreign {\n chain fw {\n type filter hook input priority filter; policy drop;\n }\n}")
    else:
        host.nft(CHAIN.format(family, priority, policy, rule))
    for subnet, code in ((DUAL[0], four), (DUAL[1], six)):
        answer = status(host, network("net0", subnet))
        assert answer.code == code, answer.words
        if code:
            assert "foreign" in answer.words and "fw" in answer.words and "drop" in answer.words


def test_all_reasons_of_a_degraded_host_are_given(host: Host) -> None:
    host.add(network("net0", *DUAL))
    host.set_sysctl("ipv4/ip_forward", "0")
    host.set_sysctl("ipv6/conf/all/forwarding", "0")
    answer = status(host, network("net0", *DUAL))
    assert answer.code == DEGRADED
    assert "ip_forward" in answer.words and "ipv6/conf/all/forwarding" in answer.words


def test_forwarding_off_on_a_fresh_host_is_ready(host: Host) -> None:
    """ADD switches it on, so nothing is amiss before the first one."""
    assert host.sysctl("ipv4/ip_forward") == "0"
    assert status(host, network("net0", *DUAL)).code == READY


def test_forwarding_off_hurts_no_network_without_a_gateway(host: Host) -> None:
    config = network("net0", isGateway=False)
    host.add(config)
    assert host.sysctl("ipv4/ip_forward") == "0"
    assert status(host, config).code == READY


def ranges(*sets: list[tuple[str, str, str]]) -> Any:
    return [[{"subnet": net, "rangeStart": start, "rangeEnd": end} for net, start, end in pools] for pools in sets]


def test_a_set_is_exhausted_when_all_of_its_ranges_are(host: Host) -> None:
    pools = [("10.88.0.0/24", "10.88.0.9", "10.88.0.9"), ("10.89.0.0/24", "10.89.0.9", "10.89.0.9")]
    config = network(ipam={"ranges": ranges(pools)})
    for name in ("c1", "c2"):
        assert status(host, config).code == READY
        host.add(config, name)
    answer = status(host, config)
    assert answer.code == CANNOT
    assert "10.88.0.9" in answer.words and "10.89.0.9" in answer.words


def test_one_exhausted_set_of_two_is_enough(host: Host) -> None:
    config = network(ipam={"ranges": ranges([("10.88.0.0/24", "10.88.0.2", "10.88.0.200")])})
    config["ipam"]["ranges"] += ranges([("fd00:88::/64", "fd00:88::5", "fd00:88::5")])
    host.add(config)
    answer = status(host, config)
    assert answer.code == CANNOT and "fd00:88::5" in answer.words and "10.88.0" not in answer.words


def test_addresses_of_another_network_exhaust_a_shared_range(host: Host) -> None:
    """An address is the host's, whichever network has it."""
    tiny = {"ranges": ranges([("10.88.0.0/24", "10.88.0.2", "10.88.0.2")])}
    host.add(network("one", bridge="br0", ipam=tiny))
    assert status(host, network("two", bridge="br0", ipam=tiny)).code == CANNOT


def test_the_two_ways_back_to_ready_that_the_message_names(host: Host) -> None:
    config = network("net0", *DUAL)
    host.add(config)
    host.nft("flush ruleset")
    host.set_sysctl("ipv4/ip_forward", "0")
    answer = status(host, config)
    assert answer.code == DEGRADED and "nftcni repair" in answer.words
    assert "table inet nftcni" in answer.words and "ip_forward" in answer.words
    assert host.command("repair").returncode == 0
    assert status(host, config).code == READY
