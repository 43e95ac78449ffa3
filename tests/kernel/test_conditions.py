"""`conditionsV4` and `conditionsV6`: which packets a published port is for, by sockets that do and do not match."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.scratch import CHECKOUT, Host, Json, Namespace, network, port
from support.traffic import Server, ask

DUAL = ("10.88.0.0/24", "fd00:88::/64")
PUBLISHED = [port(8080, 80), port(8080, 80, ip="::"), port(53, 53, "udp"), port(53, 53, "udp", ip="::")]
NOT_LAN4 = ["ip", "saddr", "!=", "198.51.100.0/24"]
NOT_LAN6 = ["ip6", "saddr", "!=", "2001:db8:100::/64"]
WORDS4, WORDS6 = "198.51.100.0/24", "2001:db8:100::/64"


@pytest.fixture
def lan(host: Host) -> Namespace:
    return host.neighbour()


@pytest.fixture
def office(host: Host) -> Namespace:
    return host.neighbour("office", 2)


def conditional(**keys: Any) -> Json:
    return network("net0", *DUAL, ports=PUBLISHED, conditionsV4=NOT_LAN4, conditionsV6=NOT_LAN6, **keys)


def rules(host: Host) -> list[Json]:
    listed = json.loads(host.run("nft", "-j", "list", "table", "inet", "nftcni"))["nftables"]
    return [item["rule"] for item in listed if "rule" in item]


def traces(host: Host) -> list[str]:
    """Chains of conditions and rules that lead to them, as nft lists them."""
    listed = json.loads(host.run("nft", "-j", "list", "table", "inet", "nftcni"))["nftables"]
    chains = [item["chain"]["name"] for item in listed if item.get("chain", {}).get("name", "").startswith("when_")]
    jumps = [rule["chain"] for rule in rules(host) if {"jump": {"target": "gate"}} in rule["expr"]]
    return sorted(chains + jumps)


def reached(place: Namespace, number: int, protocol: str = "tcp") -> list[bool]:
    """By IPv4 and IPv6, at the host's address on the cable to `place`."""
    found = []
    for address in (f"198.51.{99 + number}.1", f"2001:db8:{99 + number}::1"):
        port = 8080 if protocol == "tcp" else 53
        found.append(ask(place, address, port, protocol).startswith("c1"))
    return found


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("chained", [False, True])
def test_who_does_not_match_asks_the_host(
    host: Host, lan: Namespace, office: Namespace, tmp_path: Path, chained: bool, protocol: str
) -> None:
    """What is not for the port goes on to the host itself, as without it: here its own server answers."""
    container = host.container("c1")
    how: dict[str, Any] = {}
    if chained:
        for name in ("bridge", "portmap"):
            (tmp_path / name).symlink_to(CHECKOUT / "conf" / "nftcni")
        main = network("net0", *DUAL, isGateway=True, hairpinMode=True, ipMasq=True)
        routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
        main = {**main, "type": "bridge", "ipam": {"type": "host-local", **main["ipam"], "routes": routes}}
        previous = host.add(main, plugin=str(tmp_path / "bridge"))
        config = {**conditional(), "type": "portmap", "prevResult": previous}
        how = {"plugin": str(tmp_path / "portmap")}
        result = host.add(config, **how)
    else:
        config = conditional(allowBoundPorts=True)
        result = host.add(config)
    inside, outside = (80, 8080) if protocol == "tcp" else (53, 53)
    with Server(container, inside, protocol), Server(host, outside, protocol):
        assert reached(lan, 1, protocol) == [False, False]
        assert ask(lan, "198.51.100.1", outside, protocol).startswith("host")
        assert reached(office, 2, protocol) == [True, True]
    assert host.cni("CHECK", {**config, "prevResult": result}, **how).status == 0
    host.delete(config, **how)
    assert traces(host) == []


def dropped_in(host: Host, tmp_path: Path, *subnets: str, **keys: Any) -> tuple[Json, dict[str, Any]]:
    """The container c1 on the bridge of the drop-in plugin, and what its portmap is called with."""
    for name in ("bridge", "portmap"):
        (tmp_path / name).symlink_to(CHECKOUT / "conf" / "nftcni")
    main = network("net0", *subnets, isGateway=True, type="bridge")
    main["ipam"] = {"type": "host-local", **main["ipam"], "routes": [{"dst": "0.0.0.0/0"}]}
    previous = host.add(main, plugin=str(tmp_path / "bridge"))
    config = network("net0", ports=[port(8080, 80)], type="portmap", prevResult=previous, **keys)
    return config, {"plugin": str(tmp_path / "portmap")}


