"""Every key of the reference plugins under the drop-in name that has it: done, without effect, or refused by code 2;
and what `tuning` does with its keys.

The table's left side was read from the sources of containernetworking/plugins 1.9 (plugins/main/bridge and the like).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.scratch import CHECKOUT, Answer, Host, port

from cni.model.chain_keys import KEYS_OF

REFERENCE = {
    "bridge": (
        *("bridge", "isGateway", "isDefaultGateway", "forceAddress", "ipMasq", "ipMasqBackend", "mtu", "hairpinMode"),
        *("promiscMode", "vlan", "vlanTrunk", "preserveDefaultVlan", "macspoofchk", "enabledad", "portIsolation"),
        *("disableContainerInterface", "ipam", "dns", "runtimeConfig.mac", "args.cni.mac", "CNI_ARGS.MAC"),
    ),
    "host-local": (
        *("ipam.ranges", "ipam.subnet", "ipam.rangeStart", "ipam.rangeEnd", "ipam.gateway", "ipam.routes"),
        *("ipam.dataDir", "ipam.resolvConf", "runtimeConfig.ipRanges", "runtimeConfig.ips", "args.cni.ips"),
        "CNI_ARGS.IP",
    ),
    "portmap": (
        *("backend", "snat", "masqAll", "markMasqBit", "externalSetMarkChain", "conditionsV4", "conditionsV6"),
        "runtimeConfig.portMappings",
    ),
    "firewall": ("backend", "iptablesAdminChainName", "firewalldZone", "ingressPolicy"),
    "tuning": (
        *("sysctl", "mac", "promisc", "mtu", "allmulti", "txQLen", "dataDir", "runtimeConfig.mac", "CNI_ARGS.MAC"),
        *(f"args.cni.{key}" for key in ("sysctl", "mac", "promisc", "mtu", "allmulti", "txQLen")),
    ),
    "loopback": (),
}
DONE, NOTHING, REFUSED = "done", "nothing", "refused"
MAC = "02:11:22:33:44:55"
ARP = {"net.ipv4.conf.IFNAME.arp_filter": "1"}
ROUTE = {"dst": "192.0.2.0/24", "gw": "10.4.0.1", "mtu": 1400, "advmss": 1300, "priority": 5, "table": 7, "scope": 0}
DNS = {"nameservers": ["192.0.2.53"], "domain": "x", "search": ["y"], "options": ["ndots:5"]}
V4 = ["!", "-d", "192.0.2.0/24"]
V6 = ["ip6", "daddr", "!=", "2001:db8::/32"]
TABLE: list[tuple[str, str, Any, str]] = [
    ("bridge", "bridge", "mine0", DONE),
    ("bridge", "isGateway", False, NOTHING),
    ("bridge", "isGateway", True, DONE),
    ("bridge", "isDefaultGateway", True, DONE),
    ("bridge", "forceAddress", True, NOTHING),
    ("bridge", "ipMasq", True, DONE),
    *(("bridge", "ipMasqBackend", value, NOTHING) for value in ("", "iptables", "nftables")),
    ("bridge", "ipMasqBackend", "pf", REFUSED),
    ("bridge", "mtu", 1400, DONE),
    ("bridge", "hairpinMode", True, DONE),
    ("bridge", "promiscMode", False, NOTHING),
    ("bridge", "promiscMode", True, DONE),
    ("bridge", "vlan", 0, NOTHING),
    ("bridge", "vlanTrunk", [], NOTHING),
    *(("bridge", "preserveDefaultVlan", value, NOTHING) for value in (False, True)),
    ("bridge", "macspoofchk", False, NOTHING),
    ("bridge", "macspoofchk", True, DONE),
    ("bridge", "enabledad", False, NOTHING),
    ("bridge", "enabledad", True, DONE),
    ("bridge", "portIsolation", True, DONE),
    ("bridge", "disableContainerInterface", False, NOTHING),
    ("bridge", "ipam", {}, DONE),
    ("bridge", "dns", DNS, DONE),
    *(("bridge", key, MAC, DONE) for key in ("runtimeConfig.mac", "args.cni.mac", "CNI_ARGS.MAC")),
    ("host-local", "ipam.ranges", [[{"subnet": "fd00:5::/64"}], [{"subnet": "10.5.0.0/24"}]], DONE),
    ("host-local", "ipam.subnet", "10.7.0.0/24", DONE),
    ("host-local", "ipam.rangeStart", "10.4.0.20", DONE),
    ("host-local", "ipam.rangeEnd", "10.4.0.20", NOTHING),  # to the first container
    ("host-local", "ipam.gateway", "10.4.0.254", DONE),
    ("host-local", "ipam.routes", [ROUTE], DONE),
    ("host-local", "ipam.dataDir", "/run/foreign", NOTHING),
    ("host-local", "ipam.resolvConf", "/run/resolv.conf", DONE),
    ("host-local", "runtimeConfig.ipRanges", [[{"subnet": "10.8.0.0/24"}]], DONE),
    *(("host-local", key, ["10.4.0.77"], DONE) for key in ("runtimeConfig.ips", "args.cni.ips")),
    ("host-local", "CNI_ARGS.IP", "10.4.0.77", DONE),
    *(("portmap", "backend", value, NOTHING) for value in ("", "iptables", "nftables")),
    ("portmap", "backend", "pf", REFUSED),
    ("portmap", "snat", True, NOTHING),
    ("portmap", "snat", False, DONE),
    ("portmap", "masqAll", False, NOTHING),
    ("portmap", "masqAll", True, DONE),
    ("portmap", "markMasqBit", 13, NOTHING),
    ("portmap", "markMasqBit", 14, NOTHING),
    ("portmap", "externalSetMarkChain", "", NOTHING),
    ("portmap", "externalSetMarkChain", "KUBE-MARK-MASQ", NOTHING),
    *(("portmap", key, [], NOTHING) for key in ("conditionsV4", "conditionsV6")),
    ("portmap", "conditionsV4", V4, REFUSED),  # with ports: without, they are conditions of nothing
    ("portmap", "conditionsV4", ["ip daddr != 192.0.2.9"], DONE),
    ("portmap", "conditionsV6", V6, DONE),
    ("portmap", "runtimeConfig.portMappings", [port(8080, 80), port(53, 53, "udp", "127.0.0.1")], DONE),
    *(("firewall", "backend", value, NOTHING) for value in ("", "iptables", "ip6tables", "nftables")),
    ("firewall", "backend", "firewalld", REFUSED),
    ("firewall", "iptablesAdminChainName", "NOMAD-ADMIN", NOTHING),
    ("firewall", "firewalldZone", "", NOTHING),
    ("firewall", "firewalldZone", "internal", NOTHING),
    *(("firewall", "ingressPolicy", value, NOTHING) for value in ("", "open")),
    *(("firewall", "ingressPolicy", value, DONE) for value in ("same-bridge", "isolated")),
    ("tuning", "sysctl", {}, NOTHING),
    ("tuning", "dataDir", "/run/cni/tuning", NOTHING),
    *(("tuning", key, MAC, DONE) for key in ("runtimeConfig.mac", "CNI_ARGS.MAC")),
    *(
        ("tuning", place + key, value, DONE)
        for place in ("", "args.cni.")
        for key, value in (("sysctl", ARP), ("mac", MAC), ("promisc", True), ("mtu", 1400), ("txQLen", 77))
    ),
    # What is switched off expressly is given back, too.
    *(("tuning", f"{place}allmulti", value, DONE) for place in ("", "args.cni.") for value in (False, True)),
    ("loopback", "dns", DNS, NOTHING),
]
CHAINED = ("portmap", "firewall", "tuning")
ROUTES = (("4", "all"), ("6", "main"))
LINK_SYSCTLS = ("ipv4/conf/eth0/arp_filter", "ipv6/conf/eth0/accept_dad")
BRIDGE = {"ipam": {"type": "host-local", "subnet": "10.4.0.0/24", "ranges": [[{"subnet": "fd00:4::/64"}]]}}


class Named:
    """The executable under the drop-in names, called for the container c1 of one network."""

    def __init__(self, host: Host, folder: Path, version: str = "1.0.0") -> None:
        self.host = host
        self.folder = folder
        self.container = host.container("c1")
        self.common = {"cniVersion": version, "name": "chain"}
        host.set_sysctl("ipv6/conf/all/forwarding", "1")  # it stays on, and brings routes
        for name in REFERENCE:
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(CHECKOUT / "conf" / "nftcni")

    def call(self, verb: str, name: str, config: Any, previous: Any = None, args: str = "") -> Answer:
        document = {"type": name, **config, **self.common, **({"prevResult": previous} if previous else {})}
        env = {"CNI_PATH": str(self.folder)}
        return self.host.cni(verb, document, plugin=str(self.folder / name), env=env, args=args)

    def done(self, verb: str, name: str, config: Any, previous: Any = None, args: str = "") -> Any:
        answer = self.call(verb, name, config, previous, args)
        assert answer.status == 0, f"{verb} {name} {config}: {answer.stdout}{answer.stderr}"
        return answer.document

    def refused(self, name: str, config: Any, previous: Any, args: str = "") -> Answer:
        """The refusal of an ADD, which must change nothing."""
        before = self.seen()
        answer = self.call("ADD", name, config, previous, args)
        assert answer.status != 0, answer.stdout
        assert self.seen() == before
        return answer

    def seen(self, *more: Any) -> list[str]:
        """What the kernel has of host and container, and files, without what is random: a line for each thing."""
        host, container = self.host, self.container
        host.rest()
        keys = ("ifname", "flags", "mtu", "txqlen", "address")
        links = [item for place in (host, container) for item in place.json("ip", "-j", "-d", "link", "show")]
        things: list[Any] = [{key: item.get(key) for key in keys} for item in links]
        slaves = [item["linkinfo"].get("info_slave_data", {}) for item in links if "linkinfo" in item]
        things += [[slave.get(key) for key in ("hairpin", "isolated")] for slave in slaves]
        things += host.snapshot().items()
        things += [container.run("ip", f"-{family}", "route", "show", "table", table) for family, table in ROUTES]
        things.append(host.sysctl("ipv4/ip_forward"))
        things.append(host.call("nft", "list", "set", "bridge", "nftcni", "checked").stdout)
        if container.link("eth0"):
            things += [sorted(container.addresses("eth0")), *((key, container.sysctl(key)) for key in LINK_SYSCTLS)]
        lines = [json.dumps(item, default=sorted) for item in (*things, *more)]
        random = [re.escape(item["address"]) for item in links if item["ifname"].startswith("veth")]
        return [re.sub("|".join([*random, r"[0-9a-f-]{36}\.\d+/"]), "*", line) for line in lines]


@pytest.fixture
def named(host: Host, tmp_path: Path) -> Named:
    return Named(host, tmp_path)


@pytest.fixture
def twin(tmp_path: Path) -> Iterator[Named]:
    """The same on another host."""
    other = Host()
    try:
        yield Named(other, tmp_path)
    finally:
        other.close()


def with_key(config: Any, key: str, value: Any) -> Any:
    """A copy with the key in its place, which may be some objects deep."""
    copy = json.loads(json.dumps(config))
    *path, last = key.split(".")
    place = copy
    for step in path:
        place = place.setdefault(step, {})
    place[last] = value
    return copy


def test_the_table_has_every_key() -> None:
    """ptp, bandwidth and static have files of their own, VLANs a test on kernels that have them."""
    rows = {(name, key) for name, key, _, _ in TABLE}
    assert {(name, key) for name, keys in REFERENCE.items() for key in keys} <= rows
    for name in REFERENCE:
        refused = {key for role, key, _, outcome in TABLE if role == name and outcome == REFUSED}
        assert refused >= set(KEYS_OF.get(name, ())), name


@pytest.mark.parametrize(("name", "key", "value", "outcome"), TABLE)
def test_a_key_of_the_reference_plugin(
    named: Named, twin: Named, name: str, key: str, value: Any, outcome: str
) -> None:
    """Done, it makes a difference to a host without it; a neutral value makes none; and DEL leaves nothing."""
    plain: Any = {"portmap": {"runtimeConfig": {"portMappings": [port(8080, 80)]}}}.get(name, {})
    if name in ("bridge", "host-local"):
        plain = BRIDGE
    args = f"{key[len('CNI_ARGS.') :]}={value}" if key.startswith("CNI_ARGS.") else ""
    config = plain if args else with_key(plain, key, value)
    before = named.host.snapshot()
    previous = {item: item.done("ADD", "bridge", BRIDGE) if name in CHAINED else None for item in (named, twin)}
    if outcome == REFUSED:
        answer = named.refused(name, config, previous[named])
        assert answer.code == 2 and f"{key}: {json.dumps(value, separators=(',', ':'))}" in answer.words
    else:
        for item in (named, twin):
            item.host.file("/run/resolv.conf").write_text("nameserver 192.0.2.53\n")
        result = named.done("ADD", name, config, previous[named], args)
        expected = twin.done("ADD", name, plain, previous[twin])
        if outcome == NOTHING:
            assert named.seen(result) == twin.seen(expected)
        else:
            assert named.seen(result) != twin.seen(expected)
        named.done("CHECK", name, config, result, args)
    named.done("DEL", name, config)
    named.done("DEL", "bridge", BRIDGE)
    assert named.host.snapshot() == before
    # The folder above the lease files may have been there before; what is in it may not stay.
    assert not [*named.host.file("/run/foreign").rglob("*")] and not named.host.file("/run/cni/tuning").exists()


# What tuning does with its keys

LONG = ",".join(str(number) for number in range(20000, 20100, 2))
SPOILED = {  # what is asked for: (the setting, another value by hand, what CHECK says)
    "sysctl": (ARP, "echo 0 >/proc/sys/net/ipv4/conf/eth0/arp_filter", "arp_filter is 0, not 1"),
    "mac": (MAC, "ip link set eth0 address 02:00:00:00:00:01", f"not {MAC}"),
    "mtu": (1400, "ip link set eth0 mtu 1300", "the MTU is 1300, not 1400"),
    "promisc": (True, "ip link set eth0 promisc off", "promisc"),
    "allmulti": (True, "ip link set eth0 allmulticast off", "allmulti"),
    "txQLen": (77, "ip link set eth0 txqueuelen 88", "88, not 77"),
}


@pytest.mark.parametrize("place", ["", "args.cni."])
@pytest.mark.parametrize("key", SPOILED)
def test_check_sees_a_setting_that_was_changed(named: Named, key: str, place: str) -> None:
    value, change, said = SPOILED[key]
    config = with_key({}, place + key, value)
    result = named.done("ADD", "tuning", config, named.done("ADD", "bridge", BRIDGE))
    named.done("CHECK", "tuning", config, result)
    named.container.run("sh", "-c", change)
    answer = named.call("CHECK", "tuning", config, result)
    assert answer.code == 104 and said in answer.words


def test_which_mac_address_counts(named: Named) -> None:
    """args.cni, then runtimeConfig, then CNI_ARGS, then the configuration."""
    macs = [f"02:00:00:00:00:0{number}" for number in range(1, 5)]
    places = ["args.cni.mac", "runtimeConfig.mac", "CNI_ARGS.MAC", "mac"]
    previous = named.done("ADD", "bridge", BRIDGE)
    for first in range(4):
        config: Any = {}
        for place, mac in zip(places[first:], macs[first:]):
            config = config if place == "CNI_ARGS.MAC" else with_key(config, place, mac)
        args = f"MAC={macs[2]}" if first <= 2 else ""
        result = named.done("ADD", "tuning", config, previous, args)
        assert named.container.link("eth0")["address"] == macs[first]
        assert [item["mac"] for item in result["interfaces"] if item.get("sandbox")] == [macs[first]]
        named.done("CHECK", "tuning", config, result, args)


@pytest.mark.parametrize(("key", "value", "other"), [("mtu", 1400, 1300), ("txQLen", 77, 88), ("promisc", True, False)])
def test_args_are_stronger_than_the_configuration(named: Named, key: str, value: Any, other: Any) -> None:
    config = {key: other, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "0"}}
    config = with_key(with_key(config, f"args.cni.{key}", value), "args.cni.sysctl", ARP)
    result = named.done("ADD", "tuning", config, named.done("ADD", "bridge", BRIDGE))
    link = named.container.link("eth0")
    assert {"mtu": link["mtu"], "txQLen": link["txqlen"], "promisc": "PROMISC" in link["flags"]}[key] == value
    assert named.container.sysctl("ipv4/conf/eth0/arp_filter") == "1"
    named.done("CHECK", "tuning", config, result)


@pytest.mark.parametrize("value", ["", "8080,9090-9095", LONG], ids=["nothing", "a range", "long"])
def test_a_sysctl_that_is_empty_by_default(named: Named, value: str) -> None:
    key = "net.ipv4.ip_local_reserved_ports"
    config = {"sysctl": {key: value}}
    assert named.container.sysctl("ipv4/ip_local_reserved_ports") == ""
    result = named.done("ADD", "tuning", config, named.done("ADD", "bridge", BRIDGE))
    assert named.container.sysctl("ipv4/ip_local_reserved_ports") == value
    named.done("CHECK", "tuning", config, result)
    named.container.set_sysctl("ipv4/ip_local_reserved_ports", "7000")
    answer = named.call("CHECK", "tuning", config, result)
    assert answer.code == 104 and "ip_local_reserved_ports is 7000" in answer.words


def test_a_sysctl_that_is_given_twice(named: Named) -> None:
    config = {"sysctl": {"net.ipv4.conf.eth0.arp_filter": "1", "net/ipv4/conf/IFNAME/arp_filter": "0"}}
    answer = named.refused("tuning", config, named.done("ADD", "bridge", BRIDGE))
    assert answer.code == 7 and "net/ipv4/conf/IFNAME/arp_filter" in answer.words and "twice" in answer.words


def test_a_sysctl_that_the_kernel_has_not(named: Named) -> None:
    config = {"sysctl": {"net.ipv4.no_such_thing": "1"}}
    answer = named.refused("tuning", config, named.done("ADD", "bridge", BRIDGE))
    assert answer.code == 7 and "ipv4/no_such_thing" in answer.words


def test_the_administrators_list_of_sysctls(named: Named) -> None:
    """Its lines are regular expressions, which the key as it is written must match."""
    layers = "lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work"
    named.host.run("sh", "-ec", f"mkdir /run/etc /run/etc.work; mount -t overlay -o {layers} etc /etc")
    named.host.run("mkdir", "-p", "/etc/cni/tuning")
    named.host.file("/etc/cni/tuning/allowlist.conf").write_text("^net\\.ipv4\\.conf\\.[^.]*\\.arp_filter$\n\n")
    previous = named.done("ADD", "bridge", BRIDGE)
    named.done("ADD", "tuning", {"sysctl": ARP}, previous)
    assert named.container.sysctl("ipv4/conf/eth0/arp_filter") == "1"
    answer = named.refused("tuning", {"sysctl": {"net.ipv4.ip_forward": "1"}}, previous)
    assert answer.code == 7 and "net.ipv4.ip_forward" in answer.words and "allowlist.conf" in answer.words
    assert named.container.sysctl("ipv4/ip_forward") == "0"


def test_an_interface_that_lives_on_is_given_back_as_it_was(named: Named) -> None:
    """As behind host-device: what another plugin brought is taken back by its own DEL, later."""
    container = named.container
    container.run("ip", "link", "add", "eth0", "txqueuelen", "55", "type", "veth", "peer", "name", "other")
    container.run("ip", "link", "set", "eth0", "allmulticast", "on")
    before, seen = named.host.snapshot(), named.seen()
    sandbox = {"name": "eth0", "mac": container.link("eth0")["address"], "sandbox": container.path}
    previous = {"cniVersion": "1.0.0", "interfaces": [sandbox], "ips": []}
    config = {"promisc": True, "allmulti": False, "txQLen": 77, "mtu": 1400, "mac": MAC, "dataDir": "/run/cni/tuning"}
    for _ in range(2):  # what was before the first counts
        named.done("ADD", "tuning", config, previous)
    link = container.link("eth0")
    assert (link["txqlen"], link["mtu"], link["address"]) == (77, 1400, MAC)
    assert "PROMISC" in link["flags"] and "ALLMULTI" not in link["flags"]
    assert named.host.run("find", "/run/cni", "-mindepth", "1") == ""
    named.done("DEL", "tuning", config)
    assert named.seen() == seen
    assert named.host.snapshot() == before


def test_its_folder_is_not_ours_and_the_record_follows(named: Named) -> None:
    """`dataDir` is where the reference keeps what was before; repair and CHECK know the interface as it is now."""
    before = named.host.snapshot()
    config = {"dataDir": "/run/cni/tuning", "mac": MAC, "mtu": 1400}
    result = named.done("ADD", "tuning", config, named.done("ADD", "bridge", BRIDGE))
    assert named.host.run("find", "/run/cni", "-mindepth", "1") == ""
    [record] = [path for path in named.host.state_files() if "/attachments/" in path]
    text = named.host.file(f"/run/nftcni/{record}").read_text()
    assert MAC in text and "1400" in text
    for name in ("bridge", "tuning"):
        named.done("CHECK", name, BRIDGE if name == "bridge" else config, result)
    assert named.host.command("repair", "--check").returncode == 0
    named.done("DEL", "tuning", config)
    named.done("DEL", "bridge", BRIDGE)
    assert named.host.snapshot() == before
