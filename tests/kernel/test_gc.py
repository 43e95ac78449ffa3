"""More of GC: what is free again, odd lists, shared bridges, many at once. The plain cases are test_status_gc.

The kernel is asked what is left, and another ADD whether the port and the address are free again.
"""

from __future__ import annotations

import pytest
from support.scratch import Answer, Host, Json, network, port

VALID, OLD = "cni.dev/valid-attachments", "cni.dev/attachments"
TINY = {"ranges": [[{"subnet": "10.88.0.0/30"}]]}  # one address
CONFIG = network(ports=[port(8080, 80), port(53, 53, "udp", "127.0.0.1")], ipam=TINY)


def entry(container: str, ifname: str = "eth0") -> Json:
    return {"containerID": container, "ifname": ifname}


def collect(host: Host, config: Json, entries: Json, key: str = VALID) -> Answer:
    return host.cni("GC", {**config, key: entries}, container="", netns="", ifname="")


def comments(host: Host) -> set[str]:
    return {item["elem"]["comment"] for item in host.elements().get("attachments", [])}


@pytest.mark.parametrize("namespace", ["there", "gone"])
def test_port_and_address_are_free_again(host: Host, namespace: str) -> None:
    host.add(CONFIG)
    if namespace == "gone":
        host.end("c1")
    host.container("c2")
    assert host.cni("ADD", CONFIG, "c2").code in (100, 101)
    assert collect(host, CONFIG, []).status == 0
    assert host.add(CONFIG, "c2")["ips"][0]["address"] == "10.88.0.2/30"
    assert comments(host) == {"net0/c2/eth0"}
    if namespace == "there":
        assert host.place("c1").link("eth0") is None


def test_a_valid_attachment_is_not_touched(host: Host) -> None:
    result = host.add(CONFIG)
    before = host.snapshot()
    assert collect(host, CONFIG, [entry("c1"), entry("c1"), entry("gone")]).status == 0
    assert host.snapshot() == before
    assert host.cni("CHECK", {**CONFIG, "prevResult": result}).status == 0


def test_absent_is_not_empty(host: Host) -> None:
    host.add(CONFIG)
    answer = host.refused("GC", {**CONFIG, "cni.dev/other": []})
    assert answer.code == 7 and VALID in answer.words


@pytest.mark.parametrize("key", [VALID, OLD])
def test_null_is_empty(host: Host, key: str) -> None:
    """A Go runtime without any attachment sends a nil slice, which is null: everything is stale then."""
    host.add(CONFIG)
    assert host.cni("GC", {**CONFIG, key: None}).status == 0
    assert host.elements() == {}


def test_entries_in_gos_case(host: Host) -> None:
    host.add(CONFIG)
    assert collect(host, CONFIG, [{"ContainerID": "c1", "IfName": "eth0"}]).status == 0
    assert comments(host) == {"net0/c1/eth0"}


@pytest.mark.parametrize("entries", [[entry("../c1")], [entry("c1", "a/b")], [{"containerID": 5, "ifname": "eth0"}]])
def test_entries_that_nobody_can_have_remove_nothing_else(host: Host, entries: Json) -> None:
    """Either a refusal or an entry that matches nothing valid; a GC by a broken list must not be half a GC."""
    host.add(CONFIG)
    before = host.snapshot()
    answer = collect(host, CONFIG, entries)
    if answer.status:
        assert answer.code == 7 and host.snapshot() == before
    else:
        assert comments(host) == set()


def test_both_keys_at_once_as_libcni_sends_them(host: Host) -> None:
    wide = network()
    for name in ("c1", "c2"):
        host.add(wide, name)
    config = {**wide, VALID: [entry("c2")], OLD: [entry("c2")]}
    assert host.cni("GC", config, container="", netns="", ifname="").status == 0
    assert comments(host) == {"net0/c2/eth0"}


@pytest.mark.parametrize("valid", ["c1", "c2"])
def test_on_a_shared_bridge_the_others_keep_bridge_and_gateway(host: Host, valid: str) -> None:
    one, two = (
        network(name, f"10.{n}.0.0/24", bridge="br0", isolation=False) for n, name in ((88, "one"), (89, "two"))
    )
    host.add(one, "c1")
    host.add(two, "c2")
    assert collect(host, one if valid == "c2" else two, []).status == 0
    assert comments(host) == {f"{'two' if valid == 'c2' else 'one'}/{valid}/eth0"}
    assert ("10.89.0.1/24" if valid == "c2" else "10.88.0.1/24") in host.addresses("br0")
    assert host.place(valid).addresses("eth0")


def test_many_at_once_leave_the_host_as_it_was(host: Host) -> None:
    names = [f"c{number}" for number in range(12)]
    for name in names:
        host.container(name)
    before = host.snapshot()
    for number, name in enumerate(names):
        host.add(network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8000 + number, 80)]), name)
    assert collect(host, network(), [entry("c3")]).status == 0
    assert comments(host) == {"net0/c3/eth0"} and len(host.elements()["dnat4"]) == 1
    assert collect(host, network(), []).status == 0
    assert host.snapshot() == before


def test_on_a_host_that_never_had_a_container(host: Host) -> None:
    before = host.snapshot()
    answer = collect(host, CONFIG, [])
    assert (answer.status, answer.stdout, answer.stderr) == (0, "", "")
    assert host.snapshot() == before
