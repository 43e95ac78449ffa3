"""What an attachment holds by name - leases, ports, its place on a bridge, its elements - when one of these is gone.

Damaged records are `test_state_damage`; here the record is whole, or it is the one of the drop-in `host-local`, which
has nothing but its leases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest
from support.scratch import PLUGIN, Host, Json, network, port
from support.traffic import Server, ask

DUAL = ("10.88.0.0/24", "fd00:88::/64")
CONFIG = network("net0", *DUAL, ports=[port(8080, 80), port(53, 53, "udp", "127.0.0.1")])
OTHER = network("net0", *DUAL, ports=[port(9090, 80)])


def folder(host: Host) -> Path:
    (found,) = [path for path in host.file("/run/nftcni").iterdir() if "." in path.name]
    return found


def remaining(host: Host) -> list[str]:
    """In the state folder, without what was set aside for people."""
    return [path for path in host.state_files() if "/damaged/" not in path]


def gone_from_table(host: Host, *containers: str) -> bool:
    text = host.run("nft", "list", "table", "inet", "nftcni")
    return not any(f"/{name}/" in text for name in containers)


# host-local under its own name


def leased(name: str) -> Json:
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.5.0.0/24"}]]}
    return {"cniVersion": "1.1.0", "name": name, "type": "bridge", "ipam": ipam}


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_text(path.read_text()[:100]),
    "zero-length": lambda path: path.write_text(""),
    "a-folder": lambda path: (path.unlink(), path.mkdir()),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("table", ["none", "flushed"])
@pytest.mark.parametrize("way", ["DEL", "GC"])
@pytest.mark.parametrize("name", DAMAGES)
def test_host_local_frees_what_a_damaged_record_had(host: Host, name: str, way: str, table: str) -> None:
    """There are no elements and no link to tell of it: only the lease itself. The same address on another network, and
    that of another container, stay leased."""
    host.run("ln", "-s", PLUGIN, "/run/host-local")
    if table == "flushed":
        host.add(network("net9", "10.99.0.0/24"), "another")
    for config, container in ((leased("f"), "c1"), (leased("g"), "c1"), (leased("f"), "c2")):
        assert host.cni("ADD", config, container, netns="/x", plugin="/run/host-local").status == 0
    before = remaining(host)
    DAMAGES[name](folder(host) / "attachments/f/c1@eth0")
    if table == "flushed":
        host.nft("flush ruleset")
    if way == "DEL":
        host.delete(leased("f"), netns="", plugin="/run/host-local")
    else:
        valid = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
        answer = host.cni("GC", {**leased("f"), **valid}, plugin="/run/host-local")
        assert (answer.status, answer.stdout) == (0, "")
    root = folder(host).name
    assert sorted(set(before) - set(remaining(host))) == [f"{root}/attachments/f/c1@eth0", f"{root}/leases/10.5.0.2@f"]
    asked = {**leased("f"), "runtimeConfig": {"ips": ["10.5.0.2"]}}
    answer = host.cni("ADD", asked, "c3", netns="/x", plugin="/run/host-local")
    assert [item["address"] for item in answer.document["ips"]] == ["10.5.0.2/24"]


# The set `attachments`, by which a DEL knows that the elements are its own


@pytest.mark.parametrize("way", ["DEL", "GC"])
def test_without_its_marker_an_attachment_takes_its_own_elements(host: Host, way: str) -> None:
    host.add(OTHER, "c2")
    before = host.elements()
    host.add(CONFIG)
    host.nft("flush set inet nftcni attachments")
    if way == "DEL":
        host.delete(CONFIG)
    else:
        valid = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
        assert host.cni("GC", {**CONFIG, **valid}).status == 0
    assert host.elements() == {name: items for name, items in before.items() if name != "attachments"}
    with Server(host.place("c2"), 80):
        assert ask(host, "127.0.0.1", 9090) == "c2 10.88.0.1"
    host.delete(OTHER, "c2")
    assert host.elements() == {} and remaining(host) == []


@pytest.mark.parametrize("way", ["DEL", "GC"])
def test_without_its_marker_an_attachment_takes_nothing_of_another(host: Host, way: str) -> None:
    """Its key, with another's name at it: a ruleset that somebody wrote by hand, or an address that changed hands."""
    host.add(OTHER, "c2")
    host.add(CONFIG)
    host.nft(
        "flush set inet nftcni attachments\n"
        "delete element inet nftcni dnat4 { tcp . 8080 }\n"
        'add element inet nftcni dnat4 { tcp . 8080 comment "net0/c2/eth0" : 10.88.0.2 . 80 }\n'
        "delete element inet nftcni masq4 { 10.88.0.3 }\n"
        'add element inet nftcni masq4 { 10.88.0.3 comment "net0/c2/eth0" }'
    )
    if way == "DEL":
        host.delete(CONFIG)
    else:
        valid = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
        assert host.cni("GC", {**CONFIG, **valid}).status == 0
    assert gone_from_table(host, "c1")
    with Server(host.place("c2"), 80):
        assert ask(host, "127.0.0.1", 8080) == "c2 10.88.0.1"
    assert "10.88.0.3" in {item["elem"]["val"] for item in host.elements()["masq4"]}


# Files under bridges/, by which a DEL knows whether it is the bridge's last


def link_of(host: Host, container: str) -> str:
    inside = host.place(container).link("eth0")
    return next(item["ifname"] for item in host.json("ip", "-j", "link") if item["ifindex"] == inside["link_index"])


@pytest.mark.parametrize("way", ["DEL", "GC"])
@pytest.mark.parametrize("whose", ["its own", "the other's", "both", "the folder"])
def test_a_bridge_that_was_forgotten_keeps_its_others(host: Host, whose: str, way: str) -> None:
    """What the bridge's containers share goes with the last of them, whatever the folder says."""
    host.add(OTHER, "c2")
    before = host.elements(), host.links(), host.addresses("br-net0")
    host.add(CONFIG)
    bridge = folder(host) / "bridges" / "br-net0"
    doomed = {"its own": ["c1"], "the other's": ["c2"], "both": ["c1", "c2"], "the folder": ["c1", "c2"]}[whose]
    for container in doomed:
        (bridge / link_of(host, container)).unlink()
    if whose == "the folder":
        host.run("rm", "-r", f"/run/nftcni/{folder(host).name}/bridges/br-net0")
    if way == "DEL":
        host.delete(CONFIG)
    else:
        valid = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
        assert host.cni("GC", {**CONFIG, **valid}).status == 0
    assert (host.elements(), host.links(), host.addresses("br-net0")) == before
    assert {"bridges", "same_net", "isolated"} <= set(host.elements())
    with Server(host.place("c2"), 80):
        assert ask(host, "127.0.0.1", 9090) == "c2 10.88.0.1"
    host.delete(OTHER, "c2")
    assert host.elements() == {} and remaining(host) == []