@pytest.mark.parametrize("words", [None, ["ip saddr != 198.51.101.0/24"]])
def test_a_portmap_that_is_added_again_has_the_condition_of_now(
    host: Host, lan: Namespace, office: Namespace, tmp_path: Path, words: list[str] | None
) -> None:
    """The ports were the same, so the condition of before stayed in the table, or its chain did for good."""
    config, how = dropped_in(host, tmp_path, conditionsV4=NOT_LAN4)
    host.add(config, **how)
    other = {key: value for key, value in config.items() if key != "conditionsV4"}
    if words:
        other["conditionsV4"] = words
    answer = host.cni("CHECK", other, **how)
    assert answer.code == 104 and "ip saddr != 198.51.100.0/24" in answer.words, answer.words
    host.add(other, **how)
    with Server(host.place("c1"), 80):
        assert ask(lan, "198.51.100.1", 8080).startswith("c1")
        assert ask(office, "198.51.101.1", 8080).startswith("c1") is not bool(words)
    assert len(traces(host)) == (3 if words else 0)
    assert host.cni("CHECK", other, **how).status == 0
    host.delete(other, **how)
    assert traces(host) == []


def test_a_portmap_that_is_added_again_with_snat_hides_addresses_again(host: Host, tmp_path: Path) -> None:
    """The element of before stayed, or after a failure the record said that it had to be there; and the ports that were
    kept lost route_localnet."""
    config, how = dropped_in(host, tmp_path, *DUAL)
    host.add({**config, "snat": False}, **how)
    assert "shown4" in host.elements()
    more = {"conditionsV6": ["fib saddr oif exists"], "runtimeConfig": {"portMappings": PUBLISHED}}
    assert host.cni("ADD", {**config, **more}, **how).code == 7
    assert host.command("repair", "--check").stdout == "nothing to repair\n"
    host.add(config, **how)
    assert "shown4" not in host.elements()


def test_what_the_host_asks_itself_is_judged_too(host: Host, lan: Namespace) -> None:
    container = host.container("c1")
    host.add(network("net0", ports=[port(8080, 80)], conditionsV4=["ip daddr != 198.51.100.1"]))
    with Server(container, 80):
        assert ask(host, "198.51.100.1", 8080) == "refused"
        assert ask(lan, "198.51.100.1", 8080) == "refused"
        assert ask(host, "10.88.0.1", 8080).startswith("c1")


def test_one_family_has_a_condition(host: Host, lan: Namespace) -> None:
    container = host.container("c1")
    host.add(network("net0", *DUAL, ports=PUBLISHED, conditionsV6=NOT_LAN6))
    with Server(container, 80):
        assert reached(lan, 1) == [True, False]


def test_ports_of_host_addresses(host: Host, lan: Namespace) -> None:
    ports = [port(8080, 80, ip="198.51.100.1"), port(8080, 80, ip="2001:db8:100::1"), port(8081, 80)]
    container = host.container("c1")
    host.add(network("net0", *DUAL, ports=ports, conditionsV4=NOT_LAN4, conditionsV6=NOT_LAN6))
    with Server(container, 80):
        assert reached(lan, 1) == [False, False]
        assert ask(host, "198.51.100.1", 8080).startswith("c1") is False  # its own address is in that prefix
        assert ask(host, "10.88.0.1", 8081).startswith("c1")


def test_other_networks_have_none(host: Host, lan: Namespace) -> None:
    """Also not of the same port of the other family."""
    host.add(network("net0", ports=[port(8080, 80)], conditionsV4=NOT_LAN4), "c1")
    second = host.container("c2")
    host.add(network("net1", "10.89.0.0/24", "fd00:89::/64", ports=[port(8080, 80, ip="::"), port(8081, 80)]), "c2")
    with Server(second, 80), Server(host.place("c1"), 80):
        assert ask(lan, "198.51.100.1", 8080) == "refused"
        assert ask(lan, "2001:db8:100::1", 8080).startswith("c2")
        assert ask(lan, "198.51.100.1", 8081).startswith("c2")


def test_a_shared_condition_ends_with_its_last_port(host: Host, lan: Namespace) -> None:
    first = network("net0", ports=[port(8080, 80)], conditionsV4=NOT_LAN4)
    second = network("net0", ports=[port(8081, 80)], conditionsV4=NOT_LAN4)
    host.add(first, "c1")
    host.add(second, "c2")
    host.add(network("net1", "10.89.0.0/24"), "c3")
    assert len(traces(host)) == 3
    host.delete(first, "c1")
    assert len(traces(host)) == 3
    with Server(host.place("c2"), 80):
        assert ask(lan, "198.51.100.1", 8081) == "refused"
    host.delete(second, "c2")
    assert traces(host) == []
    assert host.command("repair", "--check").stdout == "nothing to repair\n"


