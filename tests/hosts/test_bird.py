"""Nodes that tell each other their pod networks by Babel or BGP: Debian's bird2 announces whatever our bridges have.

The configuration of bird is the README's. The oracle is the kernel's routing table, and sockets.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import readme
from lan import Lan, Node, seen, wait_for

FAST = "connect delay time 1; connect retry time 1; error wait time 1, 2;"
BIRD = shutil.which("bird", path="/usr/sbin:/usr/local/sbin:/usr/bin")


def configuration(protocol: str, node: Node, other: Node) -> str:
    """The README's, with the nodes' addresses, and times that suit a test."""
    text = readme.settings("bird", "bird")
    slow = "type wired;"
    assert slow in text and "192.0.2.101" in text
    if protocol == "bgp":
        text = text[: text.index("protocol babel")] + readme.settings("bird", "bgp").replace(
            "  local", f"  {FAST} local"
        )
    else:
        text = text.replace(slow, f"{slow} hello interval 1 s; update interval 2 s;")
    names = {
        "192.0.2.101": node.address,
        "192.0.2.102": other.address,
        "2001:db8::101": node.address6,
        "2001:db8::102": other.address6,
    }
    return re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], text)


@pytest.fixture(scope="module", params=["babel", "bgp"])
def cluster(request: pytest.FixtureRequest, lan: Lan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    if BIRD is None:
        pytest.skip("NOT RUN: bird is missing: Debian's package bird2")
    folder: Path = tmp_path_factory.mktemp("bird")
    running: list[subprocess.Popen[str]] = []
    for node, other in zip(lan.nodes, reversed(lan.nodes)):
        file = folder / f"{node.name}.conf"
        file.write_text(configuration(request.param, node, other))
        log = (folder / f"{node.name}.log").open("w")
        running.append(node.popen(BIRD, "-f", "-c", str(file), "-s", "/run/bird.ctl", stdout=log, stderr=log))
    yield lan
    for process in running:
        process.terminate()
        process.wait()


def ways(node: Node, subnet: str) -> str:
    return node.run("ip", *(["-6"] if ":" in subnet else []), "route", "show", subnet)


def test_networks_are_announced_with_their_first_pod_and_withdrawn_with_their_last(cluster: Lan) -> None:
    one, two = cluster.nodes
    a = one.pod(one.pods(), "a")
    c = two.pod(two.pods(), "c")
    for node, other in ((one, two), (two, one)):
        for subnet in other.subnets:
            wait_for(lambda node=node, subnet=subnet: " via " in ways(node, subnet), f"the route to {subnet}")
    for here, there in zip(one.ips["a"], two.ips["c"]):
        assert seen(a, there) == f"c {here}"
        assert seen(c, here) == f"a {there}"
    assert seen(c, "192.0.2.9", 81) == "outside 192.0.2.102"
    two.remove("c")
    for subnet in two.subnets:
        wait_for(lambda subnet=subnet: not ways(one, subnet), f"the end of the route to {subnet}")
    one.remove("a")
