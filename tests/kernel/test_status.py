"""More of STATUS: whose forward chains count, what is exhausted with several ranges, what a fresh host may lack.

The plain cases, and GC's, are test_status_gc; a foreign `ipam.type` is test_delegation.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.scratch import PLUGIN, Answer, Host, Json, network

DUAL = ("10.88.0.0/24", "fd00:88::/64")
READY, CANNOT, DEGRADED = 0, 50, 51
PATIENCE = 20  # seconds until a test gives up; what it takes is a fraction of one
CHAIN = "table {} foreign {{\n chain fw {{\n type filter hook forward priority {}; policy {};\n {}\n }}\n}}"


@pytest.fixture
def impatient(tmp_path: Path) -> str:
    """The plugin, killed if it waits for what does not come: the test fails then, and does not wait with it."""
    script = tmp_path / "nftcni"
    script.write_text(f'#!/bin/sh\nexec timeout --signal=KILL {PATIENCE} {PLUGIN} "$@"\n')
    script.chmod(0o755)
    return str(script)


def status(host: Host, config: Json, plugin: str = PLUGIN) -> Answer:
    before = host.snapshot()
    answer = host.cni("STATUS", config, container="", netns="", ifname="", plugin=plugin)
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


FIREWALLD = """table inet firewalld {{
    set mine {{ type ipv4_addr; flags interval; elements = {{ 10.88.0.0/24 }} }}
    chain filter_FORWARD {{
        type filter hook forward priority filter + 10; policy accept;
        ct state {{ established, related }} accept
        ct status dnat accept
        {seen_to}
        {last}
    }}
}}"""


@pytest.mark.parametrize("last", ["reject with icmpx admin-prohibited", "counter log drop", "drop"])
@pytest.mark.parametrize(
    ("seen_to", "code"),
    [
        ("", DEGRADED),
        ('iifname "eth0" accept', DEGRADED),
        ("ip saddr 10.77.0.0/24 accept", DEGRADED),
        ('iifname { "br-net0", "br-x" } accept', READY),
        ("ip saddr 10.88.0.0/24 accept", READY),
        ("ip saddr 10.88.0.0/25 accept", READY),
        ("ip saddr 10.88.0.7 accept", READY),
        ("ip saddr 10.88.0.0/16 accept", READY),
        ("ip saddr @mine accept", READY),
    ],
)
def test_a_last_rule_that_takes_all_is_a_policy(host: Host, seen_to: str, code: int, last: str) -> None:
    """firewalld's, which doctor tells of. Who is let through by a zone of theirs has been seen to."""
    text = FIREWALLD.format(seen_to=seen_to, last=last)
    host.nft(text if "@mine" in seen_to else text.replace("elements = { 10.88", "elements = { 10.66"))
    answer = status(host, network("net0", DUAL[0]))
    assert answer.code == code, answer.words
    if code:
        assert "inet firewalld filter_FORWARD" in answer.words and "nftcni doctor" in answer.words


@pytest.mark.parametrize(
    "last", ["tcp dport 80 drop", "ct state invalid reject", "accept", "counter", "jump somewhere"]
)
def test_a_last_rule_that_takes_some_is_none(host: Host, last: str) -> None:
    text = FIREWALLD.format(seen_to="", last=last).replace("10.88.0.0/24", "10.66.0.0/24")
    host.nft(text.replace("chain filter_FORWARD", "chain somewhere { drop; }\n chain filter_FORWARD"))
    assert status(host, network("net0", DUAL[0])).code == READY


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


@pytest.mark.parametrize("kind", ["isolated", "isolated IPv6", "uplink"])
def test_forwarding_off_hurts_nobody_who_needs_none(host: Host, kind: str) -> None:
    """And a forward chain that drops does not, either, where nothing is forwarded at all."""
    keys: dict[str, Any] = {
        "isolated": {"gatewayMode": "isolated"},
        "isolated IPv6": {"gatewayModeIPv6": "isolated"},
    }.get(kind, {})
    subnets = DUAL
    if kind == "uplink":
        host.neighbour()
        for words in ("add br-net0 type bridge", "set br-net0 up", "set to-lan master br-net0"):
            host.run("ip", "link", *words.split())
        host.run("ip", "addr", "add", "192.0.2.10/24", "dev", "br-net0")
        host.run("ip", "route", "add", "default", "via", "192.0.2.1")
        subnets = ("192.0.2.0/24",)
    config = network("net0", *subnets, **keys)
    if kind == "uplink":
        config["ipam"]["ranges"][0][0].update(gateway="192.0.2.1", rangeStart="192.0.2.200")
    host.add(config)
    assert "0" in (host.sysctl("ipv4/ip_forward"), host.sysctl("ipv6/conf/all/forwarding"))
    assert status(host, config).code == READY
    if kind == "isolated":
        host.nft(CHAIN.format("inet", "filter", "drop", ""))
        assert status(host, config).code == READY
    host.add(network("other", "10.89.0.0/24"), "c2")
    host.set_sysctl("ipv4/ip_forward", "0")
    assert status(host, network("other", "10.89.0.0/24")).code == DEGRADED


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


