"""The drop-in names in chains: nerdctl's own, Nomad's, and portmap and firewall behind main plugins of others.

The chains run as libcni runs them: each plugin gets the result before it as prevResult, DEL goes backwards. Every key
of every name is in test_keys.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from support.scratch import CHECKOUT, Host, Namespace, network, port
from support.traffic import Server, ask, ask_on, open_socket, serving

REFERENCE = Path("/usr/lib/cni")
NAMES = ("bridge", "portmap", "firewall", "tuning", "host-local", "loopback")
PORTS = [port(8080, 80, ip="0.0.0.0"), port(53, 53, "udp", "0.0.0.0")]
IPAM = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.4.0.0/24", "gateway": "10.4.0.1"}]],
    "routes": [{"dst": "0.0.0.0/0"}],
}
NERDCTL = [
    {"type": "bridge", "bridge": "nerdctl0", "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": IPAM},
    {"type": "portmap", "runtimeConfig": {"portMappings": PORTS}},
    {"type": "firewall", "ingressPolicy": "same-bridge"},
    {"type": "tuning"},
]


class Chain:
    """A conflist's plugins in a CNI bin directory of links to the one executable."""

    def __init__(
        self,
        host: Host,
        folder: Path,
        plugins: list[dict[str, Any]],
        version: str = "1.0.0",
        reference: tuple[str, ...] = (),
    ) -> None:
        """`reference` are the types that shall be the reference plugins' own."""
        self.host = host
        self.folder = folder
        self.plugins = plugins
        self.common = {"cniVersion": version, "name": "chain"}
        self.ifname = "eth0"
        for name in {*NAMES, *reference}:
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(REFERENCE / name if name in reference else CHECKOUT / "conf" / "nftcni")

    def call(self, verb: str, plugin: dict[str, Any], container: str, previous: Any) -> Any:
        config = {**plugin, **self.common, **({"prevResult": previous} if previous else {})}
        options: dict[str, Any] = {"plugin": str(self.folder / plugin["type"]), "env": {"CNI_PATH": str(self.folder)}}
        answer = self.host.cni(verb, config, container, ifname=self.ifname, **options)
        assert answer.status == 0, f"{verb} {plugin['type']}: {answer.stdout}{answer.stderr}"
        return answer.document

    def add(self, container: str) -> Any:
        result = None
        for plugin in self.plugins:
            result = self.call("ADD", plugin, container, result)
        return result

    def check(self, container: str, result: Any) -> None:
        for plugin in self.plugins:
            self.call("CHECK", plugin, container, result)

    def delete(self, container: str) -> None:
        for plugin in reversed(self.plugins):
            self.call("DEL", plugin, container, None)


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_nerdctl_chain_serves_and_leaves_nothing(host: Host, tmp_path: Path, version: str) -> None:
    lan = host.neighbour()
    container = host.container("c1")
    before = host.snapshot()
    chain = Chain(host, tmp_path, NERDCTL, version)
    result = chain.add("c1")
    assert [item["name"] for item in result["interfaces"]][::2] == ["nerdctl0", "eth0"]
    with Server(container, 80):
        assert ask(lan, "198.51.100.1", 8080) == "c1 198.51.100.2"
        assert ask(host, "127.0.0.1", 8080) == "c1 10.4.0.1"
    if version not in ("0.3.0", "0.3.1"):  # which have no CHECK
        chain.check("c1", result)
    chain.delete("c1")
    chain.delete("c1")
    assert host.snapshot() == before


def flows_with(host: Host, protocol: str, number: int) -> list[str]:
    """The kernel's own numbers of the flows whose first packet went to this port."""
    listed = host.run("conntrack", "-L", "-p", protocol, "--orig-port-dst", str(number), "-o", "id")
    return re.findall(r" id=(\d+)", listed)


