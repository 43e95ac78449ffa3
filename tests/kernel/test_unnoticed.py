"""Damage that CHECK, doctor and repair did not notice: the bridge's name and MAC address, chains of others in our
table, and the links between which the host does not route.

What they have always noticed is `test_check` and `test_doctor_*`. The oracle is traffic, and the kernel's own listings.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.frames import datagram, heard, mac
from support.scratch import Host, Namespace, network, port
from support.traffic import Server, ask

DUAL = ("10.88.0.0/24", "fd00:88::/64")
PORTS = [port(8080, 80)]
CONFIG = network("net0", *DUAL, ports=PORTS)


def mac_of(place: Namespace) -> str:
    return str(place.link("eth0")["address"])


def noticed(host: Host, config: Any, result: Any, words: str) -> None:
    """CHECK, doctor and `repair --check` each tell of it; repair mends it, and then nobody does."""
    answer = host.cni("CHECK", {**config, "prevResult": result})
    assert answer.code == 104 and words in answer.words, answer.words
    for command in (("doctor",), ("repair", "--check")):
        done = host.command(*command)
        assert done.returncode == 1 and words in done.stdout, done.stdout
    done = host.command("repair")
    assert done.returncode == 0 and "0 problems remain" in done.stdout, done.stdout
    assert host.cni("CHECK", {**config, "prevResult": result}).status == 0
    assert host.command("repair", "--check").returncode == 0


def test_a_renamed_bridge_gets_its_name_back(host: Host) -> None:
    """Repair made a second one with the same subnet beside it, and said that nothing was left to mend."""
    lan = host.neighbour()
    before = host.snapshot()
    result = host.add(CONFIG)
    index = host.link("br-net0")["ifindex"]
    host.run("sh", "-c", "ip link set br-net0 down; ip link set br-net0 name br77; ip link set br77 up")
    noticed(host, CONFIG, result, "br-net0")
    assert host.link("br77") is None and host.link("br-net0")["ifindex"] == index
    with Server(host.place("c1"), 80):
        for address in ("198.51.100.1", "2001:db8:100::1"):
            assert ask(lan, address, 8080).startswith("c1 ")
    host.delete(CONFIG)
    assert host.snapshot() == before


@pytest.mark.parametrize("keys", [{}, {"gatewayMode": "isolated"}], ids=["usual", "internal"])
def test_a_bridge_gets_its_mac_address_back(host: Host, keys: Any) -> None:
    """The table knows frames for the host by it: an internal network's containers reached the host."""
    host.neighbour()
    config = network("net0", *DUAL, **keys)
    result = host.add(config)
    host.add(network("net1", "10.89.0.0/24"), "other")
    own = host.link("br-net0")["address"]
    host.run("ip", "link", "set", "br-net0", "address", "02:00:00:00:00:99")
    noticed(host, config, result, "MAC address 02:00:00:00:00:99")
    assert host.link("br-net0")["address"] == own
    if keys:
        leaked = (host.place("c1"), mac(host, "br-net0"), [datagram("10.88.0.2", "198.51.100.1", 7000, b"leaked")])
        last = datagram("10.89.0.2", "198.51.100.1", 7000, b"last")
        assert heard(host, 7000, leaked, (host.place("other"), mac(host, "br-net1"), [last])) == {b"last"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("add chain inet nftcni mine { type filter hook forward priority 0; policy drop; }", "mine"),
        ("add chain inet nftcni filter_forward { policy drop; }", "filter_forward"),
        ("add chain bridge nftcni prerouting { policy drop; }", "prerouting"),
    ],
    ids=["a chain", "a policy", "a bridge's policy"],
)
def test_a_chain_without_rules_that_drops_all(host: Host, text: str, words: str) -> None:
    """Only rules were compared, and explain said that the packet arrives."""
    lan = host.neighbour()
    result = host.add(CONFIG)
    host.nft(text)
    noticed(host, CONFIG, result, words)
    with Server(host.place("c1"), 80):
        assert ask(lan, "198.51.100.1", 8080).startswith("c1 ")


