"""Beside a real ufw, switched on as it comes: what doctor prints for it heals what is published and what goes out."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.debian import Unavailable
from support.scratch import Host, network, port
from support.traffic import Server, ask
from system import System

DUAL = ("10.88.0.0/24", "fd00:88::/64")
LAN = ("198.51.100.2", "2001:db8:100::2")
HERE = ("198.51.100.1", "2001:db8:100::1")
OWN = ("10.88.0.2", "fd00:88::2")


@pytest.fixture
def ufw() -> Iterator[Host]:
    """ufw's files are the host's own, as they are for whoever pastes commands."""
    host = Host()
    try:
        system = System(host, "ufw", ["ufw"])
    except Unavailable as problem:
        host.close()
        pytest.fail(f"ufw cannot be had: {problem}")
    host.run("sh", "-ec", f"cp {system.root}/usr/share/ufw/*.* {system.root}/etc/ufw")  # as ufw.postinst does
    for family in ("iptables", "ip6tables"):  # and iptables.postinst
        for name in (family, f"{family}-save", f"{family}-restore"):
            host.run("ln", "-sf", f"{name.replace('tables', 'tables-nft', 1)}", f"{system.root}/usr/sbin/{name}")
    host.run("mkdir", "/run/ufw.upper/over", "/run/ufw.upper/etcwork")
    layers = "lowerdir=/etc,upperdir=/run/ufw.upper/over,workdir=/run/ufw.upper/etcwork"
    host.run("mount", "-t", "overlay", "-o", layers, "etc", "/etc")
    host.run("mkdir", "-p", "/etc/ufw")
    host.run("mount", "--bind", f"{system.root}/etc/ufw", "/etc/ufw")
    yield host
    host.close()


def test_its_remedy_heals(ufw: Host) -> None:
    host = ufw
    lan = host.neighbour()
    host.run("ip", "route", "add", "default", "via", LAN[0])
    host.run("ip", "-6", "route", "add", "default", "via", LAN[1])
    host.run("ufw", "--force", "enable")
    container = host.container("c1")
    host.add(network("net0", *DUAL, ports=[port(8080, 80), port(8080, 80, ip="::")]))
    for subnet, via in zip(DUAL, HERE):
        lan.run("ip", *(["-6"] if ":" in subnet else []), "route", "replace", subnet, "via", via)
    with Server(lan, 90), Server(container, 80), Server(container, 81):

        def reached() -> dict[str, list[bool]]:
            return {
                "out": [ask(container, address, 90).startswith("lan") for address in LAN],
                "published": [ask(lan, address, 8080).startswith("c1") for address in HERE],
                "unpublished": [ask(lan, address, 81).startswith("c1") for address in OWN],
            }

        assert reached() == {"out": [False] * 2, "published": [False] * 2, "unpublished": [False] * 2}
        done = host.command("doctor", "--json")
        assert done.returncode == 1
        steps = [item for item in json.loads(done.stdout)["findings"] if "ufw" in " ".join(item["remedy"])]
        assert steps, done.stdout
        for step in steps:
            host.run("sh", "-ec", "\n".join(step["remedy"]))
        assert reached() == {"out": [True] * 2, "published": [True] * 2, "unpublished": [False] * 2}
        done = host.command("doctor")
        assert done.returncode == 0, done.stdout
