"""VLANs of bridge ports, which need a kernel with BRIDGE_VLAN_FILTERING: access ports, trunks, the host as the gateway
of a VLAN, CHECK, nothing left."""

from __future__ import annotations

import select
import socket
import time
from typing import Any

import pytest
from kernels.scenarios import kills
from kernels.scenarios.scene import HOST4, HOST6, LAN4, LAN6, PATIENCE, heard
from support import frames
from support.scratch import Host, Json, Namespace, network, port
from support.traffic import Server, ask, ask_on, open_socket, serving


def tagged(address: str, **keys: Any) -> Json:
    ipam = {"type": "static", "addresses": [{"address": f"{address}/24"}]}
    return network("net0", isGateway=False, ipam=ipam, **keys)


def vlans(host: Host, link: str) -> dict[int, set[str]]:
    """What iproute2 says of one port: the flags of each VLAN."""
    found: dict[int, set[str]] = {}
    for entry in host.json("bridge", "-j", "vlan", "show"):
        if entry["ifname"] == link:
            for item in entry["vlans"]:
                for number in range(item["vlan"], item.get("vlanEnd", item["vlan"]) + 1):
                    found[number] = set(item.get("flags", ()))
    return found


NATIVE = {"PVID", "Egress Untagged"}
PORTS: list[tuple[Json, dict[int, set[str]]]] = [
    ({"vlan": 10}, {10: NATIVE}),
    ({"vlan": 10, "preserveDefaultVlan": True}, {1: {"Egress Untagged"}, 10: NATIVE}),
    ({"vlanTrunk": [{"id": 30}, {"minID": 10, "maxID": 12}]}, {1: NATIVE, 10: set(), 11: set(), 12: set(), 30: set()}),
    ({"vlan": 5, "vlanTrunk": [{"minID": 4, "maxID": 6}]}, {4: set(), 5: NATIVE, 6: set()}),
]


@pytest.mark.parametrize(("keys", "wanted"), PORTS)
def test_a_ports_vlans(host: Host, keys: Json, wanted: dict[int, set[str]]) -> None:
    host.container("c1")
    before = host.snapshot()
    config = tagged("10.88.0.2", **keys)
    result = host.add(config)
    port = result["interfaces"][1]["name"]
    assert vlans(host, port) == wanted
    assert host.add(config) == result
    assert vlans(host, port) == wanted
    checked = {**config, "prevResult": result}
    assert host.cni("CHECK", checked).status == 0
    host.run("bridge", "vlan", "del", "dev", port, "vid", str(max(wanted)))
    answer = host.cni("CHECK", checked)
    assert answer.code == 104 and str(max(wanted)) in answer.words
    host.add(config)
    host.run("bridge", "vlan", "add", "dev", port, "vid", "77")
    assert host.cni("CHECK", checked).code == (0 if keys.get("preserveDefaultVlan") else 104)
    host.delete(config)
    assert host.snapshot() == before


def test_only_the_same_vlan_is_reached(host: Host) -> None:
    for number, keys in enumerate([{"vlan": 10}, {"vlan": 10}, {"vlan": 20}, {"vlanTrunk": [{"id": 10}]}], 2):
        host.add(tagged(f"10.88.0.{number}", **keys), f"c{number}")
    trunk = host.place("c5")
    trunk.run("ip", "addr", "flush", "dev", "eth0")
    trunk.run("ip", "link", "add", "link", "eth0", "name", "eth0.10", "type", "vlan", "id", "10")
    trunk.run("ip", "addr", "add", "10.88.0.5/24", "dev", "eth0.10")
    trunk.run("ip", "link", "set", "eth0.10", "up")
    with Server(host.place("c2"), 80):
        assert ask(host.place("c3"), "10.88.0.2", 80, timeout=PATIENCE) == "c2 10.88.0.3"
        assert ask(trunk, "10.88.0.2", 80, timeout=PATIENCE) == "c2 10.88.0.5"
        assert ask(host.place("c4"), "10.88.0.2", 80) in ("silence", "refused")


