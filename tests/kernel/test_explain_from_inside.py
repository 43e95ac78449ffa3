"""`explain --from` a client on the container's own bridge: the verdict is what the client gets."""

from __future__ import annotations

import pytest
from support.machines import NETFILTER
from support.scratch import Host, Json, network, port
from support.traffic import Server, ask

ADDRESSES = {
    "web": ("10.88.0.2", "fd00:88::2"),
    "sibling": ("10.88.0.3", "fd00:88::3"),
    "host": ("10.88.0.1", "fd00:88::1"),
}
KEYS = {
    "usual": {},
    "masqAll": {"masqAll": True},
    "no snat": {"snat": False},
    "no hairpin": {"hairpinMode": False},
    "no snat, no hairpin": {"snat": False, "hairpinMode": False},
    "isolated ports": {"portIsolation": True},
    "isolated ports, no snat": {"portIsolation": True, "snat": False},
}


@NETFILTER
@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_a_client_on_the_bridge_gets_what_explain_says(host: Host, br_netfilter: str, keys: Json) -> None:
    host.bridge_netfilter(br_netfilter)
    for name in ("web", "sibling"):
        ports = [port(8080, 80)] if name == "web" else ()
        host.add(network("net0", "10.88.0.0/24", "fd00:88::/64", ports=ports, **keys), name)
    found = {}
    with Server(host.place("web"), 80):
        for asker, addresses in ADDRESSES.items():
            for address, gate in zip(addresses, ADDRESSES["host"]):
                done = host.command("explain", "8080", "--from", address)
                got = ask(host.place(asker), gate, 8080)
                found[asker, address] = (got.startswith("web "), done.returncode == 0)
    assert all(arrives == said for arrives, said in found.values()), found


@pytest.mark.parametrize(("address", "client"), [("127.0.0.1", "198.51.100.2"), ("198.51.100.1", "2001:db8:100::2")])
def test_a_client_that_can_ask_no_published_address(host: Host, address: str, client: str) -> None:
    """It said nothing, with exit status 0."""
    lan = host.neighbour()
    host.add(network("net0", "10.88.0.0/24", ports=[port(8080, 80, ip=address)]), "web")
    with Server(host.place("web"), 80):
        assert ask(lan, "2001:db8:100::1" if ":" in client else "198.51.100.1", 8080) == "refused"
    done = host.command("explain", "8080", "--from", client)
    assert done.returncode == 1 and address in done.stdout and client in done.stdout
