"""Conversion of networks of the reference chain: the meaning stays, which our own parser tells of both.

The drop-in names have the reference's defaults; so what they make of a plugin is what ours must make of its successor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.libcni import nerdctl
from support.scratch import Json

from cni.model.chain_keys import isolation_asked
from cni.model.config import parse_network
from cni.model.conversion import NotConverted, convert
from cni.model.wire import parse_rates
from cni.operate import convert as files
from cni.protocol.fields import Fields
from cni.protocol.request import Request

PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]


def parsed(plugin: Json, role: str, document: Json) -> Any:
    full = {**plugin, "name": document["name"], "cniVersion": document["cniVersion"]}
    if plugin.get("capabilities", {}).get("portMappings"):
        full["runtimeConfig"] = {"portMappings": PORTS}
    return parse_network(
        Request("ADD", role, "c", "", "eth0", {}, (), document["cniVersion"], document["name"], "/run/x", full)
    )


def chain(main: Json, *others: Json, **keys: Json) -> Json:
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.4.0.0/24"}]]}
    return {
        "cniVersion": "1.0.0",
        "name": "net",
        **keys,
        "plugins": [{"type": "bridge", "ipam": ipam, **main}, *others],
    }


MAINS: list[Json] = [
    {},
    {"bridge": "br1", "isGateway": True},
    {"isDefaultGateway": True, "ipMasq": True, "hairpinMode": True},
    {"isGateway": True, "mtu": 1400, "forceAddress": True, "enabledad": True},
    {"isGateway": True, "portIsolation": True, "ipMasqBackend": "iptables"},
    {"isgateway": True, "IPMASQ": True},
]
OTHERS: list[list[Json]] = [
    [],
    [{"type": "portmap", "capabilities": {"portMappings": True}}],
    [
        {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True, "backend": "nftables"},
        {"type": "firewall", "ingressPolicy": "same-bridge", "backend": "iptables"},
        {"type": "tuning"},
    ],
    [{"type": "firewall"}],
    [{"type": "firewall", "ingressPolicy": "isolated"}],
    [{"type": "tuning", "capabilities": {"mac": True}}],
    [{"type": "bandwidth", "ingressRate": 8000, "ingressBurst": 80000, "capabilities": {"bandwidth": True}}],
    [{"type": "bandwidth", "capabilities": {"bandwidth": True}}],
]


@pytest.mark.parametrize("others", OTHERS, ids=lambda value: "+".join(item["type"] for item in value) or "alone")
@pytest.mark.parametrize("main", MAINS, ids=lambda value: ",".join(value) or "no keys")
def test_the_meaning_stays(main: Json, others: list[Json]) -> None:
    before = chain(main, *others)
    after = convert(before)
    (plugin,) = after["plugins"]
    had, has = parsed(before["plugins"][0], "bridge", before), parsed(plugin, "", before)
    firewall = next((item for item in others if item["type"] == "firewall"), {})
    isolation, port_isolation = isolation_asked(Fields(firewall))
    assert (has.isolation, has.port_isolation) == (isolation, port_isolation or had.port_isolation)
    for name in ("bridge", "is_gateway", "is_default_gateway", "force_address", "ip_masq", "hairpin", "mtu", "dad"):
        assert getattr(has, name) == getattr(had, name), name
    shaper = next((item for item in others if item["type"] == "bandwidth"), {})
    rates = parse_rates(Fields(shaper), Fields({}))
    assert {name: getattr(has.wire, name) for name in rates} == rates
    assert plugin.get("capabilities", {}).get("bandwidth") == shaper.get("capabilities", {}).get("bandwidth")
    assert has.ipam.range_sets == had.ipam.range_sets and has.ipam.lease_folder == had.ipam.lease_folder
    assert has.ipam.keeps_files and bool(has.mappings) == any(item["type"] == "portmap" for item in others)


@pytest.mark.parametrize(
    ("keys", "runs", "kept"),
    [
        ({}, False, {}),
        ({}, True, {"firewalldZone": "trusted"}),  # the reference looks for itself
        ({"firewalldZone": "work"}, True, {"firewalldZone": "work"}),
        ({"backend": "iptables"}, True, {"backend": "iptables"}),
        ({"backend": "iptables", "firewalldZone": "work"}, True, {"backend": "iptables", "firewalldZone": "work"}),
        ({"backend": "firewalld"}, False, {"backend": "firewalld"}),
    ],
)
def test_what_joins_firewalld_does_so_on(keys: Json, runs: bool, kept: Json) -> None:
    ports = {"type": "portmap", "capabilities": {"portMappings": True}, "backend": "nftables"}
    after = convert(chain({}, ports, {"type": "firewall", **keys}), "trusted" if runs else "")
    (plugin,) = after["plugins"]
    assert {key: plugin[key] for key in ("backend", "firewalldZone") if key in plugin} == kept
    (alone,) = convert(chain({}, ports), "trusted")["plugins"]
    assert "firewalldZone" not in alone


def test_labels_and_ids_stay() -> None:
    before = nerdctl()
    after = convert(before)
    assert {**after, "plugins": 0} == {**before, "plugins": 0}
    assert after["plugins"][0]["ipam"]["ranges"] == before["plugins"][0]["ipam"]["ranges"]
    assert after["plugins"][0]["capabilities"] == {"portMappings": True}


def test_a_configuration_of_one_plugin_stays_one() -> None:
    before = {"cniVersion": "1.0.0", **{**chain({})["plugins"][0], "name": "net"}}
    after = convert(before)
    assert after["type"] == "nftcni" and after["name"] == "net" and "plugins" not in after


REFUSED: list[tuple[Json, str]] = [
    (chain({"ipMasqBackend": "pf"}), "ipMasqBackend"),
    (chain({}, {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}), "sysctl"),
    (chain({}, {"type": "tuning", "mtu": 1300}), "tuning.mtu"),
    (chain({}, {"type": "firewall", "iptablesAdminChainName": "MINE"}), "firewall.iptablesAdminChainName"),
    (chain({}, {"type": "firewall", "backend": "pf"}), "backend"),
    (chain({}, {"type": "bandwidth", "ingressRate": 8000}), "ingressBurst"),
    (chain({}, {"type": "vrf", "vrfname": "red"}), "vrf"),
    (chain({}, {"type": "portmap"}, {"type": "portmap"}), "portmap"),
    (chain({}, {"type": "portmap", "conditionsV4": ["-s", "192.0.2.0/24"]}), "conditionsV4"),
    ({"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "macvlan"}]}, "macvlan"),
    ({"cniVersion": "1.0.0", "name": "x", "plugins": []}, "missing"),
    ({"cniVersion": "1.0.0", "name": "x", "plugins": "bridge"}, "missing"),
    (chain({"ipam": {"type": "host-local", "ranges": [[{"subnet": "nonsense"}]]}}), "subnet"),
]


@pytest.mark.parametrize(("document", "key"), REFUSED, ids=[key for _document, key in REFUSED])
def test_a_key_that_would_change_its_meaning_refuses(document: Json, key: str) -> None:
    with pytest.raises(NotConverted) as caught:
        convert(document)
    assert key in str(caught.value) and not caught.value.is_ours


# Files


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NETCONFPATH", str(tmp_path))
    return tmp_path


def put(path: Path, document: Json) -> str:
    text = json.dumps(document, indent="\t") + "\n\n"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o640)
    return text


@pytest.mark.parametrize("runs", [False, True])
def test_what_firewalld_has_added_is_no_edit(place: Path, monkeypatch: pytest.MonkeyPatch, runs: bool) -> None:
    """It may have been started or ended since."""
    path = place / "nerdctl-bridge.conflist"
    before = put(path, nerdctl())
    monkeypatch.setattr(files, "is_running", lambda: runs)
    assert files.convert_networks("bridge") == 0
    assert ('"firewalldZone": "trusted"' in path.read_text()) is runs
    monkeypatch.setattr(files, "is_running", lambda: not runs)
    assert files.convert_networks("bridge", back=True) == 0
    assert path.read_text() == before


@pytest.mark.parametrize("asked", ["name", "id", "short id", "file", "all"])
def test_there_and_back(place: Path, asked: str) -> None:
    """Byte for byte, with the file's mode; what lists the folder sees one network all the time."""
    path = place / "nerdctl-bridge.conflist"
    before = put(path, nerdctl())
    ident = nerdctl()["nerdctlID"]
    words = {"name": "bridge", "id": ident, "short id": ident[:12], "file": str(path), "all": ""}[asked]
    assert files.convert_networks(words, asked == "all") == 0
    assert json.loads(path.read_text()) == convert(nerdctl())
    assert path.stat().st_mode & 0o777 == 0o640
    assert [item.name for item in place.iterdir() if item.name.endswith(files.SUFFIXES)] == [path.name]
    assert files.convert_networks(words, asked == "all") == (0 if asked == "all" else 1)
    assert files.convert_networks(words, asked == "all", back=True) == 0
    assert path.read_text() == before and [item.name for item in place.iterdir()] == [path.name]