def test_ports_that_are_given_up_cost_a_living_container_no_other_flow(host: Host, tmp_path: Path) -> None:
    """DEL of portmap alone: what came by its ports is forgotten; not what the container has begun, nor what reached it
    by its own address."""
    lan, inside = host.neighbour(), host.container("c1")
    chain = Chain(host, tmp_path, NERDCTL)
    chain.add("c1")
    ways = [(lan, "198.51.100.1", 8080), (inside, "198.51.100.2", 81), (host, "10.4.0.2", 82)]
    servers = (Server(inside, 80), Server(inside, 82), Server(lan, 81), Server(inside, 53, "udp"))
    with serving(*servers), contextlib.ExitStack() as held:
        for place, address, number in ways:
            client = held.enter_context(open_socket(place, socket.AF_INET, "tcp"))
            assert ask_on(client, address, number) != "silence"
        assert ask(lan, "198.51.100.1", 53, "udp") == "c1 198.51.100.2"
        before = [flows_with(host, "tcp", number) for _place, _address, number in ways]
        assert all(before) and flows_with(host, "udp", 53)
        chain.call("DEL", NERDCTL[1], "c1", None)
        assert [flows_with(host, "tcp", number) for _place, _address, number in ways] == [[], *before[1:]]
        assert flows_with(host, "udp", 53) == []


@pytest.mark.parametrize(
    ("plugin", "element"),
    [
        (NERDCTL[1], "dnat4 { tcp . 8080 }"),
        (NERDCTL[1], "dnat4 { udp . 53 }"),
        (NERDCTL[2], 'isolated { "nerdctl0" }'),
        (NERDCTL[2], 'bridges { "nerdctl0" }'),
    ],
)
def test_check_of_a_name_sees_what_is_missing_of_its_work(
    host: Host, tmp_path: Path, plugin: dict[str, Any], element: str
) -> None:
    host.container("c1")
    chain = Chain(host, tmp_path, NERDCTL)
    result = chain.add("c1")
    chain.call("CHECK", plugin, "c1", result)
    host.nft(f"delete element inet nftcni {element}")
    config = {**plugin, **chain.common, "prevResult": result}
    answer = host.cni("CHECK", config, "c1", plugin=str(tmp_path / plugin["type"]))
    assert answer.code == 104, answer.stdout
    chain.add("c1")
    chain.call("CHECK", plugin, "c1", result)


def test_chain_added_again_answers_the_same(host: Host, tmp_path: Path) -> None:
    host.container("c1")
    chain = Chain(host, tmp_path, NERDCTL)
    first = chain.add("c1")
    elements = host.elements()
    assert chain.add("c1") == first
    assert host.elements() == elements


def test_bridge_alone_has_the_reference_plugins_defaults(host: Host, tmp_path: Path) -> None:
    container = host.container("c1")
    Chain(host, tmp_path, [{"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.4.0.0/24"}}]).add("c1")
    assert host.link("cni0")["linkinfo"]["info_kind"] == "bridge"
    assert host.addresses("cni0") == set()
    assert set(host.elements()) == {"attachments", "bridges", "bridge_macs", "same_net"}
    assert container.json("ip", "-j", "route", "show", "default") == []
    assert host.sysctl("ipv4/ip_forward") == "0"


def test_portmap_without_ports_touches_nothing(host: Host, tmp_path: Path) -> None:
    chain = Chain(host, tmp_path, [NERDCTL[0], {"type": "portmap"}])
    host.container("c1")
    chain.add("c1")
    assert "dnat4" not in host.elements()


def test_portmap_refuses_a_port_that_another_container_has(host: Host, tmp_path: Path) -> None:
    chain = Chain(host, tmp_path, NERDCTL)
    for name in ("c1", "c2"):
        host.container(name)
    chain.add("c1")
    bridge = chain.call("ADD", NERDCTL[0], "c2", None)
    config = {**NERDCTL[1], **chain.common, "prevResult": bridge}
    answer = host.refused("ADD", config, "c2", plugin=str(tmp_path / "portmap"))
    assert answer.code == 100
    assert "8080" in answer.words and "chain" in answer.words and "c1" in answer.words


