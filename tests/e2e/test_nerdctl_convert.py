"""`nftcni convert` under nerdctl: its networks keep their names, labels and IDs, and everything that runs goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator

import programs
import pytest
import readme
from machine import Machine
from nerdctl import HERE, NEIGHBOUR, Nerdctl, composed


@pytest.fixture(scope="module")
def nerdctl(containerd: Machine) -> Nerdctl:
    programs.require("nerdctl")
    containerd.shell(readme.commands("nerdctl network create")[0])
    containerd.write("/etc/nerdctl/nerdctl.toml", readme.settings("nerdctl network create"))
    return Nerdctl(containerd)


@pytest.fixture(autouse=True)
def unchanged(nerdctl: Nerdctl) -> Iterator[None]:
    before = nerdctl.machine.state()
    yield
    nerdctl.clear()
    nerdctl("network prune -f")
    nerdctl.machine.check_unchanged(before)


def convert(nerdctl: Nerdctl, words: str) -> str:
    return nerdctl.machine.shell(f"/opt/nftcni/bin/nftcni convert {words}")


def networks(nerdctl: Nerdctl) -> dict[str, str]:
    lines = nerdctl("network ls --format '{{.Name}} {{.ID}}'").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def test_a_network_goes_on_and_is_removed(nerdctl: Nerdctl) -> None:
    nerdctl("network create --subnet 10.9.0.0/24 --label colour=blue mine")
    nerdctl.run("old", "--net mine -p 8080:80")
    known, inspected = networks(nerdctl), json.loads(nerdctl("network inspect mine"))[0]
    convert(nerdctl, "mine")
    native = json.loads(nerdctl("network inspect --mode=native mine"))[0]
    assert [plugin["type"] for plugin in native["CNI"]["plugins"]] == ["nftcni"]
    after = json.loads(nerdctl("network inspect mine"))[0]
    assert networks(nerdctl) == known
    assert {key: after[key] for key in ("Name", "Id", "IPAM", "Labels")} == {
        key: inspected[key] for key in ("Name", "Id", "IPAM", "Labels")
    }
    assert nerdctl.ask_from_outside(HERE, 8080) == f"old {NEIGHBOUR}"
    nerdctl.run("new", "--net mine -p 8081:80")
    assert nerdctl.ask_from_outside(HERE, 8081) == f"new {NEIGHBOUR}"
    assert nerdctl(f"exec new wget -qO- http://{nerdctl.address('old')}/cgi-bin/who").startswith("old ")
    nerdctl("restart old")
    assert nerdctl.ask_from_outside(HERE, 8080) == f"old {NEIGHBOUR}"
    nerdctl.fails("network rm mine", "in use")
    nerdctl("rm -f old new")
    convert(nerdctl, "mine --back")
    convert(nerdctl, "mine")
    nerdctl("network rm mine")
    assert "mine" not in networks(nerdctl)
    nerdctl.machine.shell("rm -f /etc/cni/net.d/*.before-nftcni")


def test_compose_goes_on(nerdctl: Nerdctl) -> None:
    with composed(nerdctl) as (web, db):
        convert(nerdctl, "--all")
        assert nerdctl.ask(nerdctl.address(db), 80).startswith("db ")
        nerdctl(f"restart {web}")
        assert nerdctl.ask(nerdctl.address(web), 80).startswith("web ")
        convert(nerdctl, "--all --back")
