"""Whole conflists as libcni runs them: plugins in order, prevResult handed on, DEL in reverse, declared capabilities.

Every conflist of conf/ is run, and ours between others: a script and, where they are installed, reference plugins.
What conf/install does with the conflists is test_install.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.scratch import CHECKOUT, PLUGIN, Answer, Host, Json, network, port
from support.traffic import Server, ask

CONFLISTS = sorted((CHECKOUT / "conf" / "net.d").glob("*.conflist"))
REFERENCE = Path("/usr/lib/cni")
BIN = "/run/cni/bin"
PORTS = [port(8080, 80), port(5300, 53, "udp", "0.0.0.0")]
NEIGHBOUR_PLUGIN = """#!/bin/sh
echo "$CNI_COMMAND" >> {log}
case $CNI_COMMAND in ADD) [ -e {log}.fails ] && echo '{{"code":142,"msg":"not today"}}' && exit 1
sed 's/.*"prevResult"/{{"prevResult"/' | sed 's/^{{"prevResult": *//; s/}}$//' ;; esac
exit 0
"""


class Chain:
    """A conflist on a host, with the executables it names in one folder."""

    def __init__(self, host: Host, conflist: Json) -> None:
        self.host = host
        self.conflist = conflist
        self.result: Json = None
        folder = host.file(BIN)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "nftcni").symlink_to(PLUGIN)

    def request(self, plugin: Json, capabilities: Json) -> Json:
        """The plugin's object with what libcni adds: version and name, the result so far, declared capabilities."""
        declared = {key: value for key, value in capabilities.items() if plugin.get("capabilities", {}).get(key)}
        config = {**plugin, "cniVersion": self.conflist["cniVersion"], "name": self.conflist["name"]}
        if declared:
            config["runtimeConfig"] = declared
        if self.result is not None:
            config = {**config, "prevResult": self.result}
        return config

    def run(self, verb: str, netns: str | None = None, **capabilities: Json) -> Answer:
        """Stops at the first plugin that fails, as libcni does; `result` is the last ADD's."""
        answer = Answer(0, "", "")
        plugins = self.conflist["plugins"]
        for plugin in reversed(plugins) if verb == "DEL" else plugins:
            config = self.request(plugin, capabilities)
            program = f"{BIN}/{plugin['type']}"
            answer = self.host.cni(verb, config, netns=netns, env={"CNI_PATH": BIN}, plugin=program)
            if answer.status:
                return answer
            if verb == "ADD":
                self.result = answer.document
        return answer


def own(**keys: Json) -> Json:
    config = network("net0", "10.88.0.0/24", "fd00:88::/64", **keys)
    return {key: value for key, value in config.items() if key not in ("cniVersion", "name")}


def conflist(*plugins: Json, version: str = "1.0.0") -> Json:
    return {"cniVersion": version, "name": "net0", "plugins": list(plugins)}


@pytest.mark.parametrize("path", CONFLISTS, ids=lambda path: path.name)
@pytest.mark.parametrize("last_netns", [None, "", "/run/netns/gone"], ids=["netns", "empty", "gone"])
def test_each_packaged_conflist(host: Host, path: Path, last_netns: str | None) -> None:
    lan, container = host.neighbour(), host.container("c1")
    # Forwarding stays on, and with it the kernel's anycast route of each IPv6 prefix; this host was a router before.
    host.set_sysctl("ipv6/conf/all/forwarding", "1")
    chain = Chain(host, json.loads(path.read_text()))
    assert {plugin["type"] for plugin in chain.conflist["plugins"]} == {"nftcni"}
    before = host.snapshot()
    assert chain.run("DEL", "", portMappings=PORTS).status == 0
    added = chain.run("ADD", portMappings=PORTS)
    assert added.status == 0, added.stdout
    with Server(container, 80):
        published = any(plugin.get("capabilities", {}).get("portMappings") for plugin in chain.conflist["plugins"])
        # Without the capability libcni hands no ports on (CRI-O publishes by itself), and nothing listens there.
        assert ask(lan, "198.51.100.1", 8080) == ("c1 198.51.100.2" if published else "refused")
    checked = chain.run("CHECK", portMappings=PORTS)
    assert (checked.status, checked.stdout) == (0, "")
    for _ in range(2):
        assert chain.run("DEL", last_netns, portMappings=PORTS).status == 0
        assert host.snapshot() == before


def test_there_are_conflists_to_run() -> None:
    assert len(CONFLISTS) >= 2


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def with_neighbour(host: Host, log: Path, *plugins: Json) -> Chain:
    """A conflist in which the type `neighbour` is a script that passes the result on."""
    chain = Chain(host, conflist(*plugins))
    script = host.file(f"{BIN}/neighbour")
    script.write_text(NEIGHBOUR_PLUGIN.format(log=log))
    script.chmod(0o755)
    return chain


def test_a_plugin_after_ours_gets_our_result_and_both_are_deleted(host: Host, log: Path) -> None:
    chain = with_neighbour(host, log, own(capabilities={"portMappings": True}), {"type": "neighbour"})
    host.container("c1")
    before = host.snapshot()
    assert chain.run("ADD", portMappings=PORTS).status == 0
    assert [item["address"] for item in chain.result["ips"]] == ["10.88.0.2/24", "fd00:88::2/64"]
    assert chain.run("CHECK").status == 0
    assert chain.run("DEL").status == 0
    assert log.read_text().split() == ["ADD", "CHECK", "DEL"]
    assert host.snapshot() == before


def test_a_plugin_after_ours_fails_and_the_runtime_deletes_the_chain(host: Host, log: Path) -> None:
    chain = with_neighbour(host, log, own(), {"type": "neighbour"})
    Path(f"{log}.fails").write_text("")
    host.container("c1")
    before = host.snapshot()
    assert chain.run("ADD").code == 142
    chain.result = None  # libcni has nothing in its cache then
    assert chain.run("DEL").status == 0
    assert host.snapshot() == before


def test_ours_fails_and_is_deleted_without_ever_having_been_added(host: Host, log: Path) -> None:
    chain = with_neighbour(host, log, own(mtu=5), {"type": "neighbour"})
    host.container("c1")
    before = host.snapshot()
    assert chain.run("ADD").code == 7
    assert chain.run("DEL").status == 0
    assert log.read_text().split() == ["DEL"]
    assert host.snapshot() == before


needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="NOT RUN: needs the package containernetworking-plugins in /usr/lib/cni"
)


@needs_reference
@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_reference_plugins_after_ours(host: Host, version: str) -> None:
    """They find the container's and the host's link by our result, and what they change is no drift to our CHECK."""
    tuning = {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}, "mtu": 1400}
    limits = {"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 8_000_000}
    chain = Chain(host, conflist(own(mtu=1400), tuning, limits, version=version))
    for name in ("tuning", "bandwidth"):
        host.file(f"{BIN}/{name}").symlink_to(REFERENCE / name)
    container = host.container("c1")
    before = host.snapshot()
    added = chain.run("ADD")
    assert added.status == 0, added.stdout
    assert container.sysctl("ipv4/conf/eth0/arp_filter") == "1"
    outside = chain.result["interfaces"][1]["name"]
    assert "tbf" in host.run("tc", "qdisc", "show", "dev", outside)
    checked = chain.run("CHECK")
    assert checked.status == 0, checked.stdout
    assert chain.run("DEL").status == 0
    assert host.snapshot() == before