@pytest.mark.parametrize("way", ["flush", "delete", "hooks", "chain"])
def test_it_holds_after_repair(host: Host, lan: Namespace, office: Namespace, way: str) -> None:
    config = conditional()
    container = host.container("c1")
    result = host.add(config)
    if way == "chain":
        name = next(name for name in traces(host) if name.startswith("when_"))
        host.nft(f"flush chain inet nftcni {name}")
    elif way == "hooks":
        rule = next(rule for rule in rules(host) if {"jump": {"target": "gate"}} in rule["expr"])
        host.nft(f"delete rule inet nftcni {rule['chain']} handle {rule['handle']}")
    else:
        host.nft("flush ruleset" if way == "flush" else "delete table inet nftcni")
    assert host.cni("CHECK", {**config, "prevResult": result}).status != 0
    assert host.command("repair").returncode == 0
    with Server(container, 80):
        assert reached(lan, 1) == [False, False]
        assert reached(office, 2) == [True, True]
    assert host.cni("CHECK", {**config, "prevResult": result}).status == 0


@pytest.mark.parametrize("text", ["ip saddr != 198.51.100.0/24", 'iifname { "to-office", "lo" } ' + "ip ttl > 0 " * 10])
def test_it_holds_after_the_state_was_lost(host: Host, lan: Namespace, office: Namespace, text: str) -> None:
    """The table alone tells of it: by comments of two rules, for the longer one."""
    container = host.container("c1")
    config = network("net0", ports=[port(8080, 80)], conditionsV4=[text])
    host.add(config)
    before = host.elements()
    host.run("rm", "-r", "/run/nftcni")
    host.add(network("net1", "10.89.0.0/24"), "c2")
    assert host.elements()["gated4"] == before["gated4"]
    host.command("repair")
    with Server(container, 80):
        assert ask(lan, "198.51.100.1", 8080) == "refused"
        assert ask(office, "198.51.101.1", 8080).startswith("c1")
    host.delete(config)
    assert traces(host) == []


def test_a_chain_that_somebody_rewrote_tells_nothing(host: Host, lan: Namespace, office: Namespace) -> None:
    """With the state lost as well nobody knows who may ask: nobody does."""
    host.add(network("net0", ports=[port(8080, 80)], conditionsV4=NOT_LAN4))
    name = next(name for name in traces(host) if name.startswith("when_"))
    host.nft(f"flush chain inet nftcni {name}\nadd rule inet nftcni {name} return")
    host.run("rm", "-r", "/run/nftcni")
    host.add(network("net1", "10.89.0.0/24"), "c2")
    host.command("repair")
    with Server(host.place("c1"), 80):
        assert ask(lan, "198.51.100.1", 8080) == ask(office, "198.51.101.1", 8080) == "refused"


def test_a_chain_that_no_record_names_goes_with_the_last_port(host: Host) -> None:
    """The record was lost and the chain did not tell its condition: nobody knew its name."""
    config = network("net0", ports=[port(8080, 80)], conditionsV4=NOT_LAN4)
    host.add(config)
    host.add(network("net1", "10.89.0.0/24"), "c2")
    name = next(name for name in traces(host) if name.startswith("when_"))
    host.nft(f"flush chain inet nftcni {name}")
    host.run("sh", "-c", "rm /run/nftcni/*/attachments/net0/*")
    host.delete(config)
    assert traces(host) == []


def test_a_condition_that_this_nft_cannot_read_closes_its_own_ports_alone(host: Host, lan: Namespace) -> None:
    """The record is of another nft, or of a name that nobody resolves any more."""
    container = host.container("c1")
    host.add(network("net0", ports=[port(8080, 80)], conditionsV4=["ip saddr != 192.0.2.77"]))
    host.add(network("net1", "10.89.0.0/24", ports=[port(8081, 80)], conditionsV4=["ip saddr != 192.0.2.0/24"]), "c2")
    record = next(host.file("/run/nftcni").glob("*/attachments/net0/*"))
    record.write_text(record.read_text().replace("192.0.2.77", "what.this"))
    host.nft("flush ruleset")
    done = host.command("repair")
    assert 'the condition "ip saddr != what.this" are closed' in done.stderr, done.stderr
    assert done.returncode == 1 and "1 problems remain" in done.stdout, done.stdout
    assert 'the condition "ip saddr != what.this"' in host.command("repair", "--check").stdout
    other = network("net2", "10.90.0.0/24", ports=[port(8082, 80)], conditionsV4=["ip saddr != what.this"])
    assert host.refused("ADD", other, ifname="eth1").code == 7, "its chain is there, and asks nothing"
    with Server(container, 80), Server(host.place("c2"), 80):
        assert ask(lan, "198.51.100.1", 8080) == "refused"
        assert ask(lan, "198.51.100.1", 8081).startswith("c2")
        record.write_text(record.read_text().replace("what.this", "192.0.2.77"))
        assert host.command("repair").returncode == 0
        assert ask(lan, "198.51.100.1", 8080).startswith("c1")


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ip", "saddrs", "192.0.2.1"], "saddrs"),
        (["ip saddr 192.0.2.1 accept"], "accept is a statement"),
        (["ip saddr 192.0.2.1 return; add table ip mine"], "no match in nft's language needs"),
        (["ip saddr { 192.0.2.1 } } table ip mine { chain x {"], "braces"),
        (["ip saddr 192.0.2.1\nadd table ip mine"], "mine"),
        (["iifname", '"eth0'], "no match in nft's language needs"),
        (["ip saddr @nosuchset"], "nosuchset"),
        (["jump", "portmap"], "jump is a statement"),
        (["ip saddr != 192.0.2.1"] * 20, "longer than"),
        (["meta mark set 5"], "set is a statement"),
        (["ip saddr 192.0.2.1 counter"], "counter is a statement"),
    ],
)
def test_what_is_no_match_is_refused(host: Host, words: list[str], said: str, known: bool) -> None:
    host.container("c1")
    if known:
        host.add(network("net1", "10.89.0.0/24", ports=[port(8080, 80)], conditionsV4=NOT_LAN4), "c2")
    answer = host.refused("ADD", network("net0", ports=[port(8081, 80)], conditionsV4=words))
    assert answer.code == 7 and "conditionsV4" in answer.words and said in answer.words, answer.words
    assert "probe" not in answer.words and "as nft does" in answer.words
    tables = host.run("nft", "list", "tables").split("\n")
    assert not [table for table in tables if "mine" in table or "probe" in table]


