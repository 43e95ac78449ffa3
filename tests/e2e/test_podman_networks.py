"""podman's own networks with the drop-in names: its generated default and `podman network create`, unchanged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import Machine, browse
from nerdctl import HERE, HERE6, NEIGHBOUR, NEIGHBOUR6
from podman import Podman, prepare

SETTINGS = '[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["/opt/nftcni/bin"]\n'


@pytest.fixture(scope="module")
def podman(machine: Machine, archive: Path) -> Podman:
    machine.shell("conf/install --drop-in --bin-dir /opt/nftcni/bin --conflist none")
    return prepare(machine, archive, SETTINGS)


@pytest.fixture(autouse=True)
def unchanged(podman: Podman) -> Iterator[None]:
    before = podman.machine.state()
    yield
    podman("rm", "-a", "-f", "-t", "0")
    podman("network", "prune", "-f")
    podman.machine.check_unchanged(before)


def test_the_generated_default_network(podman: Podman) -> None:
    podman.run("web", "-p", "8080:80")
    assert podman.machine.foreign() == []
    assert browse(podman.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"
    podman("restart", "-t", "0", "web")
    podman.ready("web")
    assert browse(podman.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"


def test_a_network_of_both_families(podman: Podman) -> None:
    subnets = ("--subnet", "10.77.0.0/24", "--ipv6", "--subnet", "fd00:77::/64")
    podman("network", "create", *subnets, "mine")
    podman.run("web", "--network", "mine", "-p", "8080:80", "--ip", "10.77.0.9", "--mac-address", "02:42:0a:57:00:4d")
    assert podman.address("web") == "10.77.0.9"
    for _ in range(2):
        assert podman.inside("web").link("eth0")["address"] == "02:42:0a:57:00:4d"
        assert browse(podman.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"
        assert browse(podman.machine.lan, HERE6, 8080) == f"web {NEIGHBOUR6}"
        podman("network", "reload", "--all")
    podman("rm", "-f", "-t", "0", "web")
    podman("network", "rm", "mine")
    assert "mine" not in podman("network", "ls", "-q").split()


def test_an_mtu(podman: Podman) -> None:
    podman("network", "create", "-o", "mtu=1400", "--subnet", "10.78.0.0/24", "small")
    podman.run("web", "--network", "small")
    assert podman.inside("web").link("eth0")["mtu"] == 1400
    plugins = json.loads(podman.machine.file("/etc/cni/net.d/small.conflist").read_text())["plugins"]
    assert [plugin["type"] for plugin in plugins] == ["bridge", "portmap", "firewall", "tuning"]