# Somebody has seen to the containers: rules that name their bridge, in the table whose chain drops

ACCEPTING = """table {family} filter {{
    chain DOCKER-USER {{
        iifname "{bridge}" counter accept
        oifname "{bridge}" counter accept
    }}
    chain FORWARD {{
        type filter hook forward priority filter; policy drop;
        jump DOCKER-USER
    }}
}}"""


def doctor(host: Host, plugin: str = PLUGIN) -> tuple[int, str]:
    done = host.call(plugin, "doctor")
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("family", ["ip", "inet"])
def test_a_drop_with_rules_for_the_bridge_is_seen_to(host: Host, family: str, attached: bool) -> None:
    """As iptables-nft writes it, and as doctor advises. Before the first container it is the network's bridge."""
    config = network("net0", *DUAL, bridge=None if not attached else "br-net0")
    bridge = config.get("bridge", "nftcni0")
    host.nft(ACCEPTING.format(family=family, bridge="br-elsewhere"))
    assert status(host, config).code == DEGRADED
    if attached:
        host.add(config)
        assert status(host, config).code == DEGRADED
    code, text = doctor(host)
    assert code == 1 and f"chain FORWARD of table {family} filter" in text and bridge in text, text
    host.nft(f'insert rule {family} filter DOCKER-USER iifname "{bridge}" accept')
    assert status(host, config).code == READY
    assert doctor(host)[0] == 1, "one direction is not both"
    host.nft(f'insert rule {family} filter DOCKER-USER oifname "{bridge}" accept')
    code, text = doctor(host)
    assert code == 0 and "all well" in text, text


@pytest.mark.parametrize(
    "words",
    [
        "iptables",
        'iifname { "br-net0", "br-x" } accept',
        'iifname "br-*" accept',
        'iifname { "br-*" } accept',
        'iifname . ip saddr { "br-net0" . 10.88.0.2 } accept',
        'iifname vmap { "eth0" : drop, "br-net0" : accept }',
    ],
)
def test_a_rule_for_the_bridge_in_another_form_counts(host: Host, words: str) -> None:
    """iptables-nft, and with it ufw, compares the name and its NUL alone; a set has it as an element."""
    if words == "iptables" and not shutil.which("iptables-nft"):
        pytest.skip("NOT RUN: needs iptables-nft of the package iptables")
    host.add(network("net0", DUAL[0]))
    host.nft("table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n }\n}")
    assert status(host, network("net0", DUAL[0])).code == DEGRADED
    if words == "iptables":
        host.run("iptables-nft", "-I", "FORWARD", "-i", "br-net0", "-j", "ACCEPT")
    else:
        host.nft(f"insert rule ip filter FORWARD {words}")
    assert status(host, network("net0", DUAL[0])).code == READY


@pytest.mark.parametrize(
    "words",
    [
        "ip saddr { 98.114.45.110, 10.0.0.1 } accept",
        'iifname { "br-net1", "br-ne" } accept',
        'iifname { "eth*" } accept',
        'iifname "bz*" accept',
    ],
)
def test_a_rule_for_something_else_does_not_count(host: Host, words: str) -> None:
    """The address is "br-n" to who looks at bytes alone."""
    host.add(network("net0", DUAL[0]))
    host.nft("table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n }\n}")
    host.nft(f"insert rule ip filter FORWARD {words}")
    assert status(host, network("net0", DUAL[0])).code == DEGRADED


@pytest.mark.parametrize("name", ["br-net", "br-net01", "Br-net0"])
def test_a_rule_for_a_bridge_of_a_similar_name_does_not_count(host: Host, name: str) -> None:
    host.add(network("net0", *DUAL))
    host.nft(ACCEPTING.format(family="inet", bridge=name))
    answer = status(host, network("net0", *DUAL))
    assert answer.code == DEGRADED and "inet filter FORWARD" in answer.words
    assert doctor(host)[0] == 1


@pytest.mark.parametrize("place", ["another table", "another family"])
def test_a_rule_elsewhere_does_not_count(host: Host, place: str) -> None:
    """No other table can overrule a drop."""
    table = "ip6 filter" if place == "another family" else "ip other"
    host.add(network("net0", DUAL[0]))
    host.nft(ACCEPTING.format(family="ip", bridge="br-elsewhere"))
    rule = 'iifname "br-net0" accept'
    host.nft(f"table {table} {{\n chain c {{\n type filter hook forward priority -5;\n {rule}\n }}\n}}")
    answer = status(host, network("net0", DUAL[0]))
    assert answer.code == DEGRADED and "ip filter FORWARD" in answer.words


