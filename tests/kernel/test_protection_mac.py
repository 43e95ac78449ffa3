"""A MAC address that somebody asked for is kept from siblings like any other; several containers may have the same."""

from __future__ import annotations

import ipaddress
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from support.frames import datagram, heard, link_locals, mac, neighbour_advertisement
from support.scratch import CHECKOUT, Host, Json, Namespace, network
from support.traffic import Server, ask

ASKED = "02:11:22:33:44:55"
IMPLIED = "fe80::11:22ff:fe33:4455"  # RFC 4291, appendix A
NETS = (("10.88.0.0/24", "fd00:88::/64"), ("10.89.0.0/24", "fd00:89::/64"))
ALL = {"taken_macs", "taken6", "taken_targets"}


def asking(number: int = 0, **keys: Any) -> Json:
    return network(f"net{number}", *NETS[number], mac=ASKED, **keys)


def plain(number: int = 0) -> Json:
    return network(f"net{number}", *NETS[number])


def send_as(place: Namespace, source: str, to: bytes, packet: bytes) -> None:
    with place.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sock:
        sock.bind(("eth0", 0))
        sock.send(to + bytes.fromhex(source.replace(":", "")) + packet)


def learnt(host: Host, bridge: str) -> str:
    """The port to which the bridge sends frames for the address."""
    entries = host.json("bridge", "-j", "fdb", "show", "br", bridge)
    found: list[str] = [entry["ifname"] for entry in entries if entry["mac"] == ASKED]
    return " ".join(found)


def is_kept(host: Host, bridge: str, owner: str, rogue: str) -> bool:
    """Whether frames go on to the owner though the rogue sends with its address."""
    frame = b"\x88\xb5" + bytes(46)  # a protocol for experiments (IEEE 802)
    send_as(host.place(owner), ASKED, mac(host, bridge), frame)
    before = learnt(host, bridge)
    assert before
    send_as(host.place(rogue), ASKED, mac(host, bridge), frame)
    return learnt(host, bridge) == before


def neighbours(place: Namespace) -> dict[str, str | None]:
    return {entry["dst"]: entry.get("lladdr") for entry in place.json("ip", "-j", "-6", "neigh", "show")}


def taken(host: Host) -> set[str]:
    """The sets that hold the address or the link-local one that it implies."""
    texts = {name: host.call("nft", "list", "set", "bridge", "nftcni", name).stdout for name in ALL}
    ways = (ASKED, IMPLIED, f"0x{int(ipaddress.ip_address(IMPLIED)):x}")
    return {name for name, text in texts.items() if any(way in text for way in ways)}


def test_a_sibling_does_not_take_it(host: Host) -> None:
    host.add(asking(), "owner")
    for name in ("rogue", "sibling"):
        host.add(plain(), name)
    assert is_kept(host, "br-net0", "owner", "rogue")
    with Server(host, 80, address="10.88.0.1"):
        assert ask(host.place("owner"), "10.88.0.1", 80) == "host 10.88.0.2"


def test_its_link_local_address_is_the_owners_alone(host: Host) -> None:
    host.add(asking(), "owner")
    for name in ("rogue", "sibling"):
        host.add(plain(), name)
    owner, rogue, sibling = (host.place(name) for name in ("owner", "rogue", "sibling"))
    assert link_locals(owner) == [IMPLIED]
    own, theirs = mac(rogue), mac(sibling)
    forged = [datagram(IMPLIED, "fd00:88::4", 53, b"forged")]
    last = [datagram(IMPLIED, "fd00:88::4", 53, b"last")]
    assert heard(sibling, 53, (rogue, theirs, forged), (owner, theirs, last)) == {b"last"}
    with sibling.entered():
        asker = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with asker:
        asker.connect((IMPLIED, 9, 0, sibling.link("eth0")["ifindex"]))
        asker.send(b"")
    for _ in range(300):
        if neighbours(sibling).get(IMPLIED):
            break
        time.sleep(0.01)
    advertised = [neighbour_advertisement(own, IMPLIED, IMPLIED), datagram("fd00:88::3", "fd00:88::4", 53, b"last")]
    assert heard(sibling, 53, (rogue, theirs, advertised)) == {b"last"}
    assert neighbours(sibling)[IMPLIED] == ASKED


def test_an_ipv4_containers_own_link_local_address(host: Host) -> None:
    """A machine inside it may use IPv6 among siblings though the network gives none."""
    config = network("net0", NETS[0][0], mac=ASKED)
    host.add(config, "owner")
    host.add(plain(), "sibling")
    owner, sibling = host.place("owner"), host.place("sibling")
    packets = [datagram(IMPLIED, "fd00:88::2", 53, b"last")]
    assert heard(sibling, 53, (owner, mac(sibling), packets)) == {b"last"}


