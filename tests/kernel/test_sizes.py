"""Thousands of ports, host addresses and range sets: twice as many cost twice as much, in calls of functions and of the
kernel. All of it is work under the lock, which the other containers of the host wait for.

What is counted is the same on every machine; how long it takes is not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.scratch import CHECKOUT, PLUGIN, Host, Json, network, port

COUNTER = f"""#!/usr/bin/python3 -IS
import os, posix, sys
sys.path.insert(0, "{CHECKOUT}")
if os.path.basename(sys.argv[0]) == "nftcni":
    sys.argv[0] = "{PLUGIN}"
count = [0]

def look(frame, event, _argument):
    if event in ("call", "c_call"):
        count[0] += 1

def leave(status):
    if os.getpid() == process:
        sys.setprofile(None)
        with open("/run/count", "w") as out:
            out.write(str(count[0]))
    leaving(status)

leaving, process, posix._exit = posix._exit, os.getpid(), leave
from cni.main import main
sys.setprofile(look)
main()
"""
SMALL = 150
DOUBLE = 2.25  # a quadratic part would show: at 150 and 300 it has long outgrown the rest


def ports(number: int) -> Json:
    return network("net0", ports=[port(1000 + index, 80) for index in range(number)])


def routed_ports(number: int) -> Json:
    return {**ports(number), "gatewayMode": "routed"}


def udp_ports(number: int) -> Json:
    return network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(1000 + i, 80, "udp") for i in range(number)])


def host_addresses(number: int) -> Json:
    mappings = [port(8080, 80, ip=f"10.7.{index // 250}.{index % 250 + 1}") for index in range(number)]
    return network("net0", ports=mappings)


def range_sets(number: int) -> Json:
    return network("net0", *(f"20.{index // 250}.{index % 250}.0/24" for index in range(number)), ip=None)


def requested(number: int) -> Json:
    asked = [f"20.{index // 250}.{index % 250}.77" for index in range(number)]
    return {**range_sets(number), "runtimeConfig": {"ips": asked}}


KINDS: dict[str, Callable[[int], Json]] = {
    "ports": ports,
    "ports of a routed network": routed_ports,
    "UDP ports of two families": udp_ports,
    "host addresses of one port": host_addresses,
    "range sets": range_sets,
    "requested addresses": requested,
}


@pytest.fixture
def counter(tmp_path: Path) -> str:
    path = tmp_path / "nftcni"
    path.write_text(COUNTER)
    path.chmod(0o755)
    return str(path)


def counted(host: Host, counter: str, verb: str, config: Json) -> tuple[int, Json]:
    answer = host.cni(verb, config, plugin=counter)
    assert answer.status == 0, answer.stdout[:500]
    return int(host.file("/run/count").read_text()), answer.document


def life(host: Host, counter: str, config: Json) -> dict[str, int]:
    """What each verb of a container's life costs."""
    counts = {}
    counts["ADD"], result = counted(host, counter, "ADD", config)
    counts["ADD again"], _ = counted(host, counter, "ADD", config)
    counts["CHECK"], _ = counted(host, counter, "CHECK", {**config, "prevResult": result})
    counts["STATUS"], _ = counted(host, counter, "STATUS", config)
    counts["DEL"], _ = counted(host, counter, "DEL", config)
    assert "net0/c1/eth0" not in str(host.elements())
    return counts


@pytest.mark.parametrize("kind", KINDS)
def test_twice_as_many_cost_twice_as_much(host: Host, counter: str, kind: str) -> None:
    host.add(network("other", "10.99.0.0/24"), "other")
    host.container("c1")
    small, large = (life(host, counter, KINDS[kind](number)) for number in (SMALL, 2 * SMALL))
    growth = {verb: round(large[verb] / small[verb], 2) for verb in small}
    assert max(growth.values()) < DOUBLE, f"{growth} {json.dumps(large)}"


def test_a_port_costs_few_calls(host: Host, counter: str) -> None:
    """Of functions, those of C among them: a thousand ports have a thousand times as many, under the lock."""
    host.add(network("other", "10.99.0.0/24"), "other")
    host.container("c1")
    small, large = (life(host, counter, ports(number)) for number in (SMALL, 2 * SMALL))
    each = {verb: (large[verb] - small[verb]) / SMALL for verb in ("ADD", "DEL")}
    assert each["ADD"] < 230 and each["DEL"] < 100, each


def test_the_name_portmap_costs_twice_as_much_for_twice_as_many(host: Host, counter: str) -> None:
    """The second ADD compares what there was with what is asked for."""
    (Path(counter).parent / "portmap").symlink_to(counter)
    named = str(Path(counter).parent / "portmap")
    result = host.add(ports(0))
    grown: dict[str, list[int]] = {}
    for number in (SMALL, 2 * SMALL):
        asked = {**ports(number), "type": "portmap", "prevResult": result}
        fewer = {**asked, "runtimeConfig": {"portMappings": asked["runtimeConfig"]["portMappings"][::2]}}
        for what, verb, config in (
            *(
                ("ADD", "ADD", asked),
                ("ADD again", "ADD", asked),
                ("ADD of half", "ADD", fewer),
                ("more", "ADD", asked),
            ),
            *(("CHECK", "CHECK", asked), ("DEL", "DEL", asked)),
        ):
            grown.setdefault(what, []).append(counted(host, named, verb, config)[0])
        assert "dnat4" not in host.elements()
    growth = {what: round(large / small, 2) for what, (small, large) in grown.items()}
    assert max(growth.values()) < DOUBLE, growth


def test_two_containers_with_many_addresses_of_one_port(host: Host, counter: str) -> None:
    """Each looks at what the other has."""
    grown = []
    for number in (SMALL, 2 * SMALL):
        mine = host_addresses(number)
        others = network(
            "other", "10.99.0.0/24", ports=[port(8080, 80, ip=f"10.8.{i // 250}.{i % 250 + 1}") for i in range(number)]
        )
        host.add(others, f"other{number}")
        if "c1" not in {item.name for item in host.namespaces}:
            host.container("c1")
        grown.append(counted(host, counter, "ADD", mine)[0])
        host.delete(mine)
        host.delete(others, f"other{number}")
    assert grown[1] / grown[0] < DOUBLE, grown


def test_as_many_as_there_may_be(host: Host) -> None:
    """4000 host addresses of one port, 3000 range sets, 10 000 ports: all of it works, and goes again."""
    host.container("c1")
    before = host.snapshot()
    for config, name, number in (
        (host_addresses(4000), "dnat4_ip", 4000),
        (ports(10_000), "dnat4", 10_000),
    ):
        host.add(config, netns="/run/netns/c1")
        assert len(host.elements()[name]) == number
        host.delete(config)
        assert host.snapshot() == before
    config = range_sets(3000)
    assert len(host.add(config, netns="/run/netns/c1")["ips"]) == 3000
    host.delete(config)
    assert host.snapshot() == before
