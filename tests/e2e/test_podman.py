"""podman 4 with its CNI backend and conf/net.d/podman-nftcni.conflist.

The settings are those of the README. Networks that podman makes by itself are in test_podman_networks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import readme
from machine import Machine, browse, wait_for
from nerdctl import HERE, HERE6, NEIGHBOUR, NEIGHBOUR6
from podman import Podman, prepare
from support.traffic import Server, ask


@pytest.fixture(scope="module")
def podman(machine: Machine, archive: Path) -> Podman:
    machine.shell(readme.commands("podman")[0])
    for number in (2, 3):
        config = json.loads(machine.file("/etc/cni/net.d/podman-nftcni.conflist").read_text())
        config["name"] = config["plugins"][0]["bridge"] = f"net{number}"
        config["plugins"][0]["ipam"]["ranges"] = [[{"subnet": f"10.9{number}.0.0/24"}]]
        config["plugins"][0]["isDefaultGateway"] = True  # of a container on both, either may go
        machine.write(f"/etc/cni/net.d/net{number}.conflist", json.dumps(config))
    return prepare(machine, archive, readme.settings("podman"))


@pytest.fixture(autouse=True)
def unchanged(podman: Podman) -> Iterator[None]:
    before = podman.machine.state()
    yield
    podman("rm", "-a", "-f", "-t", "0")
    podman.machine.check_unchanged(before)


def test_the_commands_of_the_readme(podman: Podman) -> None:
    for line in readme.commands("podman")[1:]:
        podman.machine.shell(line, "docker.io/library/who")
    wait_for(lambda: browse(podman.machine.lan, HERE, 8080).endswith(f" {NEIGHBOUR}"), "the published port")


def test_published_ports(podman: Podman) -> None:
    podman.run("web", "-p", "8080:80", "-p", "127.0.0.1:9080:80", "-p", "9090-9091:80-81")
    lan = podman.machine.lan
    for number in (8080, 9090):
        assert browse(lan, HERE, number) == f"web {NEIGHBOUR}"
    assert browse(lan, HERE, 9080) == "refused"
    assert browse(podman.machine, "127.0.0.1", 9080).startswith("web ")
    assert browse(lan, "2001:db8:100::1", 8080) == "web 2001:db8:100::2"
    podman.run("db")
    said = podman("exec", "db", "wget", "-qO-", f"http://{podman.address('web')}/cgi-bin/who")
    assert said == f"web {podman.address('db')}"


def test_the_way_out(podman: Podman) -> None:
    """The LAN sees the host's addresses."""
    podman.run("web")
    with Server(podman.machine.lan, 80):
        for address, seen in ((NEIGHBOUR, HERE), (NEIGHBOUR6, HERE6)):
            assert ask(podman.inside("web"), address, 80) == f"lan {seen}"


def test_addresses_of_the_users_choice(podman: Podman) -> None:
    podman.run("web", "--ip", "10.87.0.77", "--mac-address", "02:42:0a:57:00:4d")
    assert podman.address("web") == "10.87.0.77"
    assert podman.inside("web").link("eth0")["address"] == "02:42:0a:57:00:4d"
    with pytest.raises(AssertionError, match=r"10\.87\.0\.77"):
        podman.run("late", "--ip", "10.87.0.77")


def test_restart_stop_and_start(podman: Podman) -> None:
    podman.run("web", "-p", "8080:80")
    podman("restart", "-t", "0", "web")
    podman.ready("web")
    assert browse(podman.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"
    podman("stop", "-t", "0", "web")
    assert browse(podman.machine.lan, HERE, 8080) == "refused"
    podman("start", "web")
    podman.ready("web")
    assert browse(podman.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"


def test_network_reload_brings_a_flushed_table_back(podman: Podman) -> None:
    podman.run("web", "-p", "8080:80")
    address, mac = podman.address("web"), podman.inside("web").link("eth0")["address"]
    podman.machine.run("nft", "flush", "ruleset")
    assert browse(podman.machine.lan, HERE, 8080, 0.5) != f"web {NEIGHBOUR}"
    podman("network", "reload", "--all")
    assert browse(podman.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"
    assert (podman.address("web"), podman.inside("web").link("eth0")["address"]) == (address, mac)


def test_several_networks(podman: Podman) -> None:
    podman.run("web", "--network", "net2,net3")
    addresses = {name: podman.inside("web").addresses(name) for name in ("eth0", "eth1")}
    assert sorted(item.split(".")[1] for found in addresses.values() for item in found) == ["92", "93"]
    podman.run("db", "--network", "net3")
    there = next(item for found in addresses.values() for item in found if item.startswith("10.93.")).split("/")[0]
    said = podman("exec", "db", "wget", "-qO-", f"http://{there}/cgi-bin/who")
    assert said == f"web {podman.address('db')}"
    podman("network", "disconnect", "net2", "web")
    podman("network", "connect", "net2", "web")


def test_several_networks_publish_one_port(podman: Podman) -> None:
    podman.run("web", "--network", "net2,net3", "-p", "8080:80")
    assert browse(podman.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"
    for network in ("net2", "net3"):
        podman("network", "disconnect", network, "web")
        assert browse(podman.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}", f"without {network}"
        podman("network", "connect", network, "web")