@pytest.mark.parametrize("vlan", [10, 1], ids=["an access port", "a trunk"])
def test_the_tag_of_a_ports_own_vlan_hides_nothing(host: Host, vlan: int) -> None:
    """The bridge takes it off, so a sibling gets what was forged as if it had no tag; with VLAN 0 behind it as well."""
    trunk = network("vlan1", "10.88.1.0/24", "fd00:88:1::/64", bridge="br-net0", vlanTrunk=[{"id": 30}])
    config = trunk if vlan == 1 else gateway(vlan)
    for name in ("victim", "rogue"):
        host.add(config, name)
    victim, rogue = host.place("victim"), host.place("rogue")
    theirs, own = frames.mac(victim), frames.mac(rogue)
    gates, addresses = ((f"10.88.{vlan}.{last}", f"fd00:88:{vlan}::{last}") for last in (1, 2))
    with Server(host, 8000):
        for gate in gates:
            assert ask(victim, gate, 8000, timeout=PATIENCE).startswith("host ")
    tag = b"\x81\0" + vlan.to_bytes(2, "big")
    forged = [frames.arp(own, gates[0], theirs, addresses[0])]
    forged.append(frames.neighbour_advertisement(own, gates[1], addresses[1]))
    forged += [frames.datagram(*pair, 53, b"forged") for pair in zip(gates, addresses)]
    last = frames.datagram(f"10.88.{vlan}.3", addresses[0], 53, b"last")
    for _ in range(3):  # an entry is not replaced in its first second (arp locktime)
        time.sleep(0.6)
        for tags in (tag, *(tag + more for more in frames.PRIORITY_TAGS.values())):
            sent = [tags + packet for packet in forged]
            assert frames.heard(victim, 53, (rogue, theirs, [*sent, tag + last]), timeout=PATIENCE) == {b"last"}
    known = {entry["dst"]: entry.get("lladdr") for entry in victim.json("ip", "-j", "neigh", "show")}
    assert own.hex(":") not in [known.get(gate) for gate in gates]


def test_a_bridge_of_others_has_to_filter_itself(host: Host) -> None:
    host.run("ip", "link", "add", "br-net0", "type", "bridge")
    host.container("c1")
    answer = host.refused("ADD", tagged("10.88.0.2", vlan=10))
    assert answer.code == 7 and "vlan_filtering" in answer.words
    host.run("ip", "link", "set", "br-net0", "type", "bridge", "vlan_filtering", "1")
    result = host.add(tagged("10.88.0.2", vlan=10))
    assert vlans(host, result["interfaces"][1]["name"]) == {10: NATIVE}


# The host as the gateway


def gateway(vlan: int, ports: Any = (), **keys: Any) -> Json:
    """Network of a VLAN of the bridge br-net0, its number in the addresses."""
    keys = {"bridge": "br-net0", "vlan": vlan, **keys}
    return network(f"vlan{vlan}", f"10.88.{vlan}.0/24", f"fd00:88:{vlan}::/64", ports=ports, **keys)


@pytest.mark.parametrize("first", [1, 10, 20], ids=["the bridge's own", "of a VLAN", "of the other VLAN"])
def test_what_goes_first_leaves_the_others_what_they_share(host: Host, first: int) -> None:
    """The bridge's MAC address is the VLANs' gateways' as well."""
    plain = network("vlan1", "10.88.1.0/24", "fd00:88:1::/64", bridge="br-net0")
    networks = {1: plain, 10: gateway(10), 20: gateway(20)}
    for number in networks:
        host.container(f"c{number}")
    before = host.snapshot()
    results = {number: host.add(config, f"c{number}") for number, config in networks.items()}
    host.delete(networks[first], f"c{first}")
    for number in set(networks) - {first}:
        answer = host.cni("CHECK", {**networks[number], "prevResult": results[number]}, f"c{number}")
        assert answer.words == "", number
    assert host.command("repair", "--check").stdout == "nothing to repair\n"
    for number in set(networks) - {first}:
        host.delete(networks[number], f"c{number}")
    assert host.snapshot() == before


def own_vlans(host: Host) -> set[int]:
    return set(vlans(host, "br-net0"))