@pytest.mark.parametrize("end", ["DEL", "GC", "DEL without state"])
def test_two_networks_with_the_same(host: Host, end: str) -> None:
    places = ("one", "two", "rogue")
    for name in places:
        host.container(name)
    before = host.snapshot()
    for number, name in enumerate(places[:2]):
        host.add(asking(number), name)
    host.add(plain(1), "rogue")
    if end == "DEL without state":
        host.run("sh", "-c", "rm -r /run/nftcni/*")
    if end == "GC":
        assert host.cni("GC", {**asking(0), "cni.dev/valid-attachments": []}).status == 0
    else:
        host.delete(asking(0), "one")
    assert taken(host) == ALL
    assert is_kept(host, "br-net1", "two", "rogue")
    if end == "GC":
        assert host.cni("GC", {**asking(1), "cni.dev/valid-attachments": []}).status == 0
        assert taken(host) == set()
    else:
        host.delete(asking(1), "two")
        assert taken(host) == set()
        host.delete(plain(1), "rogue")
    assert host.snapshot() == before


def test_several_go_at_once(host: Host) -> None:
    host.add(plain(), "sibling")
    before = host.run("nft", "list", "table", "bridge", "nftcni")
    for number in range(3):
        host.add({**asking(), "mac": f"02:11:22:33:44:0{number}"}, f"c{number}")
    valid = [{"containerID": "sibling", "ifname": "eth0"}]
    assert host.cni("GC", {**plain(), "cni.dev/valid-attachments": valid}).status == 0
    assert host.run("nft", "list", "table", "bridge", "nftcni") == before


def test_it_goes_with_its_owner(host: Host) -> None:
    host.add(plain(), "sibling")
    host.add(asking(), "owner")
    assert taken(host) == ALL
    host.delete(asking(), "owner")
    assert taken(host) == set()
    host.add(network("net0", *NETS[0], mac=ASKED, antiSpoof=False), "owner")
    assert taken(host) == set()


@pytest.mark.parametrize("name", ["taken_macs", "taken6"])
def test_a_missing_element_is_told_and_repaired(host: Host, name: str) -> None:
    result = host.add(asking(), "owner")
    host.nft(f"delete element bridge nftcni {name} {{ {ASKED if name == 'taken_macs' else IMPLIED} }}")
    answer = host.cni("CHECK", {**asking(), "prevResult": result}, "owner")
    assert answer.code == 104 and name in answer.words
    host.command("repair")
    assert taken(host) == ALL
    assert host.cni("CHECK", {**asking(), "prevResult": result}, "owner").status == 0


def test_after_the_state_was_lost(host: Host) -> None:
    """The implied address was taken for one of the container's own."""
    result = host.add(asking(), "owner")
    table = host.run("nft", "list", "table", "bridge", "nftcni")
    host.run("sh", "-c", "rm -r /run/nftcni/*")
    host.command("repair")
    assert host.run("nft", "list", "table", "bridge", "nftcni") == table
    assert IMPLIED not in host.command("list").stdout
    host.delete({**asking(), "prevResult": result}, "owner")
    assert taken(host) == set()


@pytest.mark.parametrize("asked", [False, True], ids=["instead of the usual", "instead of another"])
def test_one_that_tuning_gives(host: Host, tmp_path: Path, asked: bool) -> None:
    for name in ("bridge", "tuning", "host-local"):
        (tmp_path / name).symlink_to(CHECKOUT / "conf" / "nftcni")
    common: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net0"}
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}] for subnet in NETS[0]]}
    bridge = {**common, "type": "bridge", "bridge": "br-net0", "isGateway": True, "ipam": ipam}
    bridge["antiSpoof"] = True
    host.container("owner")
    first = {**bridge, "args": {"cni": {"mac": "02:99:99:99:99:99"}}} if asked else bridge
    previous = host.add(first, "owner", plugin=str(tmp_path / "bridge"))
    host.add(bridge, "rogue", plugin=str(tmp_path / "bridge"))
    tuning = {**common, "type": "tuning", "mac": ASKED, "prevResult": previous}
    result = host.add(tuning, "owner", plugin=str(tmp_path / "tuning"))
    assert taken(host) == ALL
    assert is_kept(host, "br-net0", "owner", "rogue")
    assert "02:99:99:99:99:99" not in host.run("nft", "list", "table", "bridge", "nftcni")
    host.delete({**bridge, "prevResult": result}, "owner", plugin=str(tmp_path / "bridge"))
    assert taken(host) == set()
