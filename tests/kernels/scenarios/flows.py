"""Whose connections a DEL forgets: kernels from 6.11 on are asked by a filter, and the older ones must refuse that."""

from __future__ import annotations

import re

from kernels.scenarios import scene
from kernels.scenarios.scene import HOST4, HOST6, LAN4, LAN6, SIBLING4, SIBLING6, WEB4, WEB6
from support.scratch import Host

FLOWS = [
    *((WEB4, LAN4, LAN4, HOST4), (LAN4, HOST4, WEB4, LAN4), (SIBLING4, LAN4, LAN4, HOST4), (LAN4, HOST4, HOST4, LAN4)),
    *((WEB6, LAN6, LAN6, HOST6), (LAN6, HOST6, WEB6, LAN6), (SIBLING6, LAN6, LAN6, HOST6), (LAN6, HOST6, HOST6, LAN6)),
]


def remember(host: Host, number: int, source: str, target: str, reply_source: str, reply_target: str) -> None:
    words = ("-s", source, "-d", target, "--reply-src", reply_source, "--reply-dst", reply_target)
    ports = ("--sport", str(number), "--dport", "80", "--reply-port-src", "80", "--reply-port-dst", str(number))
    host.run("conntrack", "-I", "-p", "udp", "-t", "300", *words, *ports)


def remembered(host: Host) -> set[int]:
    """The source ports of the flows."""
    listed = [host.run("conntrack", "-L", "-f", family, "-p", "udp") for family in ("ipv4", "ipv6")]
    return {int(number) for text in listed for number in re.findall(r"^.*?sport=(\d+) ", text, re.MULTILINE)}


def test_a_containers_flows_and_no_others(host: Host) -> None:
    scene.build(host)
    for number, flow in enumerate(FLOWS, 1000):
        remember(host, number, *flow)
    everything = set(range(1000, 1000 + len(FLOWS)))
    assert remembered(host) & everything == everything
    host.delete(scene.config("web"), "web")
    kept = {number for number, flow in enumerate(FLOWS, 1000) if not {WEB4, WEB6} & set(flow)}
    assert remembered(host) & everything == kept and len(kept) == 4
