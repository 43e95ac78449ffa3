"""`nftcni repair`, `list`, `doctor`: a flushed table comes back whole, in one transaction, and traffic passes again."""

from __future__ import annotations

import json
import os
import re
from typing import Callable

import pytest
from support.scratch import Answer, Host, Json, network, port
from support.traffic import Server, ask, serving

DUAL = ("10.88.0.0/24", "fd00:88::/64")
CONFIG = network("net0", *DUAL, ports=[port(8080, 80), port(53, 53, "udp", "127.0.0.1")])


@pytest.fixture
def attached(host: Host) -> Host:
    host.neighbour()
    host.add(CONFIG)
    host.add(network("net1", "10.89.0.0/24", isolation=False), "c2")
    return host


def serves(host: Host) -> None:
    container = next(item for item in host.namespaces if item.name == "c1")
    lan = next(item for item in host.namespaces if item.name == "lan")
    with Server(container, 80):
        assert ask(lan, "198.51.100.1", 8080) == "c1 198.51.100.2"
        assert ask(host, "127.0.0.1", 8080) == "c1 10.88.0.1"
        assert ask(lan, "2001:db8:100::1", 8080) == "c1 2001:db8:100::2"


def port_link(host: Host) -> str:
    return next(str(item["ifname"]) for item in host.links() if item["master"] == "br-net0")


