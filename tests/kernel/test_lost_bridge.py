"""Ports that have lost their bridge: `repair` and `watch` put them back, one by one as far as it can be done."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from support.scratch import PLUGIN, Host, Json, network, port
from support.traffic import Server, ask, serving

DUAL = ("10.88.0.0/24", "fd00:88::/64")
LOST = network("net0", *DUAL, ports=[port(8080, 80)], portIsolation=True)
OTHER = network("net1", "10.89.0.0/24", ports=[port(9090, 80)])
PATIENCE = 10.0  # seconds until a test gives up; what it takes is a fraction of one


def of_bridge(host: Host, bridge: str) -> list[str]:
    return [item["ifname"] for item in host.links() if item["master"] == bridge]


def ports_of(host: Host) -> list[Json]:
    """Every port of a bridge with its flags."""
    keys = ("hairpin", "isolated", "state")
    found = [item for item in host.json("ip", "-j", "-d", "link") if item.get("master")]
    return [[item["ifname"], *(item["linkinfo"]["info_slave_data"][key] for key in keys)] for item in found]


@pytest.fixture
def three(host: Host) -> Host:
    """Two containers of one network and one of another, all with ports that forward."""
    host.add(LOST, "c1")
    host.add({**LOST, "runtimeConfig": {}}, "c2")
    host.add(OTHER, "c3")
    return host


def serve(host: Host) -> None:
    lan = next((item for item in host.namespaces if item.name == "lan"), None) or host.neighbour()
    with serving(Server(host.place("c1"), 80), Server(host.place("c3"), 80)):
        assert ask(lan, "198.51.100.1", 8080, timeout=3) == "c1 198.51.100.2"
        assert ask(lan, "198.51.100.1", 9090, timeout=3) == "c3 198.51.100.2"
        assert ask(host, "127.0.0.1", 8080) == "c1 10.88.0.1"
        assert ask(host, "fd00:88::2", 80) == "c1 fd00:88::1"
        assert ask(host.place("c2"), "10.88.0.2", 80, timeout=0.3) in ("silence", "refused"), "ports are isolated"


def lose(host: Host, how: str) -> None:
    if how == "nomaster":
        host.run("ip", "link", "set", of_bridge(host, "br-net0")[0], "nomaster")
    elif how == "all-nomaster":
        for name in of_bridge(host, "br-net0"):
            host.run("ip", "link", "set", name, "nomaster")
    elif how == "another-bridge":
        host.run("ip", "link", "add", "br-other", "type", "bridge")
        host.run("ip", "link", "set", of_bridge(host, "br-net0")[0], "master", "br-other")
    else:
        host.run("ip", "link", "del", "br-net0")
    if how == "no-bridge-and-no-table":
        host.nft("flush ruleset")


@pytest.mark.parametrize("how", ["nomaster", "all-nomaster", "another-bridge", "no-bridge", "no-bridge-and-no-table"])
def test_repair_puts_ports_back_into_their_bridge(three: Host, how: str) -> None:
    """With their flags, and the bridge with its addresses, MAC address and sysctls if that was deleted."""
    links, ports, elements = three.links(), ports_of(three), three.elements()
    addresses, localnet = three.addresses("br-net0"), three.sysctl("ipv4/conf/br-net0/route_localnet")
    assert addresses == {"10.88.0.1/24", "fd00:88::1/64"} and localnet == "1" and len(ports) == 3
    lose(three, how)
    check = three.command("repair", "--check")
    assert check.returncode == 1 and "br-net0" in check.stdout
    done = three.command("repair")
    assert done.returncode == 0 and "0 problems remain" in done.stdout, done.stdout
    again = three.command("repair")
    assert (again.returncode, again.stdout) == (0, "nothing to repair\n")
    if how == "another-bridge":
        three.run("ip", "link", "del", "br-other")
    serve(three)
    three.run("ip", "link", "del", "to-lan")
    by_name = {item["ifname"]: item for item in links}
    assert {item["ifname"]: item for item in three.links()} == by_name
    assert sorted(ports_of(three)) == sorted(ports)
    assert three.elements() == elements
    assert three.addresses("br-net0") == addresses
    assert three.sysctl("ipv4/conf/br-net0/route_localnet") == localnet
    for config, name in ((LOST, "c1"), (LOST, "c2"), (OTHER, "c3")):
        three.delete(config, name)
    assert three.link("br-net0") is None and three.elements() == {} and three.state_files() == []


def spoil(host: Host) -> None:
    """net0's bridge cannot be made again, net1's port is out of its own."""
    host.run("ip", "link", "del", "br-net0")
    host.run("ip", "link", "add", "br-net0", "type", "veth", "peer", "name", "spoiler")
    host.run("ip", "link", "set", of_bridge(host, "br-net1")[0], "nomaster")


def mended_but_for_net0(host: Host) -> None:
    assert len(of_bridge(host, "br-net1")) == 1
    with Server(host.place("c3"), 80):
        assert ask(host, "127.0.0.1", 9090, timeout=3) == "c3 10.89.0.1"


def test_repair_goes_on_after_one_that_cannot_be_mended(three: Host) -> None:
    spoil(three)
    done = three.command("repair")
    assert done.returncode == 1
    for name in ("c1", "c2"):
        assert f"net0/{name}/eth0: " in done.stdout
    assert "br-net0" in done.stdout and "veth" in done.stdout and "restored net1/c3/eth0" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    mended_but_for_net0(three)
    three.run("ip", "link", "del", "br-net0")
    assert three.command("repair").returncode == 0
    serve(three)


class Watch:
    def __init__(self, host: Host) -> None:
        self.log = host.file("/run/watch.log")
        self.process = host.popen("sh", "-c", f"exec {PLUGIN} watch > /run/watch.log 2>&1")
        self.wait_for("watching")

    def wait_for(self, words: str, times: int = 1) -> None:
        end = time.monotonic() + PATIENCE
        while not self.log.exists() or self.log.read_text().count(words) < times:
            assert time.monotonic() < end and self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)


@pytest.fixture
def watch(three: Host) -> Iterator[Watch]:
    made = Watch(three)
    yield made
    made.process.terminate()
    made.process.wait()


@pytest.mark.parametrize("how", ["nomaster", "no-bridge"])
def test_watch_puts_ports_back_after_a_flush(three: Host, watch: Watch, how: str) -> None:
    """The kernel's refusal to set flags of a port that is none used to end it."""
    lose(three, how)
    three.nft("flush ruleset")
    watch.wait_for("restored the table with 3 attachments, 0 problems remain")
    serve(three)


def test_watch_goes_on_after_one_that_cannot_be_mended(three: Host, watch: Watch) -> None:
    spoil(three)
    for times in (1, 2):
        three.nft("flush ruleset")
        watch.wait_for("restored the table with 3 attachments", times)
    assert "Traceback" not in watch.log.read_text() and watch.process.poll() is None
    mended_but_for_net0(three)
