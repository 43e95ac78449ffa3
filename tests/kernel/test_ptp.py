"""Point to point: a pair without a bridge, as `"mode": "ptp"` of our own type and under the name `ptp`.

The oracle is the kernel, real sockets, and for results the reference plugin of that name, where installed.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest
from support.scratch import CHECKOUT, Host, Json, network, port
from support.traffic import Server, ask, open_socket

REFERENCE = Path("/usr/lib/cni")
SUBNETS = ("10.88.0.0/24", "fd00:88::/64")
LAN = {4: "198.51.100.2", 6: "2001:db8:100::2"}
HOST = {4: "198.51.100.1", 6: "2001:db8:100::1"}


def pair(name: str = "net0", *subnets: str, **keys: Any) -> Json:
    return {**network(name, *(subnets or SUBNETS), **{"bridge": None, "mode": "ptp", **keys})}


def named(**keys: Any) -> Json:
    """For the reference plugin's name, in its own words."""
    ipam = {"type": "host-local", "subnet": "10.88.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
    return {"cniVersion": "1.0.0", "name": "net0", "type": "ptp", "ipMasq": True, "ipam": ipam, **keys}


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    for name in ("ptp", "host-local", "portmap"):
        (tmp_path / name).symlink_to(CHECKOUT / "conf" / "nftcni")
    return tmp_path


def as_name(folder: Path, name: str = "ptp") -> dict[str, Any]:
    return {"plugin": str(folder / name), "env": {"CNI_PATH": str(folder)}}


def test_links_addresses_and_routes(host: Host) -> None:
    result = host.add(pair())
    container = host.place("c1")
    outer, inner = result["interfaces"]
    assert (inner["name"], inner["sandbox"]) == ("eth0", "/run/netns/c1")
    assert [item["interface"] for item in result["ips"]] == [1, 1]
    assert host.link(outer["name"])["linkinfo"]["info_kind"] == "veth" and "master" not in host.link(outer["name"])
    assert host.addresses(outer["name"]) == {"10.88.0.1/32", "fd00:88::1/128"}
    assert container.addresses("eth0") == {"10.88.0.2/24", "fd00:88::2/64"}
    routes = container.json("ip", "-j", "route")
    assert [(item["dst"], item.get("gateway")) for item in routes] == [
        ("default", "10.88.0.1"),
        ("10.88.0.0/24", "10.88.0.1"),
        ("10.88.0.1", None),
    ]


@pytest.mark.parametrize("version", [4, 6])
def test_traffic(host: Host, version: int) -> None:
    """Out, to a sibling, and by the published port from everywhere; nothing passes a layer 2."""
    lan = host.neighbour()
    config = pair(ports=[port(8080, 80)])
    own = [host.add(config)["ips"], host.add(pair(), "c2")["ips"]]
    first, second = (ips[version == 6]["address"].split("/")[0] for ips in own)
    one, two = host.place("c1"), host.place("c2")
    with Server(lan, 80), Server(one, 80):
        assert ask(one, LAN[version], 80) == f"lan {HOST[version]}"
        assert ask(two, first, 80) == f"c1 {second}"
        assert ask(lan, HOST[version], 8080) == f"c1 {LAN[version]}"
        assert ask(two, HOST[version], 8080) == f"c1 {second}"
        assert ask(one, HOST[version], 8080).startswith("c1 ")
        assert ask(host, first, 80).startswith("c1 ")
        if version == 4:
            assert ask(host, "127.0.0.1", 8080).startswith("c1 ")
    assert two.json("ip", "-j", "neigh", "show", "to", first) == []


def test_ipv6_from_outside_at_once(host: Host) -> None:
    """The host end does not wait for the kernel's duplicate address detection, seconds in which it asks for nobody."""
    lan = host.neighbour()
    host.add(pair("net0", SUBNETS[1], ports=[port(8080, 80)]))
    link = next(item["ifname"] for item in host.json("ip", "-j", "link") if item["ifname"].startswith("veth"))
    own = host.json("ip", "-j", "-6", "addr", "show", "dev", link, "scope", "link")[0]["addr_info"]
    assert own and not any(address.get("tentative") for address in own), own
    with Server(host.place("c1"), 80):
        assert ask(lan, HOST[6], 8080) == f"c1 {LAN[6]}"


@pytest.mark.parametrize("rp_filter", ["0", "1", "2"])
@pytest.mark.parametrize("source", ["10.88.0.3", "192.0.2.77", "198.51.100.2", "fd00:88::3", "2001:db8:77::7"])
def test_sources_that_are_not_the_containers(host: Host, source: str, rp_filter: str) -> None:
    """A sibling's, nobody's, the LAN's: neither to the host nor to a published port, whatever rp_filter is."""
    for key in ("all", "default"):
        host.set_sysctl(f"ipv4/conf/{key}/rp_filter", rp_filter)
    host.neighbour()
    host.add(pair(), "evil")
    host.add(pair(ports=[port(5300, 53, "udp")]), "victim")
    six = ":" in source
    family, target = (socket.AF_INET6, HOST[6]) if six else (socket.AF_INET, HOST[4])
    evil = host.place("evil")
    evil.run("ip", "link", "set", "lo", "up")
    evil.run("ip", "addr", "add", f"{source}/{128 if six else 32}", "dev", "lo", *(["nodad"] if six else []))
    heard = []
    with contextlib.ExitStack() as stack:
        sender = stack.enter_context(open_socket(evil, family, "udp"))
        sender.bind((source, 0))
        for place, inside, number in ((host, 6000, 6000), (host.place("victim"), 53, 5300)):
            listener = stack.enter_context(open_socket(place, family, "udp"))
            listener.bind(("", inside))
            listener.settimeout(0.4)
            sender.sendto(b"forged", (target, number))
            with contextlib.suppress(OSError):
                heard.append((place.name, listener.recvfrom(99)))
    assert heard == []


def test_isolation_is_from_everybody(host: Host) -> None:
    """There is no layer 2 within which somebody could be a sibling."""
    host.add(pair(isolation=True))
    host.add(pair(isolation=True), "c2")
    with Server(host.place("c1"), 80):
        assert ask(host.place("c2"), "10.88.0.2", 80) == "silence"


def test_again_answers_the_same_and_check_sees_what_is_missing(host: Host) -> None:
    config = pair(ports=[port(8080, 80)])
    result = host.add(config)
    outer = result["interfaces"][0]["name"]
    assert host.cni("CHECK", {**config, "prevResult": result}).status == 0
    for words in (
        ("addr", "del", "10.88.0.1/32", "dev", outer),
        ("route", "del", "10.88.0.2/32"),
        ("-6", "route", "del", "fd00:88::2/128"),
        ("link", "set", outer, "down"),
    ):
        host.run("ip", *words)
        answer = host.cni("CHECK", {**config, "prevResult": result})
        assert answer.code == 104, words
        assert host.add(config) == result
        assert host.cni("CHECK", {**config, "prevResult": result}).status == 0, words


def test_nothing_is_left(host: Host) -> None:
    before = host.snapshot()
    host.add(pair(ports=[port(8080, 80)]))
    host.add(pair(), "c2")
    host.delete(pair())
    host.delete(pair(), "c2")
    assert host.snapshot() == before


@pytest.mark.parametrize("way", ["DEL", "GC"])
def test_one_that_goes_takes_nothing_of_the_others(host: Host, way: str) -> None:
    """All have the same gateway, and its address was in the table once for all of them."""
    result = host.add(pair())
    host.add(pair(), "c2")
    if way == "DEL":
        host.delete(pair(), "c2")
    else:
        valid = {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
        assert host.cni("GC", {**pair(), **valid}).status == 0
    assert host.cni("CHECK", {**pair(), "prevResult": result}).words == ""
    assert host.command("repair", "--check").stdout == "nothing to repair\n"


def test_gc_and_lost_state(host: Host) -> None:
    host.container("c1")
    before = host.snapshot()
    host.add(pair(ports=[port(8080, 80)]))
    host.run("sh", "-c", "rm -r /run/nftcni/*")
    answer = host.cni("GC", {**pair(), "cni.dev/valid-attachments": []})
    assert answer.status == 0, answer.stdout
    assert host.snapshot() == before


def test_an_address_that_the_host_has_elsewhere(host: Host) -> None:
    host.run("ip", "link", "add", "other", "type", "bridge")
    host.run("ip", "link", "set", "other", "up")
    host.run("ip", "route", "add", "10.88.0.2/32", "dev", "other")
    host.container("c1")
    answer = host.refused("ADD", pair())
    assert answer.code == 102 and "10.88.0.2" in answer.words


@pytest.mark.parametrize(
    ("keys", "word"), [({"bridge": "br0"}, "bridge"), ({"mode": "l3"}, "mode"), ({"ipam": {}}, "ipam")]
)
def test_bad_values(host: Host, keys: Json, word: str) -> None:
    host.container("c1")
    answer = host.refused("ADD", pair(**keys))
    assert answer.code == 7 and word in answer.words


@pytest.mark.parametrize("keys", [{}, {"mtu": 1400}, {"dns": {"nameservers": ["192.0.2.53"]}}])
def test_the_name_answers_as_the_reference_does(host: Host, bin_dir: Path, keys: Json) -> None:
    if not (REFERENCE / "ptp").exists():
        pytest.skip("NOT RUN: the reference plugin ptp is not installed")
    config = named(**keys)
    results = []
    for container, folder in (("c1", bin_dir), ("c2", REFERENCE)):
        other = {**config, "name": container, "ipam": {**config["ipam"], "dataDir": "/run/leases"}}
        result = host.add(other, container, **as_name(folder))
        inside = host.place(container)
        routes = [{key: item.get(key) for key in ("dst", "gateway")} for item in inside.json("ip", "-j", "route")]
        outer = result["interfaces"][0]["name"]
        results.append(
            (
                *(result["ips"], result["routes"], result.get("dns") or {}, routes),
                *(host.addresses(outer), inside.link("eth0")["mtu"], host.link(outer)["mtu"]),
                [{**item, "name": "", "mac": "", "sandbox": ""} for item in result["interfaces"]],
            )
        )
        host.delete(other, container, **as_name(folder))
    assert results[0] == results[1]
