"""A node with 250 pods that starts again: its disk is there, its memory is not, and the kubelet makes every pod anew.

How long that takes is printed, never asserted.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from lan import Lan, Node, seen
from support.scratch import port
from support.traffic import Server, serving

PODS = 250
WORKERS = 4  # the kubelet starts pods side by side


def attach(node: Node, names: Iterable[str]) -> float:
    """All of them, each with a published port. Seconds."""
    for name in names:
        node.container(name)
    start = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda name: node.add(network(node, name), name), names))
    return time.monotonic() - start


def network(node: Node, name: str) -> object:
    number = int(name.lstrip("pq"))
    return node.pods(port(20000 + number, 80), port(20000 + number, 80, "tcp", "::"))


def test_a_node_with_many_pods_starts_again(lan: Lan, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = lan.nodes
    lan.route()
    c = two.pod(two.pods(), "c")
    before = [f"p{number}" for number in range(PODS)]
    first = attach(one, before)
    saved = one.run("nft", "list", "ruleset")  # what a service may keep in /etc/nftables.conf
    one.close()
    lan.nodes[0] = one = Node(lan.switch, one.number, one.name)
    one.reach(two)
    one.nft(saved)
    start = time.monotonic()
    for name in before:
        one.delete(network(one, name), name, netns="")
    gone = time.monotonic() - start
    after = [f"q{number}" for number in range(PODS)]
    again = attach(one, after)
    with capsys.disabled():
        print(
            f"\n{PODS} pods: {first:.1f} s; after a restart {gone:.1f} s for DEL of the old, {again:.1f} s for the new"
        )
    answer = one.command("list", "--json")
    assert answer.stdout.count('"container"') == PODS, answer.stdout[:400]
    assert len(one.elements()["attachments"]) == PODS
    assert one.command("repair", "--check").returncode == 0
    for number in (0, PODS // 2, PODS - 1):
        inside = next(item for item in one.namespaces if item.name == f"q{number}")
        with serving(Server(inside, 80)):
            [address] = [item for item in inside.addresses("eth0") if "." in item]
            assert seen(c, address.split("/")[0]) == f"q{number} {two.ips['c'][0]}"
            assert seen(lan.outside, one.address, 20000 + number) == f"q{number} {lan.outside.address}"
            assert seen(lan.outside, one.address6, 20000 + number) == f"q{number} {lan.outside.address6}"
            assert seen(inside, two.ips["c"][0]) == f"c {address.split('/')[0]}"
