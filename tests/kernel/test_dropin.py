"""The drop-in names: nerdctl's own generated chain, and portmap and firewall behind the reference plugins' ptp.

The chains run as libcni runs them: each plugin gets the result before it as prevResult, DEL goes backwards.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.scratch import CHECKOUT, Host, port
from support.traffic import Server, ask

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

    def __init__(self, host: Host, folder: Path, plugins: list[dict[str, Any]], version: str = "1.0.0") -> None:
        self.host = host
        self.folder = folder
        self.plugins = plugins
        self.common = {"cniVersion": version, "name": "chain"}
        self.ifname = "eth0"
        for name in NAMES:
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(CHECKOUT / "conf" / "nftcni")

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


def test_nerdctl_chain_serves_and_leaves_nothing(host: Host, tmp_path: Path) -> None:
    lan = host.neighbour()
    container = host.container("c1")
    before = host.snapshot()
    chain = Chain(host, tmp_path, NERDCTL)
    result = chain.add("c1")
    assert [item["name"] for item in result["interfaces"]][::2] == ["nerdctl0", "eth0"]
    with Server(container, 80):
        assert ask(lan, "198.51.100.1", 8080) == "c1 198.51.100.2"
        assert ask(host, "127.0.0.1", 8080) == "c1 10.4.0.1"
    chain.check("c1", result)
    chain.delete("c1")
    chain.delete("c1")
    assert host.snapshot() == before


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
    assert set(host.elements()) == {"attachments", "bridges", "own4", "same_net"}
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


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("bridge", "vlan", 5),
        ("bridge", "macspoofchk", True),
        ("bridge", "promiscMode", True),
        ("bridge", "ipMasqBackend", "pf"),
        ("portmap", "masqAll", True),
        ("portmap", "snat", False),
        ("portmap", "markMasqBit", 14),
        ("portmap", "conditionsV4", ["!", "-d", "192.0.2.0/24"]),
        ("firewall", "backend", "firewalld"),
        ("firewall", "firewalldZone", "internal"),
    ],
)
def test_keys_that_are_not_done_are_refused_by_name(
    host: Host, tmp_path: Path, name: str, key: str, value: object
) -> None:
    chain = Chain(host, tmp_path, [])
    host.container("c1")
    previous = {"cniVersion": "1.0.0", "ips": [{"address": "10.4.0.2/24"}]}
    config = {"type": name, key: value, **chain.common, "prevResult": previous, "ipam": {}}
    answer = host.refused("ADD", config, plugin=str(tmp_path / name))
    assert answer.code == 2 and key in answer.words


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs the package containernetworking-plugins: /usr/lib/cni")
@pytest.mark.parametrize("ipam", ["drop-in", "reference"])
def test_ports_behind_a_foreign_main_plugin(host: Host, tmp_path: Path, ipam: str) -> None:
    lan = host.neighbour()
    container = host.container("c1")
    before = host.snapshot()
    main = {"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.5.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}
    chain = Chain(host, tmp_path, [main, NERDCTL[1], NERDCTL[2]])
    (tmp_path / "ptp").symlink_to(REFERENCE / "ptp")
    if ipam == "reference":
        (tmp_path / "host-local").unlink()
        (tmp_path / "host-local").symlink_to(REFERENCE / "host-local")
    host.env["PATH"] = os.environ["PATH"]
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


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs the package containernetworking-plugins: /usr/lib/cni")
def test_ports_of_macvlan_reach_the_container_from_the_lan_side_only_by_its_own_way(host: Host, tmp_path: Path) -> None:
    """A macvlan has no link on the host: there must be no bridge element of the host's own uplink."""
    host.neighbour()
    host.container("c1")
    before = host.snapshot()
    ipam = {"type": "host-local", "subnet": "198.51.100.0/24", "rangeStart": "198.51.100.100"}
    chain = Chain(host, tmp_path, [{"type": "macvlan", "master": "to-lan", "ipam": ipam}, NERDCTL[1]])
    (tmp_path / "macvlan").symlink_to(REFERENCE / "macvlan")
    chain.add("c1")
    elements = host.elements()
    assert set(elements) == {"attachments", "dnat4"}
    chain.delete("c1")
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