@pytest.mark.parametrize("br_netfilter", ["0", "1"])
def test_a_vlan_with_its_gateway(host: Host, br_netfilter: str) -> None:
    host.bridge_netfilter(br_netfilter)
    host.neighbour()
    for name in ("web", "sibling", "other"):
        host.container(name)
    before = host.snapshot()
    web = gateway(10, [port(8080, 80), port(8080, 80, "udp")])
    result = host.add(web, "web")
    assert [entry["name"] for entry in result["interfaces"]][0] == "br-net0"
    assert [entry["gateway"] for entry in result["ips"]] == ["10.88.10.1", "fd00:88:10::1"]
    host.add(gateway(10), "sibling")
    host.add(gateway(20), "other")
    link = host.link("br-net0.10")
    assert (link["linkinfo"]["info_kind"], link["linkinfo"]["info_data"]["id"], link["link"]) == ("vlan", 10, "br-net0")
    assert own_vlans(host) >= {10, 20}
    with serving(*(Server(host.place(name), 80, how) for name in ("web", "lan") for how in ("tcp", "udp"))):
        for asker, address, seen in [
            ("lan", HOST4, LAN4),
            ("lan", HOST6, LAN6),
            ("host", HOST4, HOST4),
            ("host", "127.0.0.1", "10.88.10.1"),
            ("web", HOST4, "10.88.10.1"),
            ("web", HOST6, "fd00:88:10::1"),
            ("sibling", HOST4, "10.88.10.1"),
            ("sibling", HOST6, "fd00:88:10::1"),
            ("other", HOST4, "10.88.20.2"),
            ("other", HOST6, "fd00:88:20::2"),
        ]:
            for how in ("tcp", "udp"):
                assert heard(host.place(asker), address, 8080, how) == f"web {seen}", (asker, address, how)
        assert heard(host.place("sibling"), "10.88.10.2", 80) == "web 10.88.10.3"
        assert heard(host.place("sibling"), "fd00:88:10::2", 80) == "web fd00:88:10::3"
        assert heard(host.place("web"), LAN4, 80) == f"lan {HOST4}"
        assert heard(host.place("web"), LAN6, 80) == f"lan {HOST6}"
        host.place("lan").run("ip", "route", "add", "10.88.10.0/24", "via", HOST4)
        for asker in ("other", "lan"):  # not published
            assert ask(host.place(asker), "10.88.10.2", 80) == "silence"
        for words in (["doctor"], ["explain", "8080"], ["explain", "web"]):
            done = host.command(*words)
            assert done.returncode == 0, done.stdout
    assert host.cni("CHECK", {**web, "prevResult": result}, "web").status == 0
    assert host.add(web, "web") == result
    host.delete(gateway(20), "other")
    assert host.link("br-net0.20") is None and own_vlans(host) & {10, 20} == {10}
    host.delete(web, "web")
    assert host.link("br-net0.10")
    host.delete(gateway(10), "sibling")
    assert host.snapshot() == before


BREAKS = {
    "br-net0.10": ["ip", "link", "del", "br-net0.10"],
    "10.88.10.1": ["ip", "addr", "del", "10.88.10.1/24", "dev", "br-net0.10"],
    "VLAN 10": ["bridge", "vlan", "del", "dev", "br-net0", "vid", "10", "self"],
    "down": ["ip", "link", "set", "br-net0.10", "down"],
}


def state(host: Host) -> dict[str, Json]:
    """Whatever the order in which links were made."""
    found = host.snapshot()
    return {**found, "links": sorted(found["links"], key=lambda link: str(link["ifname"]))}


@pytest.mark.parametrize("word", BREAKS)
def test_a_broken_vlan_is_told_and_repaired(host: Host, word: str) -> None:
    host.container("c1")
    before = host.snapshot()
    web = gateway(10, [port(8080, 80)])
    result = host.add(web)
    whole = (state(host), own_vlans(host))
    host.run(*BREAKS[word])
    answer = host.cni("CHECK", {**web, "prevResult": result})
    assert answer.code == 104 and word in answer.words
    assert host.command("repair").returncode == 0
    assert host.cni("CHECK", {**web, "prevResult": result}).status == 0
    assert (state(host), own_vlans(host)) == whole
    host.delete(web)
    assert host.snapshot() == before


@pytest.mark.parametrize("end", ["DEL", "GC", "DEL without state", "GC without state"])
def test_the_end_of_a_vlan(host: Host, end: str) -> None:
    host.container("c1")
    before = host.snapshot()
    host.add(gateway(10, [port(8080, 80)]))
    if "without state" in end:
        host.run("sh", "-c", "rm -r /run/nftcni/*")
    if "DEL" in end:
        host.delete(gateway(10))
    else:
        assert host.cni("GC", {**gateway(10), "cni.dev/valid-attachments": []}).status == 0
    assert host.snapshot() == before


def reaches_loopback(host: Host, machine: Namespace, source: str = "10.88.10.77") -> bool:
    """Whether a service at the host's 127.0.0.1:9999 hears a packet that is sent to the bridge's MAC address."""
    with host.entered():
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with ear:
        ear.bind(("127.0.0.1", 9999))
        frames.send(machine, frames.mac(host, "br-net0"), frames.datagram(source, "127.0.0.1", 9999, b"evil"))
        return bool(select.select([ear], [], [], 1)[0])