@pytest.mark.parametrize("how", ["emptied", "renamed"])
def test_the_links_between_which_the_host_does_not_route(host: Host, how: str) -> None:
    """An emptied set of them, or one of them with another name, made the host a router between its LANs, and nobody
    noticed."""
    here, there = host.neighbour("here", 1), host.neighbour("there", 2)
    for place, last in ((here, 1), (there, 2)):
        place.run("ip", "route", "add", "default", "via", f"198.51.{99 + last}.1")
    result = host.add(CONFIG)
    with Server(there, 80):
        assert ask(here, "198.51.101.2", 80) == "silence"
        if how == "emptied":
            host.nft("flush set inet nftcni unrouted")
        else:
            rename = "ip link set to-here down; ip link set to-here name wan1; ip link set wan1 up"
            host.run(
                "sh",
                "-c",
                f"{rename}; ip neigh replace 198.51.100.2 lladdr $MAC dev wan1".replace("$MAC", mac_of(here)),
            )
        assert ask(here, "198.51.101.2", 80).startswith("there ")
        noticed(host, CONFIG, result, "unrouted")
        assert ask(here, "198.51.101.2", 80) == "silence"
    sysctls = host.sysctls()
    host.delete(CONFIG)
    assert sysctls["ipv4/ip_forward"] == "1\n" and host.sysctls()["ipv4/ip_forward"] == "0\n"
    assert host.elements() == {}


@pytest.mark.parametrize("family", ["inet", "ip"])
def test_a_port_of_a_routed_network_is_followed(host: Host, family: str) -> None:
    """It was told to be there, whoever dropped it, and doctor's own commands let translated ports alone through."""
    lan = host.neighbour()
    lan.run("ip", "route", "add", "10.88.0.0/24", "via", "198.51.100.1")
    config = network("net0", "10.88.0.0/24", ports=PORTS, gatewayMode="routed")
    host.add(config)
    with Server(host.place("c1"), 80), Server(host.place("c1"), 81):
        assert host.command("explain", "8080").returncode == 0 and host.command("doctor").returncode == 0
        host.nft(f"table {family} fw {{\n chain forward {{\n type filter hook forward priority 0; policy drop;\n}}\n}}")
        assert ask(lan, "10.88.0.2", 80) == "silence"
        assert host.command("explain", "8080").returncode == host.command("explain", "net0/c1").returncode == 1
        for step in json.loads(host.command("doctor", "--json").stdout)["findings"]:
            host.run("sh", "-c", "\n".join(step["remedy"]))
        assert ask(lan, "10.88.0.2", 80).startswith("c1 ") and ask(lan, "10.88.0.2", 81) == "silence"
        assert host.command("explain", "8080").returncode == 0 and host.command("doctor").returncode == 0
    done = host.command("explain", "8080")
    assert done.returncode == 1 and "listens" in done.stdout


def test_a_container_of_an_internal_network_is_explained(host: Host) -> None:
    """Nothing was printed about it, and damage of its link was not told."""
    config = network("net0", *DUAL, gatewayMode="isolated")
    result = host.add(config)
    done = host.command("explain", "net0/c1")
    assert done.returncode == 0 and "its own network only" in done.stdout
    link = next(item["name"] for item in result["interfaces"] if item["name"].startswith("veth"))
    host.run("ip", "link", "set", link, "nomaster")
    assert host.command("doctor").returncode == host.command("explain", "net0/c1").returncode == 1


def test_a_full_state_folder(host: Host) -> None:
    """Every ADD was refused, and doctor found all well. A full disk left half of a file for Prometheus."""
    config = network("net0", *DUAL)
    host.add(config)
    host.run("mount", "-t", "tmpfs", "-o", "size=4k", "none", "/mnt")
    (folder,) = [path.name for path in host.file("/run/nftcni").iterdir() if "." in path.name]
    host.run("mount", "-t", "tmpfs", "-o", "size=64k", "none", "/media")
    host.run("sh", "-c", f"cp -a /run/nftcni/{folder}/. /media/; mount --bind /media /run/nftcni/{folder}")
    assert host.command("doctor").returncode == 0
    host.call("sh", "-c", "cat /dev/zero >/media/filler; cat /dev/zero >/mnt/filler")
    host.container("c2")
    assert "ENOSPC" in host.refused("ADD", config, "c2").words
    done = host.command("doctor")
    assert done.returncode == 1 and "no space is left" in done.stdout
    assert host.command("metrics", "--output", "/mnt/m.prom").returncode == 1
    assert [path.name for path in host.file("/mnt").iterdir()] == ["filler"]
    host.file("/media/filler").unlink()
    assert host.command("doctor").returncode == 0
    host.delete(config)
    host.run("umount", "--lazy", f"/run/nftcni/{folder}")