def test_a_match_that_nat_cannot_ask_is_named(host: Host) -> None:
    """The kernel takes the chain and refuses what leads to it, by an errno alone."""
    host.add(network("net1", "10.89.0.0/24"), "c2")
    host.container("c1")
    answer = host.refused("ADD", network("net0", ports=[port(8080, 80)], conditionsV4=["fib saddr oif exists"]))
    assert answer.code == 7 and '"fib saddr oif exists"' in answer.words and "before routing" in answer.words
    assert traces(host) == []


def test_those_of_iptables_are_refused(host: Host) -> None:
    host.container("c1")
    answer = host.refused("ADD", network("net0", ports=[port(8080, 80)], conditionsV4=["!", "-d", "192.0.2.0/24"]))
    assert answer.code == 2 and "iptables syntax" in answer.words and "ip daddr != " in answer.words


def test_routed_ports_are_not_translated(host: Host) -> None:
    host.container("c1")
    asked = network("net0", ports=[port(8080, 80)], conditionsV4=NOT_LAN4, gatewayMode="routed")
    answer = host.refused("ADD", asked)
    assert answer.code == 7 and "conditionsV4" in answer.words and "gatewayMode" in answer.words


def test_explain_says_whom_the_port_is_for(host: Host, lan: Namespace, office: Namespace) -> None:
    """A condition is somebody's will, so it is no finding."""
    container = host.container("c1")
    host.add(network("net0", ports=[port(8080, 80)], conditionsV4=NOT_LAN4))
    with Server(container, 80):
        assert ask(lan, "198.51.100.1", 8080) == "refused"
        done = host.command("explain", "8080", "--from", "198.51.100.2")
        assert 'net0 has "conditionsV4": ip saddr != 198.51.100.0/24' in done.stdout
        assert done.returncode == 0 and "arrives" not in done.stdout
        done = host.command("explain", "8080", "--from", "198.51.101.2")
        assert done.returncode == 0 and "conditionsV4" not in done.stdout and "arrives" in done.stdout
        assert host.command("doctor").returncode == 0


def test_gc_takes_it_away(host: Host) -> None:
    config = network("net0", ports=[port(8080, 80)], conditionsV4=NOT_LAN4)
    host.add(config)
    host.add(network("net1", "10.89.0.0/24"), "c2")
    assert host.cni("GC", {**config, "cni.dev/valid-attachments": []}).status == 0
    assert traces(host) == []


def test_ports_handed_over_keep_it(host: Host, lan: Namespace, office: Namespace) -> None:
    """The second network's interface waited for them; the condition there is its own network's."""
    first = network("net0", ports=[port(8080, 80)])
    second = network("net1", "10.89.0.0/24", ports=[port(8080, 80)], conditionsV4=NOT_LAN4)
    container = host.container("c1")
    host.add(first)
    host.add(second, ifname="eth1")
    with Server(container, 80):
        assert ask(lan, "198.51.100.1", 8080).startswith("c1")
        host.delete(first)
        container.run("ip", "route", "add", "default", "via", "10.89.0.1")  # it went with the first interface
        assert ask(lan, "198.51.100.1", 8080) == "refused"
        assert ask(office, "198.51.101.1", 8080).startswith("c1")
    host.delete(second, ifname="eth1")
    host.add(network("net2", "10.90.0.0/24"), "c3")
    assert traces(host) == []
