"""A flush of the ruleset, and `repair` after it."""

from __future__ import annotations

from kernels.scenarios import scene
from kernels.scenarios.scene import HOST4, HOST6, LAN4, LAN6, PLACES, WEB4
from support.scratch import Host
from support.traffic import ask


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
