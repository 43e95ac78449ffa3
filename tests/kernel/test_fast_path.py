"""`fastPath` where the kernel has no flowtables, and what of it needs none. With flowtables: tests/kernels."""

from __future__ import annotations

import json

import pytest
from support.scratch import Host, network, port

MODULES = ("nf_flow_table_inet", "nft_flow_offload")
FLOWTABLE = "table inet probe { flowtable f { hook ingress priority filter\n }\n }\ndelete table inet probe\n"


@pytest.fixture
def without(host: Host) -> Host:
    """A host whose kernel has none, by nft's own words."""
    if host.call("nft", "-f", "-", input=FLOWTABLE).returncode == 0:
        pytest.skip("NOT RUN: this kernel has flowtables: tests/kernels tries them, nothing is left to refuse")
    return host


def test_it_is_refused_before_anything_is_changed(without: Host) -> None:
    without.container("c1")
    answer = without.refused("ADD", network("net0", fastPath=True))
    assert answer.code == 2 and "fastPath" in answer.words
    assert all(module in answer.words for module in MODULES), answer.words
    assert without.call("nft", "list", "tables").stdout == ""


def test_what_was_attached_without_it_stays(without: Host) -> None:
    without.add(network("net0", ports=[port(8080, 80)]))
    without.refused("ADD", network("net0", ports=[port(8080, 80)], fastPath=True))
    assert without.cni("ADD", network("net0", ports=[port(8080, 80)])).status == 0


def test_status_and_doctor_say_it_too(without: Host) -> None:
    config = network("net0", fastPath=True)
    answer = without.cni("STATUS", config)
    assert answer.code == 50 and all(module in answer.words for module in MODULES)
    assert without.cni("STATUS", network("net0")).status == 0
    without.run("mkdir", "-p", "/run/net.d")
    without.file("/run/net.d/10-net0.conflist").write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "net0", "plugins": [config]})
    )
    without.env["NETCONFPATH"] = "/run/net.d"
    findings = json.loads(without.command("doctor", "--json").stdout)["findings"]
    (found,) = [one for one in findings if one["kind"] == "fast-path"]
    assert "10-net0.conflist" in found["what"] and found["remedy"] == [f"modprobe -a {' '.join(MODULES[::-1])}"]


@pytest.mark.parametrize("keys", [{"fastPath": "yes"}, {"fastPath": True, "mode": "ptp", "bridge": None}])
def test_what_cannot_be_meant(host: Host, keys: dict[str, object]) -> None:
    host.container("c1")
    answer = host.refused("ADD", network("net0", **keys))
    assert answer.code == 7 and "fastPath" in answer.words


def test_false_is_as_if_it_were_not_there(host: Host) -> None:
    host.add(network("net0"))
    before = host.elements()
    host.add(network("net0", fastPath=False), "c2")
    assert host.elements().keys() == before.keys() and "fast4" not in before
    assert "fast_path" not in host.run("nft", "list", "ruleset")
