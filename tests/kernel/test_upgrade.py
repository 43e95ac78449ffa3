"""A newer version of the plugin, with other rules, on a host whose containers an older one has attached.

The older one is a copy of this one that lacks a rule.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.scratch import CHECKOUT, Host, Json, network, port
from support.traffic import Server, ask

CONFIG = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)])
OTHER = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(9090, 80)])
RULE = "\t\tct state related accept\n"


@pytest.fixture
def older(tmp_path: Path) -> str:
    for name in ("cni", "nft", "conf"):
        shutil.copytree(CHECKOUT / name, tmp_path / name)
    file = tmp_path / "nft" / "ruleset.py"
    text = file.read_text()
    assert text.count(RULE) == 1
    file.write_text(text.replace(RULE, ""))
    return str(tmp_path / "conf" / "nftcni")


def rules(host: Host) -> list[Json]:
    return [
        item["rule"]["expr"]
        for item in host.json("nft", "-j", "list", "table", "inet", "nftcni")["nftables"]
        if "rule" in item
    ]


def test_the_next_add_brings_the_newer_rules(host: Host, older: str) -> None:
    host.container("c1")
    result = host.add(CONFIG, plugin=older)
    before = rules(host), host.elements()
    assert host.cni("STATUS", CONFIG).status == 0, "it serves all the same"
    check = host.cni("CHECK", {**CONFIG, "prevResult": result})
    assert check.code == 104 and "version" in check.words
    host.add(OTHER, "c2")
    now = rules(host)
    assert len(now) == len(before[0]) + 1
    assert host.cni("CHECK", {**CONFIG, "prevResult": result}).status == 0
    with Server(host.place("c1"), 80), Server(host.place("c2"), 80):
        assert ask(host, "127.0.0.1", 8080) == "c1 10.88.0.1"
        assert ask(host, "127.0.0.1", 9090) == "c2 10.88.0.1"
    host.delete(OTHER, "c2")
    assert host.elements() == before[1]


def test_repair_brings_them_too(host: Host, older: str) -> None:
    host.add(CONFIG, plugin=older)
    done = host.command("repair", "--check")
    assert done.returncode == 1 and "version" in done.stdout
    assert host.command("repair").returncode == 0
    assert host.command("repair", "--check").returncode == 0


def test_del_needs_no_newer_rules(host: Host, older: str) -> None:
    host.container("c1")
    before = host.snapshot()
    host.add(CONFIG, plugin=older)
    kept = rules(host)
    host.delete(CONFIG)
    assert host.snapshot() == before and rules(host) == kept


def test_a_container_whose_record_is_lost_survives_it(host: Host, older: str) -> None:
    host.add(CONFIG, plugin=older)
    elements = host.elements()
    host.run("sh", "-c", "rm /run/nftcni/*.*/attachments/net0/c1@eth0")
    host.add(OTHER, "c2")
    host.delete(OTHER, "c2")
    assert host.elements() == elements
    with Server(host.place("c1"), 80):
        assert ask(host, "127.0.0.1", 8080) == "c1 10.88.0.1"


def test_an_older_version_that_comes_back_has_its_own(host: Host, older: str) -> None:
    """A node that is put back to it."""
    host.add(CONFIG)
    newer = rules(host)
    host.add(OTHER, "c2", plugin=older)
    assert len(rules(host)) == len(newer) - 1
    with Server(host.place("c1"), 80):
        assert ask(host, "127.0.0.1", 8080) == "c1 10.88.0.1"