def test_portmap_del_gives_back_the_ports_and_keeps_the_interface(host: Host, tmp_path: Path) -> None:
    chain = Chain(host, tmp_path, NERDCTL)
    container = host.container("c1")
    chain.add("c1")
    chain.call("DEL", NERDCTL[1], "c1", None)
    assert "dnat4" not in host.elements()
    assert not [path for path in host.state_files() if "/ports/" in path]
    assert container.addresses("eth0") == {"10.4.0.2/24"}


def test_firewall_isolates_and_open_does_not(host: Host, tmp_path: Path) -> None:
    chain = Chain(host, tmp_path, NERDCTL)
    host.container("c1")
    chain.add("c1")
    assert host.elements()["isolated"] == ["nerdctl0"]
    ipam = {**IPAM, "ranges": [[{"subnet": "10.5.0.0/24"}]]}
    open_chain = Chain(host, tmp_path, [{**NERDCTL[0], "bridge": "open0", "ipam": ipam}, {"type": "firewall"}])
    open_chain.common["name"] = "open"
    host.container("c2")
    open_chain.add("c2")
    assert host.elements()["isolated"] == ["nerdctl0"]


def test_tuning_sets_the_interface_and_the_result_says_so(host: Host, tmp_path: Path) -> None:
    mac = "02:11:22:33:44:55"
    tuning = {
        **{"type": "tuning", "mac": mac, "mtu": 1400, "promisc": True, "allmulti": True, "txQLen": 77},
        "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net/ipv4/conf/all/rp_filter": "2"},
    }
    container = host.container("c1")
    chain = Chain(host, tmp_path, [NERDCTL[0], tuning])
    before = host.snapshot()
    result = chain.add("c1")
    link = container.link("eth0")
    assert (link["address"], link["mtu"], link["txqlen"]) == (mac, 1400, 77)
    assert {"PROMISC", "ALLMULTI"} <= set(link["flags"])
    assert container.sysctl("ipv4/conf/eth0/arp_filter") == "1"
    assert container.sysctl("ipv4/conf/all/rp_filter") == "2"
    assert [item["mac"] for item in result["interfaces"] if item.get("sandbox")] == [mac]
    chain.check("c1", result)
    container.run("ip", "link", "set", "eth0", "mtu", "1300")
    answer = host.cni("CHECK", {**tuning, **chain.common, "prevResult": result}, plugin=str(tmp_path / "tuning"))
    assert answer.code == 104 and "1300" in answer.words
    chain.delete("c1")
    assert host.snapshot() == before


@pytest.mark.parametrize("key", ["kernel.hostname", "net/../kernel/hostname", "vm.swappiness"])
def test_tuning_refuses_sysctls_outside_net(host: Host, tmp_path: Path, key: str) -> None:
    chain = Chain(host, tmp_path, [NERDCTL[0]])
    host.container("c1")
    result = chain.add("c1")
    config = {"type": "tuning", "sysctl": {key: "1"}, **chain.common, "prevResult": result}
    answer = host.refused("ADD", config, plugin=str(tmp_path / "tuning"))
    assert answer.code == 7 and key in answer.words


def test_tuning_gives_a_foreign_interface_back_as_it_was(host: Host, tmp_path: Path) -> None:
    container = host.container("c1")
    container.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    before = container.link("eth0")
    sandbox = {"name": "eth0", "mac": before["address"], "sandbox": container.path}
    previous = {"cniVersion": "1.0.0", "interfaces": [sandbox], "ips": []}
    chain = Chain(host, tmp_path, [])
    plugin = {"type": "tuning", "mtu": 1300, "mac": "02:00:00:00:00:01"}
    chain.call("ADD", plugin, "c1", previous)
    assert container.link("eth0")["mtu"] == 1300
    chain.call("DEL", plugin, "c1", None)
    after = container.link("eth0")
    assert (after["mtu"], after["address"]) == (before["mtu"], before["address"])
    assert host.state_files() == []