BREAKS: dict[str, tuple[Callable[[Host], object], str]] = {
    "ruleset-flushed": (lambda host: host.nft("flush ruleset"), "table inet nftcni is missing"),
    "table-deleted": (lambda host: host.nft("delete table inet nftcni"), "table inet nftcni is missing"),
    "elements-flushed": (lambda host: host.nft("flush map inet nftcni dnat4"), "8080"),
    "element-altered": (
        lambda host: host.nft(
            "delete element inet nftcni dnat4 { tcp . 8080 }\n"
            'add element inet nftcni dnat4 { tcp . 8080 comment "net0/c1/eth0" : 10.88.0.99 . 80 }'
        ),
        "10.88.0.99",
    ),
    "chain-flushed": (lambda host: host.nft("flush chain inet nftcni portmap"), "rules"),
    "rule-inserted": (lambda host: host.nft("insert rule inet nftcni filter_forward drop"), "rules"),
    "hairpin-off": (
        lambda host: host.run("bridge", "link", "set", "dev", port_link(host), "hairpin", "off"),
        "hairpin",
    ),
    "forwarding-off": (lambda host: host.set_sysctl("ipv4/ip_forward", "0"), "ip_forward"),
    "route-localnet-off": (lambda host: host.set_sysctl("ipv4/conf/br-net0/route_localnet", "0"), "route_localnet"),
    "gateway-gone": (lambda host: host.run("ip", "addr", "del", "10.88.0.1/24", "dev", "br-net0"), "10.88.0.1/24"),
    "bridge-down": (lambda host: host.run("ip", "link", "set", "br-net0", "down"), "br-net0"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_repair_restores(attached: Host, name: str) -> None:
    elements, links = attached.elements(), attached.links()
    break_it, words = BREAKS[name]
    break_it(attached)
    ruleset = attached.run("nft", "-j", "list", "ruleset")
    check = attached.command("repair", "--check")
    assert check.returncode == 1 and words in check.stdout, check.stdout
    assert attached.run("nft", "-j", "list", "ruleset") == ruleset, "--check changes nothing"
    done = attached.command("repair")
    assert done.returncode == 0, done.stdout
    assert "restored net0/c1/eth0" in done.stdout and "restored net1/c2/eth0" in done.stdout
    assert (attached.elements(), attached.links()) == (elements, links)
    serves(attached)
    again = attached.command("repair")
    assert (again.returncode, again.stdout) == (0, "nothing to repair\n")


def test_repair_is_one_transaction(attached: Host) -> None:
    """No packet finds half a table: the ruleset's generation moves by one."""
    attached.nft("delete table inet nftcni")

    with attached.popen("nft", "monitor", stdout=-1) as monitor:
        try:
            assert attached.command("repair").returncode == 0
            attached.nft("add table inet end")
        finally:
            monitor.terminate()
        out = monitor.communicate(timeout=10)[0]
    own = out.split("add table inet end")[0]
    assert own.count("# new generation") == 1, own[-500:]
    assert "tcp . 8080" in own


def test_a_healthy_host_needs_no_repair(attached: Host) -> None:
    before = attached.snapshot()
    for words in (("repair",), ("repair", "--check")):
        assert attached.command(*words).returncode == 0
    assert attached.snapshot() == before


def test_nothing_attached_is_nothing_to_repair(host: Host) -> None:
    done = host.command("repair")
    assert (done.returncode, done.stdout) == (0, "nothing to repair\n")


def test_repair_passes_over_containers_that_are_gone(attached: Host) -> None:
    """Their links went with the namespace; DEL or GC takes the rest, not repair."""
    attached.run("ip", "link", "del", port_link(attached))
    attached.nft("flush ruleset")
    done = attached.command("repair")
    assert "restored net1/c2/eth0" in done.stdout
    attached.delete(CONFIG)
    assert attached.command("repair", "--check").returncode == 0


def test_the_next_add_restores_everybody(attached: Host) -> None:
    elements = attached.elements()
    attached.nft("flush ruleset")
    attached.add(network("net0", *DUAL), "c3")
    now = attached.elements()
    for name, items in elements.items():
        assert all(item in now[name] for item in items), name
    serves(attached)


def test_list_for_people_and_programs(attached: Host) -> None:
    text = attached.command("list").stdout
    (line,) = [line for line in text.splitlines() if "net0/c1/eth0" in line]
    assert all(
        word in line for word in ("br-net0", "10.88.0.2/24", "fd00:88::2/64", "8080/tcp->80", "127.0.0.1:53/udp->53")
    )
    records = json.loads(attached.command("list", "--json").stdout)
    assert [item["container"] for item in records] == ["c1", "c2"]


def test_doctor_is_content_with_a_healthy_host(attached: Host) -> None:
    c1, c2 = (attached.place(name) for name in ("c1", "c2"))
    ports = [(c1, 80, "tcp"), (c1, 53, "udp"), (c2, 80, "tcp"), (c2, 53, "udp")]
    with serving(*(Server(place, number, protocol) for place, number, protocol in ports)):
        done = attached.command("doctor")
    assert done.returncode == 0 and "2 attachments, all well" in done.stdout, done.stdout


AILMENTS: dict[str, tuple[Callable[[Host], object], str, str]] = {
    "forward-drop": (
        lambda host: host.nft(
            "table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n }\n}"
        ),
        "ip filter",
        "-i br-net0",
    ),
    "forwarding": (lambda host: host.set_sysctl("ipv4/ip_forward", "0"), "ip_forward", "sysctl -w"),
    "table": (lambda host: host.nft("flush ruleset"), "missing", "nftcni repair"),
    "overlap": (lambda host: host.run("ip", "addr", "add", "10.88.0.200/24", "dev", "to-lan"), "10.88.0.200", "net0"),
}


@pytest.mark.parametrize("name", AILMENTS)
def test_doctor_finds_and_says_what_to_do(attached: Host, name: str) -> None:
    break_it, finding, remedy = AILMENTS[name]
    break_it(attached)
    before = attached.snapshot()
    done = attached.command("doctor")
    assert done.returncode == 1 and finding in done.stdout and remedy in done.stdout, done.stdout
    assert attached.snapshot() == before


@pytest.mark.parametrize("words", [("lsit",), ("list", "--xml"), ("repair", "a", "b"), ("--verbose",)])
def test_unknown_words_get_the_usage(host: Host, words: tuple[str, ...]) -> None:
    done = host.command(*words)
    assert (done.returncode, done.stdout) == (2, "") and "usage: nftcni" in done.stderr


def test_help_and_version(host: Host) -> None:
    assert "usage: nftcni" in host.command("--help").stdout
    assert re.fullmatch(r"nftcni \d+\.\d+\.\d+\n", host.command("--version").stdout)


def rules(host: Host) -> list[Json]:
    """Of all chains, in their order."""
    listed = host.json("nft", "-j", "list", "table", "inet", "nftcni")["nftables"]
    found = [item["rule"] for item in listed if "rule" in item]
    return [{key: value for key, value in rule.items() if key != "handle"} for rule in found]


FLUSHES = {"a chain": "flush chain inet nftcni portmap", "the table": "flush table inet nftcni"}


@pytest.mark.parametrize("state", ["kept", "lost"])
@pytest.mark.parametrize("flush", FLUSHES.values(), ids=FLUSHES)
def test_rules_that_were_flushed_are_noticed_and_mended(attached: Host, flush: str, state: str) -> None:
    """All sets are as they were, so nothing but the rules tells. With the state lost their digest was lost, too."""
    before = rules(attached)
    if state == "lost":
        attached.run("rm", "-rf", "/run/nftcni")
    result = attached.add(CONFIG, netns="/run/netns/c1")
    attached.nft(flush)
    assert rules(attached) != before
    check = attached.cni("CHECK", {**CONFIG, "prevResult": result})
    assert check.code == 104 and "rules" in check.words, check.stdout
    answer = attached.cni("STATUS", CONFIG)
    assert answer.code == 51 and "rules" in answer.words, answer.stdout
    done = attached.command("repair")
    assert done.returncode == 0 and "rules" in done.stdout, done.stdout
    assert rules(attached) == before
    assert attached.cni("CHECK", {**CONFIG, "prevResult": result}).words == ""
    assert attached.cni("STATUS", CONFIG).status == 0
    serves(attached)


@pytest.mark.parametrize("flush", FLUSHES.values(), ids=FLUSHES)
def test_rules_that_were_flushed_before_anybody_saw_the_lost_state(attached: Host, flush: str) -> None:
    """What is noted then as the digest of our rules has to be that of ours."""
    before = rules(attached)
    attached.run("rm", "-rf", "/run/nftcni")
    attached.nft(flush)
    assert attached.command("repair").returncode == 0
    assert rules(attached) == before
    serves(attached)


@pytest.mark.parametrize("flush", FLUSHES.values(), ids=FLUSHES)
def test_an_add_that_is_repeated_mends_flushed_rules(attached: Host, flush: str) -> None:
    before, elements = rules(attached), attached.elements()
    result = attached.add(CONFIG, netns="/run/netns/c1")
    attached.nft(flush)
    assert attached.add(CONFIG, netns="/run/netns/c1") == result
    assert (rules(attached), attached.elements()) == (before, elements)
    serves(attached)


ON_TWO = [network(name, f"10.{number}.0.0/24", ports=[port(8080, 80)]) for number, name in ((1, "a"), (2, "b"))]


def wait_in_vain(host: Host) -> Json:
    """The second network's result, of a container where it waits for a port that nobody publishes any more, as a kill
    while it was handed over used to leave it. Made by hand: the port is the second's, then it goes back to waiting."""
    for number, config in enumerate(ON_TWO):
        result = host.add(config, ifname=f"eth{number}")
    host.delete(ON_TWO[0], ifname="eth0")
    (folder,) = [path for path in host.file("/run/nftcni").iterdir() if "." in path.name]
    record, claim = folder / "attachments/b/c1@eth1", folder / "ports/tcp-8080"
    document = json.loads(record.read_text())
    assert document["mappings"] and not document["standby"] and os.readlink(claim) == "0.0.0.0=b/c1/eth1"
    document.update(mappings=[], standby=document["mappings"])
    record.write_text(json.dumps(document))
    claim.unlink()
    claim.symlink_to("?0.0.0.0=b/c1/eth1")
    host.nft("delete element inet nftcni dnat4 { tcp . 8080 }")
    with Server(host.place("c1"), 80):
        assert ask(host, "127.0.0.1", 8080) == "refused"
    return result


def test_a_port_that_waits_in_vain_is_told_and_mended(host: Host) -> None:
    result = wait_in_vain(host)

    def check() -> Answer:
        return host.cni("CHECK", {**ON_TWO[1], "prevResult": result}, ifname="eth1")

    assert check().code == 104 and "8080" in check().words
    told = host.command("repair", "--check")
    assert told.returncode == 1 and "8080" in told.stdout and "b/c1/eth1" in told.stdout
    done = host.command("repair")
    assert done.returncode == 0 and "0 problems remain" in done.stdout, done.stdout
    with Server(host.place("c1"), 80):
        assert ask(host, "127.0.0.1", 8080) == "c1 10.2.0.1"
    assert check().words == ""
    assert host.command("repair", "--check").returncode == 0
    host.delete(ON_TWO[1], ifname="eth1")
    assert host.elements() == {} and host.state_files() == []


def test_a_port_that_waits_for_another_is_no_problem(host: Host) -> None:
    """As long as that one has it."""
    results = [host.add(config, ifname=f"eth{number}") for number, config in enumerate(ON_TWO)]
    for number, config in enumerate(ON_TWO):
        assert host.cni("CHECK", {**config, "prevResult": results[number]}, ifname=f"eth{number}").words == ""
    assert host.command("repair", "--check").returncode == 0


def test_a_lease_that_was_lost_is_taken_again(attached: Host) -> None:
    """It was told, `repair` was the remedy, and told it again; the address could have been given to another one."""
    (lease,) = attached.file("/run/nftcni").glob("*/leases/10.88.0.2*")
    lease.unlink()
    assert "10.88.0.2 is leased to nobody" in attached.command("repair", "--check").stdout
    assert attached.command("repair").returncode == 0
    assert attached.command("repair", "--check").stdout == "nothing to repair\n"
    assert attached.add(network("net0", *DUAL), "another")["ips"][0]["address"] == "10.88.0.3/24"