@pytest.mark.parametrize("seen_to", [[], [0], [1, 2], [0, 1, 2]], ids=str)
def test_several_dropping_chains_are_all_named(host: Host, impatient: str, seen_to: list[int]) -> None:
    """A listing of rules inside the listing of chains used to wait for ever for an answer that was not to come."""
    host.add(network("net0", *DUAL))
    for number in range(3):
        bridge = "br-net0" if number in seen_to else "br-elsewhere"
        host.nft(ACCEPTING.format(family="inet", bridge=bridge).replace("filter {", f"fire{number} {{"))
    answer = status(host, network("net0", *DUAL), impatient)
    named = [f"inet fire{number} FORWARD" for number in range(3) if number not in seen_to]
    assert answer.code == (DEGRADED if named else READY)
    text = doctor(host, impatient)[1]
    for number in range(3):
        words = f"inet fire{number} FORWARD"
        assert (words in answer.words, words in text) == (words in named, words in named)


def test_several_dropping_chains_of_one_table(host: Host, impatient: str) -> None:
    chain = " chain c{} {{\n type filter hook forward priority {}; policy drop;\n }}\n"
    host.nft("table inet fire {\n" + "".join(chain.format(n, n) for n in range(3)) + "}")
    answer = status(host, network("net0", *DUAL), impatient)
    assert answer.code == DEGRADED and all(f"inet fire c{n}" in answer.words for n in range(3))


def test_hundreds_of_rules_are_no_reason_to_stop(host: Host, impatient: str) -> None:
    """More than one datagram holds, with the one that counts at the end."""
    host.add(network("net0", *DUAL))
    rules = "\n".join(f"ip daddr 10.0.{n // 250}.{n % 250} counter accept" for n in range(2000))
    for number in range(2):
        text = ACCEPTING.format(family="inet", bridge="br-net0").replace("filter {", f"fire{number} {{")
        host.nft(text.replace("iifname", f"{rules}\niifname", 1))
    assert status(host, network("net0", *DUAL), impatient).code == READY
    host.nft("table inet last {\n chain c {\n type filter hook forward priority 0; policy drop;\n }\n}")
    answer = status(host, network("net0", *DUAL), impatient)
    assert answer.code == DEGRADED and "inet last c" in answer.words and "fire" not in answer.words


@pytest.mark.parametrize("place", ["rule", "set"])
@pytest.mark.parametrize(
    ("subnet", "inside", "outside"),
    [
        ("10.88.0.0/24", "10.88.0.7", "10.66"),
        ("172.16.0.0/12", "172.17.3.4", "192.16"),
        ("fd00:88::/64", "fd00:88::/64", "fd00:66::"),
    ],
)
def test_an_address_of_the_network_among_thousands_is_found(
    host: Host, impatient: str, place: str, subnet: str, inside: str, outside: str
) -> None:
    """What holds neither the first bytes of a bridge's name nor those of an address is passed over."""
    ip, kind = ("ip6", "ipv6_addr") if ":" in subnet else ("ip", "ipv4_addr")
    many = [f"{outside}{n:x}" if ":" in subnet else f"{outside}.{n // 250}.{n % 250}" for n in range(3000)]
    chain = " chain c {{\n type filter hook forward priority 0; policy drop;\n{rules}\n }}\n"
    others = f" set others {{\n type {kind}; flags interval;\n elements = {{ {', '.join(many)} }}\n }}\n"
    rules = "" if place == "set" else "\n".join(f"{ip} saddr {one} accept" for one in many)
    host.nft(f"table inet before {{\n{others if place == 'set' else ''}{chain.format(rules=rules)}}}\n")
    config = network("net0", subnet)
    assert status(host, config, impatient).code == DEGRADED
    if place == "set":
        host.nft(f"add element inet before others {{ {inside} }}")
    else:
        host.nft(f"add rule inet before c {ip} saddr {inside} accept")
    assert status(host, config, impatient).code == READY


def test_a_dropping_chain_among_thousands_is_found(host: Host, impatient: str) -> None:
    """kube-proxy has chains for each service. Datagrams without a base chain are passed over."""
    host.add(network("net0", *DUAL))
    many = "".join(f" chain svc{n} {{\n }}\n" for n in range(3000))
    host.nft(f"table inet before {{\n{many}}}\n")
    assert status(host, network("net0", *DUAL), impatient).code == READY
    drop = " chain c {\n type filter hook forward priority 0; policy drop;\n }\n"
    host.nft(f"table inet middle {{\n{many}{drop}}}\ntable inet after {{\n{many}}}\n")
    answer = status(host, network("net0", *DUAL), impatient)
    assert answer.code == DEGRADED and "inet middle c" in answer.words
