"""Beside a real ufw, switched on as it comes: what doctor prints for it heals what is published and what goes out."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.debian import Unavailable
from support.scratch import Host
from support.traffic import Server
from system import OPEN, System, attached, reached, with_lan


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
    with_lan(ufw)
    ufw.run("ufw", "--force", "enable")
    _config, result = attached(ufw)
    assert reached(ufw, result) == dict.fromkeys(OPEN, [False, False])
    with Server(ufw.place("c1"), 80):  # doctor would say that nobody listens
        done = ufw.command("doctor", "--json")
    assert done.returncode == 1
    steps = [item for item in json.loads(done.stdout)["findings"] if "ufw" in " ".join(item["remedy"])]
    assert steps, done.stdout
    for step in steps:
        ufw.run("sh", "-ec", "\n".join(step["remedy"]))
    assert reached(ufw, result) == OPEN
    with Server(ufw.place("c1"), 80):
        done = ufw.command("doctor")
    assert done.returncode == 0, done.stdout