def test_a_port_beside_the_vlan_does_not_reach_the_loopback(host: Host) -> None:
    """With br_netfilter the bridge itself hears 127.0.0.1 for the sake of a VLAN's ports."""
    host.add(network("plain", "10.88.1.0/24", bridge="br-net0"), "plain")
    host.add(gateway(10, [port(8080, 80)]), "web")
    assert host.sysctl("ipv4/conf/br-net0/route_localnet") == "1"
    host.nft("flush ruleset")
    assert not reaches_loopback(host, host.place("plain"), "10.88.1.2")


@pytest.mark.parametrize("br_netfilter", ["0", "1"])
def test_sources_that_are_not_the_vlans(host: Host, br_netfilter: str) -> None:
    """The LAN neighbour's, another VLAN's and anybody's: neither out, nor to a published port, nor to the host. With
    br_netfilter they arrive by the bridge's name, not by the VLAN's."""
    lan = host.neighbour()
    host.bridge_netfilter(br_netfilter)
    for key in ("all", "default"):
        host.set_sysctl(f"ipv4/conf/{key}/rp_filter", "0")
    host.add(gateway(10), "rogue")
    host.add(gateway(20, [port(5300, 53, "udp")]), "other")
    rogue, ways = host.place("rogue"), frames.to_the_host(host, "br-net0", "rogue")
    own = {4: ("10.88.10.2", HOST4, LAN4), 6: ("fd00:88:10::2", HOST6, LAN6)}
    forged = {4: (LAN4, "10.88.20.2", "203.0.113.9"), 6: (LAN6, "fd00:88:20::2", "2001:db8:9::9")}
    for version, (mine, hosts, far) in own.items():
        for place, target, number, arrives in (
            (host, hosts, 6000, 6000),
            (lan, far, 7000, 7000),
            (host.place("other"), hosts, 5300, 53),
        ):
            sources = [source for source in forged[version] if source != target]
            packets = [frames.datagram(source, target, number, b"forged") for source in sources]
            last = [frames.datagram(mine, target, number, b"last")]
            sent = [(rogue, way, packets) for way in ways]
            arrived = frames.heard(place, arrives, *sent, (rogue, ways[0], last), timeout=PATIENCE)
            assert arrived == {b"last"}, (place.name, version)


@pytest.mark.parametrize("beside", [{}, {"isGateway": False}], ids=["routed", "internal"])
def test_vlans_beside_the_bridges_own_network(host: Host, beside: Json) -> None:
    """With br_netfilter all arrive by the bridge's name; an address that only the container itself knows passes too."""
    lan = host.neighbour()
    host.bridge_netfilter("1")
    host.add(network("vlan1", "10.88.1.0/24", "fd00:88:1::/64", bridge="br-net0", **beside), "c1")
    host.add(gateway(10, [port(8080, 80)]), "c10")
    host.add(gateway(20), "c20")
    nested = host.place("c10")
    nested.run("ip", "addr", "add", "10.88.10.99/24", "dev", "eth0")
    nested.run("ip", "addr", "add", "fd00:88:10::99/64", "dev", "eth0", "nodad")
    with serving(Server(lan, 80), Server(host, 80)):
        for number in (1, 10, 20):
            place = host.place(f"c{number}")
            for target, seen in ((LAN4, f"lan {HOST4}"), (LAN6, f"lan {HOST6}"), (HOST4, "host "), (HOST6, "host ")):
                if number > 1 or not beside:
                    assert heard(place, target, 80).startswith(seen), (number, target)
                else:
                    assert ask(place, target, 80) in ("silence", "refused"), target
        for target, source in ((HOST4, "10.88.10.99"), (HOST6, "fd00:88:10::99")):
            with open_socket(nested, socket.AF_INET6 if ":" in source else socket.AF_INET, "tcp") as sock:
                sock.bind((source, 0))
                assert ask_on(sock, target, 80, PATIENCE) == f"host {source}"


def test_the_last_vlan_takes_what_the_vlans_share(host: Host) -> None:
    for number in (10, 20):
        host.add(gateway(number), f"c{number}")
    assert host.elements()["vlan_bridges"] == ["br-net0"]
    host.delete(gateway(10), "c10")
    elements = host.elements()
    assert (elements["vlan_bridges"], elements["vlans"]) == (["br-net0"], ["br-net0.20"])
    host.delete(gateway(20), "c20")
    assert not any(host.elements().values())