def test_loopback_goes_up_and_down(host: Host, tmp_path: Path) -> None:
    container = host.container("c1")
    chain = Chain(host, tmp_path, [{"type": "loopback"}], "0.3.1")
    result = chain.add("c1")
    assert "UP" in container.link("lo")["flags"]
    assert {item["address"] for item in result["ips"]} == {"127.0.0.1/8", "::1/128"}
    chain.delete("c1")
    assert "UP" not in container.link("lo")["flags"]


def test_firewall_answers_nerdctls_version_probe(host: Host, tmp_path: Path) -> None:
    Chain(host, tmp_path, [])
    done = host.call(str(tmp_path / "firewall"))
    prefix, version = done.stderr.splitlines()[0].rsplit(" ", 1)
    assert (done.returncode, done.stdout, prefix) == (0, "", "CNI firewall plugin")
    major, minor, _patch = version.lstrip("v").split("+")[0].split(".")
    assert (int(major), int(minor)) >= (1, 7)


# Behind main plugins of others


@pytest.fixture
def foreign(host: Host) -> Host:
    """A host with the reference plugins, and with iptables, which they may want."""
    if not REFERENCE.is_dir():
        words = f"NOT RUN: needs the package containernetworking-plugins in {REFERENCE}"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    host.env["PATH"] = os.environ["PATH"]
    return host


def other_network(host: Host, number: int = 8088) -> Namespace:
    """A container of an open network of our own, which publishes a port, too."""
    host.add(network("other", "10.99.0.0/24", ports=[port(number, 80)], isolation=False), "c9")
    return host.place("c9")


