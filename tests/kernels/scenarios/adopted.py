"""A bridge that somebody made just before and that has no port yet: adopted, its MAC address kept, the gateway answers.

Linux 5.10 gives a bridge without ports no FDB entry of its own when its MAC address is set to what it is
(br_set_mac_address), and what containers send to their gateway then is flooded and heard by nobody.
"""

from __future__ import annotations

import pytest
from kernels.scenarios.scene import GATE4, GATE6, HOST4, PATIENCE
from support.scratch import Host, network, port
from support.traffic import Server, ask


@pytest.mark.parametrize("ready", [True, False], ids=["up with its address", "bare"])
def test_adopted_without_ports(host: Host, ready: bool) -> None:
    host.run("ip", "link", "add", "br-net0", "type", "bridge")
    if ready:
        host.run("ip", "addr", "add", f"{GATE4}/24", "dev", "br-net0")
        host.run("ip", "link", "set", "br-net0", "up")
    mac = host.link("br-net0")["address"]
    lan = host.neighbour()
    silent = network("net0", "10.88.0.0/24", "fd00:88::/64")
    config = {**silent, "runtimeConfig": {"portMappings": [port(8080, 80)]}}
    host.add(config)
    assert host.link("br-net0")["address"] == mac
    with Server(host.place("c1"), 80), Server(host, 9):
        assert ask(host.place("c1"), GATE4, 9, timeout=PATIENCE) == "host 10.88.0.2"
        assert ask(host.place("c1"), GATE6, 9, timeout=PATIENCE) == "host fd00:88::2"
        assert ask(lan, HOST4, 8080, timeout=PATIENCE) == "c1 198.51.100.2"
    host.add(silent, "c2")
    host.delete(config)
    assert host.link("br-net0")["address"] == mac
    host.delete(silent, "c2")
    assert host.link("br-net0")["address"] == mac