def adopted(host: Host) -> None:
    """With a machine in its VLAN 10 that is none of ours."""
    host.run("ip", "link", "add", "br-net0", "type", "bridge", "vlan_filtering", "1")
    host.run("ip", "link", "set", "br-net0", "up")
    machine = host.container("machine")
    host.run("ip", "link", "add", "port1", "type", "veth", "peer", "name", "eth0", "netns", "machine")
    host.run("ip", "link", "set", "port1", "master", "br-net0", "up")
    host.run("bridge", "vlan", "add", "dev", "port1", "vid", "10", "pvid", "untagged")
    machine.run("ip", "addr", "add", "10.88.10.77/24", "dev", "eth0")
    machine.run("ip", "link", "set", "eth0", "up")


@pytest.mark.parametrize("theirs", [False, True], ids=["our link", "their link"])
def test_a_vlan_of_somebody_elses_bridge(host: Host, theirs: bool) -> None:
    adopted(host)
    if theirs:
        host.run("ip", "link", "add", "link", "br-net0", "name", "br-net0.10", "type", "vlan", "id", "10")
        host.run("bridge", "vlan", "add", "dev", "br-net0", "vid", "10", "self")
    host.container("c1")
    before = (host.snapshot(), own_vlans(host))
    web = gateway(10, [port(8080, 80)], isGateway=True)
    result = host.add(web)
    machine = host.place("machine")
    with serving(Server(host.place("c1"), 80), Server(machine, 80), Server(host, 9)):
        assert heard(machine, "10.88.10.1", 9) == "host 10.88.10.77"
        assert heard(machine, "10.88.10.2", 80) == "c1 10.88.10.77"
        assert heard(host.place("c1"), "10.88.10.77", 80) == "machine 10.88.10.2"
        assert heard(host, "127.0.0.1", 8080) == "c1 10.88.10.1"
        assert host.cni("CHECK", {**web, "prevResult": result}).status == 0
        assert not reaches_loopback(host, machine)
        host.nft("flush ruleset")
        assert not reaches_loopback(host, machine)
        assert host.command("repair").returncode == 0
        assert heard(host, "127.0.0.1", 8080) == "c1 10.88.10.1"
    assert host.cni("CHECK", {**web, "prevResult": result}).status == 0
    host.delete(web)
    assert (host.snapshot(), own_vlans(host)) == before


def test_a_vlan_of_somebody_elses_bridge_has_its_router_elsewhere(host: Host) -> None:
    adopted(host)
    host.container("c1")
    before = (host.snapshot(), own_vlans(host))
    result = host.add(gateway(10))
    assert host.link("br-net0.10") is None and own_vlans(host) == before[1]
    assert {"dst": "0.0.0.0/0", "gw": "10.88.10.1"} in result["routes"]
    host.delete(gateway(10))
    assert (host.snapshot(), own_vlans(host)) == before


def test_another_link_of_the_name_is_refused(host: Host) -> None:
    host.run("ip", "link", "add", "br-net0.10", "type", "dummy")
    host.container("c1")
    before = host.snapshot()
    answer = host.refused("ADD", gateway(10))
    assert answer.code == 7 and "br-net0.10" in answer.words and "dummy" in answer.words
    assert host.snapshot() == before


def test_a_trunk_has_its_gateway_in_the_native_vlan(host: Host) -> None:
    host.neighbour()
    config = network("net0", "10.88.0.0/24", vlanTrunk=[{"minID": 10, "maxID": 20}], ports=[port(8080, 80)])
    host.add(config)
    with Server(host.place("c1"), 80):
        assert heard(host.place("lan"), HOST4, 8080) == f"c1 {LAN4}"


def test_vlans_of_one_bridge_are_networks_of_their_own(host: Host) -> None:
    for number, keys in enumerate([{"vlan": 10}, {"vlan": 20}], 1):
        host.add({**tagged(f"10.88.0.{number}", **keys), "name": f"net{number}"}, f"c{number}")
    host.container("c3")
    answer = host.refused("ADD", {**tagged("10.88.0.3", vlan=20), "name": "net3"}, "c3")
    assert answer.code == 7 and "net2" in answer.words


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_killed(host: Host, verb: str) -> None:
    host.add(gateway(20), "sibling")
    assert kills.problems(host, verb, gateway(10, [port(8080, 80)])) == []