def ptp(folder: str = "host-local") -> dict[str, Any]:
    return {"type": "ptp", "ipam": {"type": folder, "subnet": "10.5.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}


@pytest.mark.parametrize("ipam", ["drop-in", "reference"])
def test_ports_behind_a_foreign_main_plugin(foreign: Host, tmp_path: Path, ipam: str) -> None:
    host, lan = foreign, foreign.neighbour()
    container = host.container("c1")
    before = host.snapshot()
    main = ("ptp",) if ipam == "drop-in" else ("ptp", "host-local")
    chain = Chain(host, tmp_path, [ptp(), NERDCTL[1], NERDCTL[2]], reference=main)
    result = chain.add("c1")
    with Server(container, 80):
        assert ask(lan, "198.51.100.1", 8080) == "c1 198.51.100.2"
        assert ask(host, "127.0.0.1", 8080) == "c1 10.5.0.1"
        assert ask(container, "198.51.100.1", 8080) == "c1 10.5.0.1"
    chain.check("c1", result)
    assert host.command("repair", "--check").returncode == 0
    host.run("nft", "flush", "ruleset")
    assert host.command("repair").returncode == 0
    with Server(container, 80):
        assert ask(lan, "198.51.100.1", 8080) == "c1 198.51.100.2"
    chain.delete("c1")
    assert host.snapshot() == before


def test_firewall_behind_ptp(foreign: Host, tmp_path: Path) -> None:
    """Containers of other networks come in by the published port, not directly; the way out stays open."""
    host, lan = foreign, foreign.neighbour()
    container, other = host.container("c1"), other_network(host)
    before = host.snapshot()
    open_chain = Chain(host, tmp_path, [ptp(), NERDCTL[1]], reference=("ptp",))
    chain = Chain(host, tmp_path, [ptp(), NERDCTL[1], NERDCTL[2]], reference=("ptp",))
    with Server(container, 80):
        result = open_chain.add("c1")
        inner = result["ips"][0]["address"].split("/")[0]
        assert ask(other, inner, 80) == "c1 10.99.0.2", "nothing but firewall keeps it away"
        open_chain.delete("c1")
        result = chain.add("c1")
        inner = result["ips"][0]["address"].split("/")[0]
        assert ask(other, inner, 80) in ("refused", "silence")
        assert ask(other, "198.51.100.1", 8080).startswith("c1 ")
    with Server(other, 80):
        assert ask(container, "10.99.0.2", 80) == f"c9 {inner}", "that network is open"
        assert ask(container, "198.51.100.1", 8088).startswith("c9 ")
    lan.run("ip", "route", "add", "10.5.0.0/24", "via", "198.51.100.1")
    with Server(lan, 80):
        assert ask(container, "198.51.100.2", 80) == f"lan {inner}"
    chain.check("c1", result)
    chain.delete("c1")
    assert host.snapshot() == before


def test_firewall_without_ports_behind_ptp_with_our_addresses(foreign: Host, tmp_path: Path) -> None:
    host = foreign
    container, other = host.container("c1"), other_network(host)
    before = host.snapshot()
    chain = Chain(host, tmp_path, [ptp(), {"type": "portmap"}, NERDCTL[2]], reference=("ptp",))
    result = chain.add("c1")
    with Server(container, 80):
        assert ask(other, result["ips"][0]["address"].split("/")[0], 80) in ("refused", "silence")
    chain.check("c1", result)
    chain.delete("c1")
    assert host.snapshot() == before


@pytest.mark.parametrize("netfilter", ["0", "1"])
def test_ports_and_isolation_behind_a_foreign_bridge(foreign: Host, tmp_path: Path, netfilter: str) -> None:
    """Whether bridged frames pass the host's IP tables or not."""
    host, lan = foreign, foreign.neighbour()
    host.bridge_netfilter(netfilter)
    host.run("ip", "link", "add", "theirs0", "address", "02:00:00:00:00:0b", "type", "bridge")  # it stays
    host.run("ip", "link", "set", "theirs0", "up")
    host.run("ip", "addr", "add", "10.4.0.1/24", "dev", "theirs0")
    container, sibling, other = host.container("c1"), host.container("c2"), other_network(host)
    before = host.snapshot()
    main = {"type": "bridge", "bridge": "theirs0", "isGateway": True, "hairpinMode": True, "ipam": IPAM}
    chain = Chain(host, tmp_path, [main, *NERDCTL[1:3]], reference=("bridge", "host-local"))
    result = chain.add("c1")
    chain.plugins = [main, {"type": "portmap"}, NERDCTL[2]]
    second = chain.add("c2")
    chain.plugins = [main, *NERDCTL[1:3]]
    inner, near = (item["ips"][0]["address"].split("/")[0] for item in (result, second))
    with Server(container, 80), Server(container, 53, "udp"), Server(sibling, 80), Server(other, 80):
        assert ask(lan, "198.51.100.1", 8080) == "c1 198.51.100.2"
        assert ask(lan, "198.51.100.1", 53, "udp") == "c1 198.51.100.2"
        assert ask(host, "127.0.0.1", 8080) == "c1 10.4.0.1"
        assert ask(container, "198.51.100.1", 8080).startswith("c1 ")
        assert ask(sibling, "198.51.100.1", 8080).startswith("c1 ")
        assert ask(sibling, inner, 80) == f"c1 {near}", "siblings are not kept from each other"
        assert ask(other, "198.51.100.1", 8080).startswith("c1 ")
        assert ask(container, "198.51.100.1", 8088).startswith("c9 ")
        for asking, address in ((other, inner), (other, near)):
            assert ask(asking, address, 80) in ("refused", "silence")
        for asking in (container, sibling):
            assert ask(asking, "10.99.0.2", 80).startswith("c9 "), "that network is open"
    chain.check("c1", result)
    chain.delete("c1")
    chain.delete("c2")
    chain.delete("c1")
    assert host.snapshot() == before


@pytest.mark.parametrize("main", ["bridge", "ptp"])
def test_firewall_cannot_part_siblings_behind_others(foreign: Host, tmp_path: Path, main: str) -> None:
    """Whose ports on which bridge is the main plugin's. Under `bridge` our own drop-in does it."""
    host = foreign
    host.container("c1")
    plugin = {"bridge": {**NERDCTL[0], "bridge": "theirs0"}, "ptp": ptp()}[main]
    chain = Chain(host, tmp_path, [plugin], reference=(main, "host-local"))
    result = chain.add("c1")
    config = {"type": "firewall", "ingressPolicy": "isolated", **chain.common, "prevResult": result}
    answer = host.refused("ADD", config, plugin=str(tmp_path / "firewall"))
    assert answer.code == 2 and "ingressPolicy" in answer.words and "isolated" in answer.words


def test_macvlan_publishes_for_the_host_and_isolates_nothing(foreign: Host, tmp_path: Path) -> None:
    """The LAN reaches the container without passing the host. The host has no link of it: no element may be made of
    the host's own uplink, and what cannot be isolated there is refused."""
    host, lan = foreign, foreign.neighbour()
    container = host.container("c1")
    before = host.snapshot()
    ipam = {"type": "host-local", "subnet": "198.51.100.0/24", "rangeStart": "198.51.100.100"}
    main = {"type": "macvlan", "master": "to-lan", "ipam": ipam}
    chain = Chain(host, tmp_path, [main, NERDCTL[1]], reference=("macvlan",))
    result = chain.add("c1")
    assert set(host.elements()) - {"unrouted"} == {"attachments", "dnat4", "self4"}
    with Server(container, 80), Server(lan, 80):
        assert ask(lan, "198.51.100.100", 80) == "c1 198.51.100.2"
        assert ask(container, "198.51.100.2", 80) == "lan 198.51.100.100"
    chain.check("c1", result)
    config = {**NERDCTL[2], **chain.common, "prevResult": result}
    answer = host.refused("ADD", config, plugin=str(tmp_path / "firewall"))
    assert answer.code == 2 and "ingressPolicy" in answer.words and "same-bridge" in answer.words
    chain.delete("c1")
    assert host.snapshot() == before


NOMAD = [  # client/allocrunner/networking_bridge_linux.go of Nomad, with its second range set for IPv6
    {"type": "loopback"},
    {
        **{"type": "bridge", "bridge": "nomad", "ipMasq": True, "isGateway": True, "forceAddress": True},
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "172.26.64.0/20"}], [{"subnet": "fd00:a110:c8::/120"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
    },
    {"type": "firewall", "backend": "iptables", "iptablesAdminChainName": "NOMAD-ADMIN"},
    {"type": "firewall", "backend": "ip6tables", "iptablesAdminChainName": "NOMAD-ADMIN"},
    {"type": "portmap", "snat": True, "runtimeConfig": {"portMappings": [port(23456, 80), port(23456, 80, "udp")]}},
]


def test_nomads_chain(host: Host, tmp_path: Path) -> None:
    lan = host.neighbour()
    host.set_sysctl("ipv6/conf/all/forwarding", "1")  # stays on, and brings routes
    container, sibling = host.container("alloc1"), host.container("alloc2")
    before = host.snapshot()
    chain = Chain(host, tmp_path, NOMAD, "0.4.0")
    result = chain.add("alloc1")
    chain.plugins = NOMAD[:-1]
    chain.add("alloc2")
    chain.plugins = NOMAD
    with Server(container, 80, name="web"), Server(container, 80, "udp", "web"):
        for address, client in (("198.51.100.1", "198.51.100.2"), ("2001:db8:100::1", "2001:db8:100::2")):
            for protocol in ("tcp", "udp"):
                assert ask(lan, address, 23456, protocol) == f"web {client}"
                assert ask(sibling, address, 23456, protocol).startswith("web ")
                assert ask(container, address, 23456, protocol).startswith("web "), "hairpin"
        assert ask(host, "127.0.0.1", 23456).startswith("web ")
        assert ask(container, "127.0.0.1", 80) == "web 127.0.0.1"
    with Server(lan, 80):
        for address, seen in (("198.51.100.2", "198.51.100.1"), ("2001:db8:100::2", "2001:db8:100::1")):
            assert ask(container, address, 80) == f"lan {seen}"
    chain.check("alloc1", result)
    for name in ("alloc1", "alloc2", "alloc1"):
        chain.delete(name)
    assert host.snapshot() == before


CONSUL = """#!/usr/bin/python3
# What consul-cni does to an allocation: whatever comes in goes to the proxy first. It passes the result on.
import json, os, subprocess, sys
document = json.load(sys.stdin)
if os.environ["CNI_COMMAND"] == "ADD":
    chain = "type nat hook prerouting priority dstnat; tcp dport 80 redirect to :20000;"
    words = ["nsenter", "--net=" + os.environ["CNI_NETNS"], "nft", "table ip consul { chain in { %s }; }" % chain]
    subprocess.run(words, check=True)
    print(json.dumps({"cniVersion": document["cniVersion"], **document["prevResult"]}))
"""


def test_nomads_chain_with_consuls_plugin_at_its_end(host: Host, tmp_path: Path) -> None:
    lan = host.neighbour()
    host.set_sysctl("ipv6/conf/all/forwarding", "1")
    container = host.container("alloc1")
    before = host.snapshot()
    (tmp_path / "consul-cni").write_text(CONSUL)
    (tmp_path / "consul-cni").chmod(0o755)
    chain = Chain(host, tmp_path, [*NOMAD, {"type": "consul-cni", "log_level": "debug"}], "0.4.0")
    result = chain.add("alloc1")
    with Server(container, 20000, name="proxy"):
        assert ask(lan, "198.51.100.1", 23456) == "proxy 198.51.100.2"
    chain.check("alloc1", result)
    chain.delete("alloc1")
    assert host.snapshot() == before


def test_gc_under_a_drop_in_name_takes_what_is_not_valid(host: Host, tmp_path: Path) -> None:
    chain = Chain(host, tmp_path, NERDCTL, "1.1.0")
    for name in ("c1", "c2"):
        host.container(name)
    chain.add("c1")
    chain.plugins = [NERDCTL[0], *NERDCTL[2:]]
    chain.add("c2")
    for plugin in chain.plugins:
        config = {**plugin, "cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
        chain.call("GC", config, "", None)
    assert [path.rsplit("/", 1)[1] for path in host.state_files() if "/attachments/" in path] == ["c2@eth0"]
    assert "dnat4" not in host.elements()


@pytest.mark.parametrize("gone", ["one", "two"])
def test_ports_of_a_container_pass_to_its_other_network(host: Host, tmp_path: Path, gone: str) -> None:
    """go-cni and podman give every network's `portmap` all ports of the container."""
    lan = host.neighbour()
    container = host.container("c1")
    before = host.snapshot()
    chains = {}
    results = {}
    for number, name in enumerate(("one", "two")):
        ipam = {"type": "host-local", "subnet": f"10.{4 + number}.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
        chain = Chain(host, tmp_path, [{**NERDCTL[0], "bridge": f"br{number}", "ipam": ipam}, *NERDCTL[1:]])
        chain.common["name"] = name
        chain.ifname = f"eth{number}"
        chains[name] = chain
        results[name] = chain.add("c1")
    for name, chain in chains.items():
        chain.check("c1", results[name])
    kept = "two" if gone == "one" else "one"
    with Server(container, 80):
        assert ask(lan, "198.51.100.1", 8080) == "c1 198.51.100.2"
        chains[gone].delete("c1")
        assert ask(lan, "198.51.100.1", 8080) == "c1 198.51.100.2"
    chains[kept].check("c1", results[kept])
    assert host.command("repair", "--check").returncode == 0
    chains[kept].delete("c1")
    assert host.snapshot() == before
