"""A flush of the ruleset, and `repair` after it."""

from __future__ import annotations

from kernels.scenarios import scene
from kernels.scenarios.scene import HOST4, HOST6, LAN4, LAN6, PLACES, WEB4
from support.scratch import Host, network, port
from support.traffic import Server, ask


def test_flush_and_repair(host: Host) -> None:
    results = scene.build(host)
    before = host.snapshot()
    with scene.serving_web(host, "tcp", "udp"):
        host.nft("flush ruleset")
        assert ask(host.place("lan"), HOST4, 8080) in ("refused", "silence")
        done = host.command("repair")
        assert done.returncode == 0, done.stdout + done.stderr
        for protocol in ("tcp", "udp"):
            assert scene.heard(host.place("lan"), HOST4, 8080, protocol) == f"web {LAN4}"
            assert scene.heard(host.place("lan"), HOST6, 8080, protocol) == f"web {LAN6}"
        assert ask(host.place("other"), WEB4, 80) == "silence"
    for name in PLACES:
        answer = host.cni("CHECK", {**scene.config(name), "prevResult": results[name]}, name)
        assert answer.status == 0, answer.stdout
    assert host.elements() == before["elements"]
    for name in PLACES:
        host.delete(scene.config(name), name)
    assert host.elements() == {} and host.state_files() == []


def test_conditions_hold_after_repair(host: Host) -> None:
    """The maps of verdicts, chains that are loaded beside the table, and both again with it."""
    lan = host.neighbour()
    conditions = {"conditionsV4": [f"ip saddr != {LAN4}"], "conditionsV6": [f"ip6 saddr != {LAN6}"]}
    config = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80), port(8081, 80)], **conditions)
    container = host.container("c1")
    result = host.add(config)
    with Server(container, 80):
        for way in ("ADD", "repair"):
            if way == "repair":
                host.nft("flush ruleset")
                done = host.command("repair")
                assert done.returncode == 0, done.stdout + done.stderr
            assert ask(lan, HOST4, 8080) == ask(lan, HOST6, 8081) == "refused", way
            assert ask(host, HOST4, 8080).startswith("c1")
    assert host.cni("CHECK", {**config, "prevResult": result}).status == 0
    host.delete(config)
    assert host.elements() == {} and "when_" not in host.run("nft", "list", "ruleset")