def test_an_edited_one_does_not_go_back(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = place / "a.conflist"
    put(path, nerdctl())
    files.convert_networks("bridge")
    edited = {**json.loads(path.read_text()), "nerdctlLabels": {}}
    put(path, edited)
    assert files.convert_networks("bridge", back=True) == 1
    assert "edited" in capsys.readouterr().out and json.loads(path.read_text()) == edited


def test_all_goes_past_what_it_cannot(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """nerdctl keeps the networks of a containerd namespace in a folder of its own."""
    put(place / "a.conflist", nerdctl())
    put(place / "b.conflist", chain({}, {"type": "tuning", "mtu": 1300}, name="tuned"))
    put(place / "c.conflist", {"cniVersion": "1.0.0", "name": "ours", "plugins": [{"type": "nftcni"}]})
    put(place / "default" / "d.conflist", nerdctl("other", "br-other", "10.5.0.0/24"))
    (place / "e.conflist").write_text("{")
    assert files.convert_networks(everything=True) == 1
    out = capsys.readouterr().out
    assert "tuning.mtu" in out and "e.conflist" in out and "c.conflist" not in out
    for name in ("a.conflist", "default/d.conflist"):
        assert json.loads((place / name).read_text())["plugins"][0]["type"] == "nftcni"


def test_networks_that_share_a_bridge_and_would_be_isolated(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(place / "a.conflist", nerdctl())
    put(place / "b.conflist", nerdctl("other", "nerdctl0", "10.5.0.0/24"))
    assert files.convert_networks("bridge") == 1
    assert "other" in capsys.readouterr().out


def test_a_network_that_is_not_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert files.convert_networks("nothing") == 1
    assert "nothing" in capsys.readouterr().err
