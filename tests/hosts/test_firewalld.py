"""Beside a real firewalld: the zone that containers join, its reloads, and what doctor says where they are in none.

firewalld's own answers (`firewall-cmd`) and sockets are the oracle.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator

import pytest
from support.debian import Unavailable
from support.scratch import PLUGIN, Host, Json, network
from support.traffic import Server
from system import OPEN, attached, reached, with_lan
from zones import Firewalld

PATIENCE = 60.0  # seconds until a watch that says nothing is ended


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Host, Firewalld]]:
    host = Host()
    with_lan(host)
    try:
        running = Firewalld(host)
    except Unavailable as problem:
        host.close()
        pytest.fail(f"firewalld cannot be had: {problem}")
    yield host, running
    running.close()
    host.close()


@pytest.fixture
def firewalld(place: tuple[Host, Firewalld]) -> Iterator[Firewalld]:
    host, running = place
    yield running
    for container in [item.name for item in host.namespaces if item.name != "lan"]:
        for name in ("net0", "net1"):
            host.cni("DEL", network(name), container)
        host.end(container)


@pytest.fixture
def host(place: tuple[Host, Firewalld]) -> Host:
    return place[0]


@pytest.mark.parametrize(
    ("keys", "zone"), [({"backend": "firewalld"}, "trusted"), ({"firewalldZone": "internal"}, "internal")]
)
def test_addresses_join_the_zone_and_leave_it(firewalld: Firewalld, host: Host, keys: Json, zone: str) -> None:
    config, result = attached(host, **keys)
    sources = [f"{item['address'].split('/')[0]}/{bits}" for item, bits in zip(result["ips"], (32, 128))]
    assert firewalld.sources(zone) == sources
    assert host.cni("CHECK", {**config, "prevResult": result}).status == 0
    assert host.cni("ADD", config).document == result
    firewalld.cmd(f"--zone={zone}", f"--remove-source={sources[0]}")
    answer = host.cni("CHECK", {**config, "prevResult": result})
    assert answer.code == 104 and f"{sources[0]} is not in firewalld's zone {zone}" in answer.words
    host.delete(config)
    assert firewalld.sources(zone) == []


def test_in_the_trusted_zone_everything_passes(firewalld: Firewalld, host: Host) -> None:
    """Ours still is the word on what is published."""
    _config, result = attached(host)
    before = reached(host, result)
    assert before["out"] == [False, False], "firewalld forwards for nobody who is in no zone"
    host.delete(network("net0"))
    _config, result = attached(host, backend="firewalld")
    assert reached(host, result) == OPEN


@pytest.mark.parametrize("way", ["--reload", "restart"])
def test_a_reload_forgets_them_and_repair_tells_it_again(firewalld: Firewalld, host: Host, way: str) -> None:
    config, result = attached(host, backend="firewalld")
    sources = firewalld.sources("trusted")
    if way == "restart":
        firewalld.stop()
        assert host.cni("CHECK", {**config, "prevResult": result}).status != 0
        firewalld.start()
    else:
        firewalld.cmd(way)
    assert firewalld.sources("trusted") == []
    done = host.command("repair", "--check")
    assert done.returncode == 1 and "zone trusted" in done.stdout
    done = host.command("repair")
    assert done.returncode == 0, done.stdout
    assert firewalld.sources("trusted") == sources
    assert reached(host, result) == OPEN
    assert host.cni("CHECK", {**config, "prevResult": result}).status == 0


@pytest.mark.parametrize("way", ["--reload", "restart"])
def test_watch_tells_it_again(firewalld: Firewalld, host: Host, way: str) -> None:
    attached(host, backend="firewalld")
    sources = firewalld.sources("trusted")
    watch = host.popen(PLUGIN, "watch", stdout=subprocess.PIPE)
    limit = threading.Timer(PATIENCE, watch.kill)
    limit.start()
    try:
        assert watch.stdout is not None
        assert any("watching" in line for line in watch.stdout)
        if way == "restart":
            firewalld.stop()
            firewalld.start()
        else:
            firewalld.cmd(way)
        assert any("is in its zone trusted again" in line for line in watch.stdout), "watch says nothing of it"
        assert firewalld.sources("trusted") == sources
    finally:
        limit.cancel()
        watch.terminate()
        watch.wait()


def test_del_while_it_is_away(firewalld: Firewalld, host: Host) -> None:
    config, _result = attached(host, backend="firewalld")
    firewalld.stop()
    host.delete(config)
    firewalld.start()
    assert firewalld.sources("trusted") == []


def test_a_zone_that_there_is_not(firewalld: Firewalld, host: Host) -> None:
    host.container("c1")
    answer = host.refused("ADD", network("net0", firewalldZone="nowhere"))
    assert answer.code and "nowhere" in answer.words and "INVALID_ZONE" in answer.words, answer.words


def test_doctor_names_it_and_its_remedy_heals(firewalld: Firewalld, host: Host) -> None:
    """Of containers that are in no zone; what is not published stays closed. The last test here: the remedy lasts."""
    _config, result = attached(host)
    assert reached(host, result)["out"] == [False, False]
    done = host.command("doctor", "--json")
    assert done.returncode == 1
    found = [item for item in json.loads(done.stdout)["findings"] if "firewalld" in item["what"]]
    assert found, done.stdout
    for command in dict.fromkeys(command for item in found for command in item["remedy"]):
        assert command.startswith("firewall-cmd "), command
        host.run("sh", "-c", command)
    assert reached(host, result) == OPEN
    with Server(host.place("c1"), 80):
        done = host.command("doctor")
    assert done.returncode == 0, done.stdout
