"""Links of a chain with nothing to do answer before the plugin is loaded: as the long way does, and only then.

The long way is taken wherever NFTCNI_DATA_DIR is set; what is loaded is read from `-X importtime`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.scratch import CHECKOUT, Host, network, port

# Where there may be a firewalld, or an administrator's chain of iptables, `firewall` has to look.
FIREWALLS = ("/usr/sbin/iptables", "/sbin/iptables")
COMMON = {"cniVersion": "1.0.0", "name": "net0"}
LONG = {"NFTCNI_DATA_DIR": "/run/nftcni"}
PREVIOUS = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "br-net0"}, {"name": "eth0", "sandbox": "/run/netns/c1"}],
    "ips": [{"address": "10.88.0.2/16", "gateway": "10.88.0.1", "interface": 1}],
    "dns": {"nameservers": ["192.0.2.1"]},
}


@pytest.fixture
def named(host: Host, tmp_path: Path) -> tuple[Host, Path]:
    for name in ("bridge", "tuning", "portmap", "firewall"):
        (tmp_path / name).symlink_to(CHECKOUT / "conf" / "nftcni")
    host.container("c1")
    return host, tmp_path


# All that a short answer loads: what starts us, JSON, the names and versions to compare with.
SHORT = {
    *("cni", "cni.main", "cni.stdlib", "cni.dropin", "cni.dropin.passthrough", "nft", "nft.signals", "nft.system"),
    *("cni.protocol.roles", "cni.protocol.jsontext", "cni.protocol.name_rules", "cni.protocol.versions"),
    *("cni.protocol", "cni.protocol.stdio", "cni.protocol.journal"),
}


def is_short(host: Host, plugin: Path, verb: str, config: Any) -> bool:
    variables = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1"}
    variables |= {"CNI_IFNAME": "eth0", "CNI_PATH": str(plugin.parent)}
    words = ("/usr/bin/python3", "-X", "importtime", "-IS", str(plugin))
    done = host.call(*words, input=json.dumps(config), env=variables)
    assert done.returncode == 0, done.stdout
    names = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    loaded = {name for name in names if name.split(".")[0] in ("cni", "nft", "_socket", "_struct", "_blake2")}
    silent = plugin.name != "portmap"  # what it does is told to the journal
    assert "cni.protocol.request" in loaded or not silent or loaded <= SHORT, loaded - SHORT
    return "cni.protocol.request" not in loaded


@pytest.mark.parametrize(
    ("role", "keys", "short"),
    [
        ("tuning", {}, True),
        ("tuning", {"sysctl": {"net.ipv4.conf.all.log_martians": "1"}}, False),
        ("tuning", {"MTU": 1400}, False),
        ("tuning", {"runtimeConfig": {"mac": "02:00:00:00:00:05"}}, False),
        ("tuning", {"args": {"cni": {"mtu": 1400}}}, False),
        ("portmap", {"capabilities": {"portMappings": True}}, True),
        ("portmap", {"runtimeConfig": {"dns": {}}}, True),
        ("portmap", {"runtimeConfig": {"PortMappings": [port(8080, 80)]}}, False),
        ("portmap", {"snat": False}, False),
        ("firewall", {}, not any(map(os.path.exists, FIREWALLS))),
        ("firewall", {"ingressPolicy": "same-bridge"}, False),
        ("firewall", {"backend": "iptables"}, False),
    ],
)
def test_add_answers_as_the_long_way_does(
    named: tuple[Host, Path], role: str, keys: dict[str, Any], short: bool
) -> None:
    host, folder = named
    config = {**COMMON, "type": role, "prevResult": PREVIOUS, **keys}
    if short:
        assert is_short(host, folder / role, "ADD", config)
        assert not host.state_files(), "nothing was touched"
    answers = [host.cni("ADD", config, plugin=str(folder / role), env=env) for env in (None, LONG)]
    if short:
        assert answers[0].document == answers[1].document == {**PREVIOUS, "cniVersion": "1.0.0"}
    else:
        assert (answers[0].status, answers[0].stdout) == (answers[1].status, answers[1].stdout)


@pytest.mark.parametrize("role", ["tuning", "portmap", "firewall"])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"prevResult": None}, 7),
        ({"prevResult": []}, 7),
        ({"prevResult": {"ips": [{"address": "10.88.0.2"}]}}, 7),
        ({"cniVersion": "9.9.9"}, 1),
        ({"name": "../net0"}, 7),
        ({"name": None}, 7),
    ],
)
def test_what_is_wrong_is_refused_all_the_same(
    named: tuple[Host, Path], role: str, change: dict[str, Any], code: int
) -> None:
    host, folder = named
    config = {**COMMON, "type": role, "prevResult": PREVIOUS, **change}
    assert host.refused("ADD", config, plugin=str(folder / role)).code == code


@pytest.mark.parametrize("role", ["tuning", "portmap", "firewall"])
@pytest.mark.parametrize("name", ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"])
def test_a_bad_environment_is_refused_all_the_same(named: tuple[Host, Path], role: str, name: str) -> None:
    host, folder = named
    config = {**COMMON, "type": role, "prevResult": PREVIOUS}
    answer = host.cni("ADD", config, plugin=str(folder / role), env={name: ""})
    assert answer.code == 4 and name in answer.words


def test_del_of_a_record_without_ports_is_short_and_with_ports_is_not(named: tuple[Host, Path]) -> None:
    host, folder = named
    bare = {**COMMON, "type": "portmap"}
    bridge = {**network("net0", "10.88.0.0/16"), "type": "bridge"}
    assert host.cni("ADD", bridge, plugin=str(folder / "bridge")).status == 0
    assert is_short(host, folder / "portmap", "DEL", bare) and is_short(host, folder / "firewall", "DEL", bare)
    with_ports = {**bare, "runtimeConfig": {"portMappings": [port(8080, 80)]}, "prevResult": PREVIOUS}
    answer = host.cni("ADD", with_ports, plugin=str(folder / "portmap"))
    assert answer.status == 0, answer.stdout
    assert "dnat4" in host.elements()
    host.delete(bare, plugin=str(folder / "portmap"))  # a runtime need not say which ports there were
    assert "dnat4" not in host.elements()


def test_del_without_a_record_is_for_the_long_way(named: tuple[Host, Path]) -> None:
    """It finds lost records by the table."""
    host, folder = named
    assert not is_short(host, folder / "portmap", "DEL", {**COMMON, "type": "portmap"})


def test_tuning_gives_back_what_an_earlier_configuration_took(named: tuple[Host, Path]) -> None:
    host, folder = named
    inside = host.namespaces[-1]
    inside.run("ip", "link", "add", "eth0", "mtu", "1500", "type", "bridge")
    config = {**COMMON, "type": "tuning", "prevResult": PREVIOUS}
    assert is_short(host, folder / "tuning", "DEL", config)
    assert host.cni("ADD", {**config, "mtu": 1300}, plugin=str(folder / "tuning")).status == 0
    assert not is_short(host, folder / "tuning", "DEL", config)
    assert json.loads(inside.run("ip", "-j", "link", "show", "eth0"))[0]["mtu"] == 1500
    assert is_short(host, folder / "tuning", "DEL", config), "nothing is kept any more"


def test_garbage_on_stdin(named: tuple[Host, Path]) -> None:
    host, folder = named
    for text in ("", "{", "[]", "\0", "[" * 100000):
        answer = host.cni("ADD", text, plugin=str(folder / "tuning"))
        assert answer.code == 6, (text[:9], answer.stdout)
