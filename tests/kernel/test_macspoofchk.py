"""`macspoofchk`: a container's frames bear its own MAC address, or do not leave its port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.scratch import CHECKOUT, Host, Namespace, network
from support.traffic import Server, ask

CONFIG = network(macspoofchk=True)
FALSE = "02:de:ad:be:ef:01"


def spoof(container: Namespace, mac: str = FALSE) -> None:
    container.run("ip", "link", "set", "eth0", "address", mac)
    for address in ("10.88.0.1", "10.88.0.3"):
        container.run("ip", "neigh", "flush", "to", address)


def layer2(host: Host) -> list[str]:
    """The ports that are checked, and the addresses that they let pass."""
    found = []
    for name in ("checked", "own_macs"):
        text = host.call("nft", "list", "set", "bridge", "nftcni", name).stdout
        found += sorted(word.strip() for word in text.partition("elements = {")[2].partition("}")[0].split(",") if word)
    return [word for word in found if "veth" in word]


def test_a_false_address_does_not_pass(host: Host) -> None:
    host.add(CONFIG)
    host.add(CONFIG, "c2")
    host.add(network(), "c3")
    one, three = host.place("c1"), host.place("c3")
    with Server(host, 80, address="10.88.0.1"), Server(host.place("c2"), 80):
        assert ask(one, "10.88.0.1", 80) == "host 10.88.0.2"
        assert ask(one, "10.88.0.3", 80) == "c2 10.88.0.2"
        spoof(one)
        assert ask(one, "10.88.0.1", 80) == "silence"
        assert ask(one, "10.88.0.3", 80) in ("silence", "refused")
        spoof(three, "02:de:ad:be:ef:02")  # whose network asks for nothing
        assert ask(three, "10.88.0.3", 80) == "c2 10.88.0.4"
        assert ask(host.place("c2"), "10.88.0.1", 80) == "host 10.88.0.3"


def test_nothing_is_left(host: Host) -> None:
    for name in ("c1", "c2"):
        host.container(name)
    before = host.snapshot()
    for name in ("c1", "c2"):
        host.add(CONFIG, name)
    host.delete(CONFIG, "c1")
    assert len(layer2(host)) == 2  # one port, in both sets
    host.delete(CONFIG, "c2")
    assert host.snapshot() == before
    assert layer2(host) == []


def test_again_and_check(host: Host) -> None:
    result = host.add(CONFIG)
    assert host.add(CONFIG) == result
    table = layer2(host)
    checked = {**CONFIG, "prevResult": result}
    assert host.cni("CHECK", checked).status == 0
    for command in ("flush chain bridge nftcni prerouting", "delete table bridge nftcni"):
        host.nft(command)
        answer = host.cni("CHECK", checked)
        assert answer.code == 104 and "nftcni" in answer.words
        assert host.add(CONFIG) == result
        assert layer2(host) == table


def test_repair_after_a_flush(host: Host) -> None:
    host.add(CONFIG)
    table = layer2(host)
    host.nft("flush ruleset")
    assert host.command("repair").returncode == 0
    assert layer2(host) == table


@pytest.mark.parametrize("mac", ["", "02:11:22:33:44:55"])
def test_a_lost_record(host: Host, mac: str) -> None:
    host.container("c1")
    before = host.snapshot()
    config = {**CONFIG, "mac": mac}
    host.add(config)
    table = layer2(host)
    host.run("sh", "-c", "rm -r /run/nftcni/*")
    host.command("repair")
    assert layer2(host) == table
    host.delete(config)
    assert host.snapshot() == before
    assert layer2(host) == []


def test_gc(host: Host) -> None:
    host.add(CONFIG)
    assert host.cni("GC", {**CONFIG, "cni.dev/valid-attachments": []}).status == 0
    assert layer2(host) == []


@pytest.mark.parametrize("flushed", [False, True])
def test_an_address_that_tuning_gives_is_its_own(host: Host, tmp_path: Path, flushed: bool) -> None:
    """Also where somebody flushed the table in between: exchanging elements of a table that is missing was code 999."""
    for name in ("bridge", "tuning", "host-local"):
        (tmp_path / name).symlink_to(CHECKOUT / "conf" / "nftcni")
    common: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net0"}
    ipam = {"type": "host-local", "subnet": "10.88.0.0/24"}
    bridge = {**common, "type": "bridge", "bridge": "br-net0", "isGateway": True, "macspoofchk": True, "ipam": ipam}
    previous = host.add(bridge, plugin=str(tmp_path / "bridge"))
    tuning = {**common, "type": "tuning", "mac": "02:11:22:33:44:55", "prevResult": previous}
    if flushed:
        host.nft("flush ruleset")
    host.add(tuning, plugin=str(tmp_path / "tuning"))
    container = host.place("c1")
    with Server(host, 80, address="10.88.0.1"):
        assert ask(container, "10.88.0.1", 80) == "host 10.88.0.2"
        spoof(container)
        assert ask(container, "10.88.0.1", 80) == "silence"
