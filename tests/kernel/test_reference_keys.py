"""Keys of the reference plugins that change what the host does, key by key, on our own type and under their names.

What they all answer together is tests/e2e/test_forms.py; the oracle here is the kernel and real sockets.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.scratch import CHECKOUT, PLUGIN, Host, Json, network, port
from support.traffic import Server, ask

from nft.table import Table

NAMES = ("bridge", "portmap", "firewall", "host-local", "static")
PUBLISHED = [port(8080, 80)]


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).symlink_to(CHECKOUT / "conf" / "nftcni")
    return tmp_path


def behind(host: Host, folder: Path, kind: str, **keys: Any) -> tuple[Json, dict[str, Any]]:
    """A plugin's configuration behind a bridge of ours that stands, and how it is called."""
    subnet = {"type": "host-local", "subnet": "10.88.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
    common = {"cniVersion": "1.0.0", "name": "net0"}
    bridge = {**common, "type": "bridge", "bridge": "br-net0", "isGateway": True, "hairpinMode": True, "ipam": subnet}
    previous = host.add(bridge, plugin=str(folder / "bridge"))
    return {**common, "type": kind, **keys, "prevResult": previous}, {"plugin": str(folder / kind)}


# Routes


@pytest.mark.parametrize("version", ["0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
@pytest.mark.parametrize("name", ["host-local", "static", "bridge"])
def test_the_numbers_of_routes_at_any_version(host: Host, bin_dir: Path, name: str, version: str) -> None:
    """A main plugin of others sets just these: without the table a container's second way out becomes its first."""
    route = {"dst": "0.0.0.0/0", "gw": "10.88.0.1", "mtu": 1400, "table": 100, "priority": 50}
    kinds = {"static": {"addresses": [{"address": "10.88.0.2/24"}]}, "host-local": {"subnet": "10.88.0.0/24"}}
    kind = name if name in kinds else "host-local"
    config = {
        "cniVersion": version,
        "name": "net0",
        "type": name,
        "ipam": {"type": kind, "routes": [route], **kinds[kind]},
    }
    result = host.add(config, plugin=str(bin_dir / name), env={"CNI_PATH": str(bin_dir)})
    assert (result["ip4"] if version == "0.2.0" else result)["routes"] == [route]


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_several_routes_to_one_destination(host: Host, bin_dir: Path, kind: str) -> None:
    """A fail-over, and a table for policy routing."""
    (bin_dir / "ptp").symlink_to(CHECKOUT / "conf" / "nftcni")
    routes = [
        {"dst": "0.0.0.0/0", "priority": 10},
        {"dst": "0.0.0.0/0", "gw": "10.88.0.1", "priority": 20},
        {"dst": "0.0.0.0/0", "table": 100},
    ]
    ipam = {"type": "host-local", "subnet": "10.88.0.0/24", "routes": routes}
    keys = {"bridge": "br-net0", "isGateway": True} if kind == "bridge" else {}
    config = {"cniVersion": "1.0.0", "name": "net0", "type": kind, **keys, "ipam": ipam}
    result = host.add(config, plugin=str(bin_dir / kind))
    assert result["routes"] == routes
    found = host.place("c1").json("ip", "-j", "-4", "route", "show", "table", "all", "default")
    assert [(item.get("metric"), item.get("table")) for item in found] == [(None, "100"), (10, None), (20, None)]
    assert {item["gateway"] for item in found} == {"10.88.0.1"}


# promiscMode


def test_a_bridge_is_promiscuous(host: Host) -> None:
    config = network(promiscMode=True)
    result = host.add(config)
    assert "PROMISC" in host.link("br-net0")["flags"]
    assert host.cni("CHECK", {**config, "prevResult": result}).status == 0
    host.run("ip", "link", "set", "br-net0", "promisc", "off")
    answer = host.cni("CHECK", {**config, "prevResult": result})
    assert answer.code == 104 and "promiscuous" in answer.words


@pytest.mark.parametrize("before", ["on", "off"])
def test_an_adopted_bridge_gets_back_what_it_was(host: Host, before: str) -> None:
    host.run("ip", "link", "add", "br-net0", "type", "bridge")
    host.run("ip", "link", "set", "br-net0", "promisc", before)
    flags = host.link("br-net0")["flags"]
    config = network(promiscMode=True)
    for container in ("c1", "c2"):
        host.add(config, container)
    assert "PROMISC" in host.link("br-net0")["flags"]
    for container in ("c1", "c2"):
        host.delete(config, container)
    assert host.link("br-net0")["flags"] == flags


# snat, masqAll, and keys of marks


@pytest.mark.parametrize("name", [False, True], ids=["own type", "portmap"])
@pytest.mark.parametrize(
    ("keys", "lan", "itself"),
    [
        ({}, "c1 198.51.100.2", "c1 10.88.0.1"),
        ({"masqAll": True}, "c1 10.88.0.1", "c1 10.88.0.1"),
        ({"snat": False}, "c1 198.51.100.2", "silence"),
        ({"markMasqBit": 5}, "c1 198.51.100.2", "c1 10.88.0.1"),
        ({"externalSetMarkChain": "KUBE-MARK-MASQ"}, "c1 198.51.100.2", "c1 10.88.0.1"),
    ],
)
def test_whose_address_a_container_sees(
    host: Host, bin_dir: Path, name: bool, keys: Json, lan: str, itself: str
) -> None:
    neighbour = host.neighbour()
    container = host.container("c1")
    if name:
        config, how = behind(host, bin_dir, "portmap", runtimeConfig={"portMappings": PUBLISHED}, **keys)
    else:
        config, how = network(ports=PUBLISHED, **keys), {}
    result = host.add(config, **how)
    with Server(container, 80):
        assert ask(neighbour, "198.51.100.1", 8080) == lan
        assert ask(container, "198.51.100.1", 8080) == itself
    checked = {**config, "prevResult": result}
    assert host.cni("CHECK", checked, **how).status == 0
    host.delete(config, **how)
    assert not {"hidden4", "shown4", "dnat4"} & host.elements().keys()


def test_conditions_are_told_apart(host: Host, bin_dir: Path) -> None:
    """Without ports there is nothing that they would be conditions of."""
    host.container("c1")
    conditions = ["!", "-d", "192.0.2.0/24"]
    config, how = behind(host, bin_dir, "portmap", conditionsV4=conditions)
    host.add(config, **how)
    asking = {**config, "runtimeConfig": {"portMappings": PUBLISHED}}
    answer = host.refused("ADD", asking, **how)
    assert answer.code == 2 and "conditionsV4" in answer.words and "iptables syntax" in answer.words


# iptablesAdminChainName


@pytest.mark.parametrize(
    ("rules", "drops"),
    [
        ("accept", False),
        ("oifname eth0 return", False),
        ("oifname br-net0 ip saddr 192.0.2.1 drop", True),
        ("tcp dport 25 reject", True),
    ],
)
@pytest.mark.parametrize("name", ["", "NOMAD-ADMIN"])
def test_an_administrators_chain(host: Host, bin_dir: Path, rules: str, drops: bool, name: str) -> None:
    host.nft(f"table ip filter {{ chain {name or 'CNI-ADMIN'} {{\n{rules}\n}}\n}}")
    host.container("c1")
    keys = {"iptablesAdminChainName": name} if name else {}
    config, how = behind(host, bin_dir, "firewall", **keys)
    if not drops:
        host.add(config, **how)
        return
    answer = host.refused("ADD", config, **how)
    assert answer.code == 2 and (name or "CNI-ADMIN") in answer.words and "ip filter" in answer.words


def test_an_administrators_chain_of_iptables_itself(host: Host, bin_dir: Path) -> None:
    """Its own way of writing a verdict."""
    if host.call("iptables", "-N", "NOMAD-ADMIN").returncode:
        pytest.skip("NOT RUN: iptables is not installed")
    host.container("c1")
    config, how = behind(host, bin_dir, "firewall", iptablesAdminChainName="NOMAD-ADMIN")
    host.run("iptables", "-A", "NOMAD-ADMIN", "-o", "br-net0", "-d", "10.88.0.0/24", "-j", "ACCEPT")
    host.add(config, **how)
    host.run("iptables", "-A", "NOMAD-ADMIN", "-s", "192.0.2.1", "-j", "DROP")
    assert host.refused("ADD", config, **how).code == 2
    host.run("iptables", "-R", "NOMAD-ADMIN", "2", "-s", "192.0.2.1", "-j", "REJECT")
    assert host.refused("ADD", config, **how).code == 2
    own = {**network("own", iptablesAdminChainName="NOMAD-ADMIN"), "bridge": "br-own"}
    assert host.refused("ADD", own).code == 2


# firewalld


BUSCTL = """#!/bin/sh
echo "$@" >> {folder}/calls
case "$*" in
*NameHasOwner*) echo "b true" ;;
*querySource*) grep -q "addSource ss $8 $9" {folder}/calls && echo "b true" || echo "b false" ;;
*addSource*) [ -e {folder}/refuses ] && echo "Call failed: INVALID_ZONE: $8" >&2 && exit 1
    echo "s \\"$8\\"" ;;
esac
"""


@pytest.fixture
def firewalld(host: Host, tmp_path: Path) -> Path:
    """What busctl would say where firewalld runs; its own words are from busctl(1) and firewalld.dbus(5)."""
    folder = tmp_path / "bus"
    folder.mkdir()
    (folder / "busctl").write_text(BUSCTL.format(folder=folder))
    (folder / "busctl").chmod(0o755)
    host.env.update(PATH=f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin", DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nonexistent")
    return folder


def asked(folder: Path, method: str) -> list[list[str]]:
    calls = [line.split() for line in (folder / "calls").read_text().splitlines()]
    return [words[-2:] for words in calls if method in words]


@pytest.mark.parametrize(
    ("keys", "zone"), [({"backend": "firewalld"}, "trusted"), ({"firewalldZone": "work"}, "work"), ({}, "trusted")]
)
def test_addresses_join_a_zone(host: Host, bin_dir: Path, firewalld: Path, keys: Json, zone: str) -> None:
    host.container("c1")
    config, how = behind(host, bin_dir, "firewall", **keys)
    host.add(config, **how)
    assert asked(firewalld, "addSource") == [[zone, "10.88.0.2/32"]]
    assert host.cni("CHECK", config, **how).status == 0
    bridge = {**config, "type": "bridge", "bridge": "br-net0", "ipam": {"type": "host-local", "subnet": "10.88.0.0/24"}}
    host.delete(bridge, plugin=str(bin_dir / "bridge"))
    assert asked(firewalld, "removeSource") == [[zone, "10.88.0.2/32"]]


def test_our_own_type_in_a_zone(host: Host, firewalld: Path) -> None:
    config = network("net0", "10.88.0.0/24", "fd00:88::/64", backend="firewalld", firewalldZone="work")
    result = host.add(config)
    assert asked(firewalld, "addSource") == [["work", "10.88.0.2/32"], ["work", "fd00:88::2/128"]]
    assert host.cni("CHECK", {**config, "prevResult": result}).status == 0
    (firewalld / "calls").write_text("")
    answer = host.cni("CHECK", {**config, "prevResult": result})
    assert answer.code == 104 and "zone work" in answer.words
    assert host.cni("GC", {**config, "cni.dev/valid-attachments": []}).status == 0
    assert len(asked(firewalld, "removeSource")) == 2


def test_a_zone_that_firewalld_refuses(host: Host, firewalld: Path) -> None:
    (firewalld / "refuses").write_text("")
    host.container("c1")
    answer = host.refused("ADD", network(backend="firewalld", firewalldZone="nowhere"))
    assert answer.code == 5 and "INVALID_ZONE" in answer.words and "nowhere" in answer.words


def test_without_firewalld_its_backend_is_refused(host: Host, bin_dir: Path) -> None:
    host.container("c1")
    config, how = behind(host, bin_dir, "firewall", backend="firewalld")
    answer = host.refused("ADD", config, **how)
    assert answer.code == 2 and "firewalld" in answer.words


# What is left to the host


def test_the_mtu_is_that_of_the_way_out(host: Host) -> None:
    host.neighbour()
    host.run("ip", "link", "set", "to-lan", "mtu", "1400")
    host.run("ip", "route", "add", "default", "via", "198.51.100.2")
    result = host.add(network())
    assert host.place("c1").link("eth0")["mtu"] == host.link("br-net0")["mtu"] == 1400
    assert {item["mtu"] for item in result["interfaces"]} == {1400}
    asked = network("two", "10.89.0.0/24", mtu=1300)
    host.add(asked, "c2")
    assert host.place("c2").link("eth0")["mtu"] == 1300


def test_the_mtu_of_an_adopted_bridge_counts(host: Host) -> None:
    host.run("ip", "link", "add", "br-net0", "mtu", "1420", "type", "bridge")
    host.add(network())
    assert host.place("c1").link("eth0")["mtu"] == 1420


def test_a_further_network_leaves_the_default_route_alone(host: Host) -> None:
    """Unless it asks for one. Its own subnet is reached all the same."""
    host.add(network())
    container = host.place("c1")
    second = network("two", "10.89.0.0/24")
    result = host.add(second, ifname="net1")
    assert [item["dev"] for item in container.json("ip", "-j", "route", "show", "default")] == ["eth0"]
    assert not result.get("routes")
    assert host.cni("CHECK", {**second, "prevResult": result}, ifname="net1").status == 0
    host.add(network("three", "10.90.0.0/24", isDefaultGateway=True), ifname="net2")
    assert [item["dev"] for item in container.json("ip", "-j", "route", "show", "default")] == ["eth0", "net2"]
    with Server(container, 80):
        assert ask(host, "10.89.0.2", 80) == "c1 10.89.0.1"


@pytest.mark.parametrize("first", [4, 6])
def test_a_further_network_has_the_default_route_of_a_version_that_has_none(host: Host, first: int) -> None:
    subnets = {4: "10.88.0.0/24", 6: "fd00:88::/64"}
    host.add(network("net0", subnets[first]))
    host.add(network("two", "10.89.0.0/24", "fd00:89::/64"), ifname="eth1")
    for version in (4, 6):
        found = host.place("c1").json("ip", "-j", f"-{version}", "route", "show", "default")
        assert [item["dev"] for item in found] == ["eth0" if version == first else "eth1"]


@pytest.mark.parametrize("order", [("eth0", "eth1"), ("eth1", "eth0")], ids=["in order", "the second is faster"])
def test_the_first_interface_has_the_way_out(host: Host, order: tuple[str, str]) -> None:
    """Runtimes attach a container's networks in parallel (go-cni); of two equal routes, the kernel takes turns."""
    host.neighbour()
    subnets = {"eth0": ("10.88.0.0/24", "fd00:88::/64"), "eth1": ("10.89.0.0/24", "fd00:89::/64")}
    for ifname in order:
        config = network(f"of-{ifname}", *subnets[ifname])
        result = host.add(config, ifname=ifname)
        assert host.add(config, ifname=ifname) == result
        assert host.cni("CHECK", {**config, "prevResult": result}, ifname=ifname).status == 0
    container = host.place("c1")
    for target in ("198.51.100.2", "2001:db8:100::2"):
        assert [way["dev"] for way in container.json("ip", "-j", "route", "get", target)] == ["eth0"]
    host.delete(network("of-eth0", *subnets["eth0"]), ifname="eth0")
    found = container.json("ip", "-j", "-4", "route", "show", "default")
    assert [way["dev"] for way in found] == (["eth1"] if order[0] == "eth1" else [])


@pytest.mark.parametrize("own_type", [True, False], ids=["nftcni", "bridge"])
def test_of_two_networks_that_ask_for_the_way_out_the_first_has_it(host: Host, bin_dir: Path, own_type: bool) -> None:
    """Whatever the age of the neighbour entries of the gateways (fib_select_default)."""
    host.neighbour()
    keys = {} if own_type else {"type": "bridge", "isGateway": True}
    for number in (0, 1):
        config = network(f"net{number}", f"10.8{number}.0.0/24", isDefaultGateway=True, **keys)
        host.add(config, ifname=f"eth{number}", plugin=PLUGIN if own_type else str(bin_dir / "bridge"))
    container = host.place("c1")
    found = container.json("ip", "-j", "-4", "route", "show", "default")
    assert [(way["dev"], way.get("metric", 0)) for way in found] == [("eth0", 0), ("eth1", 1)]
    container.run("ip", "neigh", "replace", "10.80.0.1", "dev", "eth0", "nud", "failed")
    assert [way["dev"] for way in container.json("ip", "-j", "route", "get", "198.51.100.2")] == ["eth0"]


# What cannot be there twice


TWICE: list[Json] = [
    {"ipam": {"type": "static", "addresses": [{"address": "10.88.0.2/24"}] * 2}},
    {"ipam": {"type": "static", "addresses": [{"address": "10.88.0.2/24"}]}},
]


@pytest.mark.parametrize("keys", TWICE, ids=["configuration", "CNI_ARGS"])
@pytest.mark.parametrize("order", ["first", "second"])
def test_an_address_that_is_asked_for_twice_is_there_once(host: Host, order: str, keys: Json) -> None:
    """The first ADD loads a file of elements, which may name one twice; a later one got an endless "try again"."""
    if order == "second":
        host.add(network("two", "10.89.0.0/24"), "c2")
    host.container("c1")
    before = host.snapshot()
    result = host.add(network(**keys), args="IP=10.88.0.2/24")
    assert [item["address"] for item in result["ips"]] == ["10.88.0.2/24"]
    assert host.add(network(**keys), args="IP=10.88.0.2/24") == result
    host.delete(network(**keys))
    assert host.snapshot() == before


def test_an_address_with_two_lengths_is_refused(host: Host) -> None:
    addresses = [{"address": "10.88.0.2/24"}, {"address": "10.88.0.2/16"}]
    host.container("c1")
    before = host.snapshot()
    answer = host.refused("ADD", network(ipam={"type": "static", "addresses": addresses}))
    assert answer.code == 7 and "10.88.0.2/24" in answer.words and "10.88.0.2/16" in answer.words
    assert host.snapshot() == before


def test_an_element_is_deleted_once(host: Host) -> None:
    """The kernel refuses the second deletion, which was taken for a table that is missing."""
    host.add(network())
    with host.entered():
        table = Table()
        elements = table.elements(("attachments",))
        table.delete([*elements, *elements])
        assert table.elements(("attachments",)) == []


@pytest.mark.parametrize("kind", ["bridge", "nftcni"])
def test_a_second_plugin_that_makes_the_interface_is_refused(host: Host, bin_dir: Path, kind: str) -> None:
    """In place of `portmap`, for example: it took the first one's place, and the result told of both."""
    (bin_dir / "nftcni").symlink_to(CHECKOUT / "conf" / "nftcni")
    config, how = behind(host, bin_dir, kind, bridge="br-net0", runtimeConfig={"portMappings": PUBLISHED})
    answer = host.refused("ADD", {**config, "ipam": {"type": "host-local", "subnet": "10.88.0.0/24"}}, **how)
    assert answer.code == 7 and "eth0" in answer.words
    assert "10.88.0.2/24" in host.place("c1").addresses("eth0")


def test_loopback_first_adds_nothing_to_the_addresses(host: Host) -> None:
    """Runtimes take the first address for the container's (Nomad)."""
    lo = {"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "/run/netns/c1"}
    ips = [{"address": "127.0.0.1/8", "interface": 0}, {"address": "::1/128", "interface": 0}]
    result = host.add(network(prevResult={"cniVersion": "1.1.0", "interfaces": [lo], "ips": ips}))
    assert [item["address"] for item in result["ips"]] == ["10.88.0.2/24"]
    assert [item["name"] for item in result["interfaces"]][::2] == ["br-net0", "eth0"]


# IPAM of others, and static


SCRIPT = """#!/bin/sh
[ $CNI_COMMAND = ADD ] || exit 0
nsenter --net=$CNI_NETNS ip -o link show dev $CNI_IFNAME >{folder}/seen 2>&1
echo '{{"cniVersion": "1.0.0", "ips": [{{"address": "10.77.0.5/24", "gateway": "10.77.0.1"}}]}}'
"""


@pytest.mark.parametrize("mode", ["bridge", "ptp"])
def test_the_interface_is_there_before_addresses_are_asked_for(host: Host, tmp_path: Path, mode: str) -> None:
    """`dhcp` sends its question through it (plugins/ipam/dhcp)."""
    (tmp_path / "asker").write_text(SCRIPT.format(folder=tmp_path))
    (tmp_path / "asker").chmod(0o755)
    config = network(ipam={"type": "asker"}, **({"mode": "ptp", "bridge": None} if mode == "ptp" else {}))
    before = host.snapshot()
    host.add(config, env={"CNI_PATH": str(tmp_path)})
    assert "eth0" in (tmp_path / "seen").read_text()
    assert host.place("c1").addresses("eth0") == {"10.77.0.5/24"}
    host.delete(config, env={"CNI_PATH": str(tmp_path)})
    assert host.snapshot() == before


STATIC: dict[str, Any] = {"type": "static", "addresses": [{"address": "10.88.0.7/24", "gateway": "10.88.0.1"}]}


@pytest.mark.parametrize(
    ("ipam", "more", "args", "address"),
    [
        ({}, {}, "", "10.88.0.7/24"),
        ({"routes": [{"dst": "192.0.2.0/24"}], "dns": {"nameservers": ["192.0.2.53"]}}, {}, "", "10.88.0.7/24"),
        ({"addresses": []}, {}, "IP=10.88.0.9/24;GATEWAY=10.88.0.1", "10.88.0.9/24"),
        ({}, {"args": {"cni": {"ips": ["10.88.0.10/24"]}}}, "", "10.88.0.10/24"),
        ({}, {"runtimeConfig": {"ips": ["10.88.0.11/24"]}}, "", "10.88.0.11/24"),
    ],
)
def test_static_addresses_need_no_plugin(host: Host, ipam: Json, more: Json, args: str, address: str) -> None:
    config = network(ipam={**STATIC, **ipam}, ports=PUBLISHED)
    config.update({key: {**config.get(key, {}), **value} for key, value in more.items()})
    before = host.snapshot()
    result = host.add(config, args=args)
    container = host.place("c1")
    assert [(item["address"], item["gateway"]) for item in result["ips"]] == [(address, "10.88.0.1")]
    assert container.addresses("eth0") == {address}
    assert host.addresses("br-net0") == {"10.88.0.1/24"}
    with Server(container, 80):
        assert ask(host, "127.0.0.1", 8080) == "c1 10.88.0.1"
    assert host.cni("CHECK", {**config, "prevResult": result}, args=args).status == 0
    host.delete(config, args=args)
    assert host.snapshot() == before


def test_a_static_address_that_is_taken(host: Host) -> None:
    config = network(ipam=STATIC)
    host.add(config)
    host.container("c2")
    answer = host.refused("ADD", config, "c2")
    assert answer.code == 102 and "10.88.0.7" in answer.words and "net0/c1/eth0" in answer.words


def test_the_name_static(host: Host, bin_dir: Path) -> None:
    host.container("c1")
    config = {
        "cniVersion": "1.0.0",
        "name": "net0",
        "type": "any",
        "ipam": {**STATIC, "routes": [{"dst": "0.0.0.0/0"}]},
    }
    how: dict[str, Any] = {"plugin": str(bin_dir / "static")}
    result = host.add(config, **how)
    assert result == {"cniVersion": "1.0.0", "ips": STATIC["addresses"], "routes": [{"dst": "0.0.0.0/0"}]}
    assert host.cni("CHECK", {**config, "prevResult": result}, **how).status == 0
    host.delete(config, **how)
    bad = {**config, "ipam": {"type": "static", "addresses": [{"address": "10.88.0.7"}]}}
    answer = host.refused("ADD", bad, **how)
    assert answer.code == 7 and "10.88.0.7" in answer.words


# What people write


def test_a_slip_of_the_pen_is_told_and_the_answer_stays_valid(host: Host) -> None:
    host.container("c1")
    answer = host.cni("ADD", network(isGatway=False, hairpinMod=True, nerdctlID="x"))
    assert answer.status == 0 and json.loads(answer.stdout)["ips"]
    assert 'did you mean "isGateway"' in answer.stderr and 'did you mean "hairpinMode"' in answer.stderr
    assert "nerdctlID" not in answer.stderr


def test_gc_without_a_list_under_a_reference_name(host: Host, bin_dir: Path) -> None:
    """Their plugins answer so, and collect nothing."""
    host.container("c1")
    config, _how = behind(host, bin_dir, "portmap")
    before = host.snapshot()
    for name in ("bridge", "portmap", "firewall", "host-local"):
        answer = host.cni("GC", {**config, "cniVersion": "1.1.0"}, plugin=str(bin_dir / name))
        assert (answer.status, answer.stdout) == (0, ""), name
    assert host.snapshot() == before


def test_a_container_id_beyond_any_file_name(host: Host) -> None:
    container = "c" * 3000
    host.container("c1")
    before = host.snapshot()
    config = network(ports=PUBLISHED)
    result = host.add(config, container, netns="/run/netns/c1")
    assert host.cni("CHECK", {**config, "prevResult": result}, container, netns="/run/netns/c1").status == 0
    host.delete(config, container)
    assert host.snapshot() == before
