"""`conditionsV4` and `conditionsV6` beside the reference portmap with its nftables backend: who is let in by each."""

from __future__ import annotations

from pathlib import Path

import programs
import pytest
from support.scratch import CHECKOUT, Host, Json
from support.traffic import QUICK, Server, ask

NAMES = ("bridge", "portmap", "host-local")
COMMON = {"cniVersion": "1.0.0", "name": "conditional"}
SUBNETS = [[{"subnet": "10.66.0.0/24"}], [{"subnet": "fd00:66::/64"}]]
ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
BRIDGE = {
    **{**COMMON, "type": "bridge", "bridge": "br0", "isGateway": True, "ipMasq": True, "ipMasqBackend": "nftables"},
    **{"hairpinMode": True, "ipam": {"type": "host-local", "ranges": SUBNETS, "routes": ROUTES}},
}
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
CONDITIONS: dict[str, Json] = {
    "by sender, word by word": {
        "conditionsV4": ["ip", "saddr", "!=", "198.51.100.0/24"],
        "conditionsV6": ["ip6", "saddr", "!=", "2001:db8:100::/64"],
    },
    "by address": {"conditionsV4": ["ip daddr != 198.51.100.1"], "conditionsV6": ["ip6 daddr 2001:db8:101::1"]},
    "by link, one family": {"conditionsV4": ["iifname", '"to-office"'], "conditionsV6": []},
    "a set": {"conditionsV4": ["ip saddr { 198.51.101.0/24, 10.66.0.0/24 }"]},
}


def reached(folder: Path, plugins: Path, conditions: Json) -> dict[tuple[str, str], bool]:
    """By whom, and by which address."""
    for name in NAMES:
        (folder / name).symlink_to(plugins if plugins.is_file() else plugins / name)
    host = Host()
    try:
        places = [host.neighbour(), host.neighbour("office", 2), host, host.container("c1")]
        how = {"env": {"CNI_PATH": str(folder)}}
        result = host.add(BRIDGE, plugin=str(folder / "bridge"), **how)
        asked = {**COMMON, "type": "portmap", "backend": "nftables", **conditions, "prevResult": result}
        asked["runtimeConfig"] = {"portMappings": PORTS}
        host.add(asked, plugin=str(folder / "portmap"), **how)
        found = {}
        with Server(places[3], 80):
            for place in places:
                for address in ("198.51.100.1", "198.51.101.1", "2001:db8:100::1", "2001:db8:101::1"):
                    if "198.51.10" in address or place.name in ("lan", "office"):
                        answer = ask(place, address, 8080, timeout=4 * QUICK)  # an address may be tentative
                        found[place.name, address] = answer.startswith("c1")
        host.delete(asked, plugin=str(folder / "portmap"), **how)
        return found
    finally:
        host.close()


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_same_packets_are_let_in(name: str, tmp_path: Path) -> None:
    programs.require(*(f"reference/{plugin}" for plugin in NAMES))
    found = []
    for number, plugins in enumerate((CHECKOUT / "conf" / "nftcni", programs.BIN / "reference")):
        folder = tmp_path / str(number)
        folder.mkdir()
        found.append(reached(folder, plugins, CONDITIONS[name]))
    assert found[0] == found[1]
    assert set(found[0].values()) == {True, False}
