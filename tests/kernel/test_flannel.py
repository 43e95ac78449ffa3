"""`ipam.type` flannel on one host: with and without a lease, and when the lease changes. Many hosts are tests/hosts."""

from __future__ import annotations

import pytest
from support.scratch import Host, network
from support.traffic import Server, ask, serving

FILE = "/run/flannel/subnet.env"
LEASE = """FLANNEL_NETWORK=10.245.0.0/16
FLANNEL_SUBNET=10.245.{number}.1/24
FLANNEL_IPV6_NETWORK=fd00:245::/48
FLANNEL_IPV6_SUBNET=fd00:245:0:{number}::1/64
FLANNEL_MTU={mtu}
FLANNEL_IPMASQ={masqueraded}
"""
CONFIG = network(ipam={"type": "flannel"})


def lease(host: Host, number: int = 14, mtu: int = 1450, masqueraded: str = "true", path: str = FILE) -> None:
    file = host.file(path)
    file.parent.mkdir(exist_ok=True)
    file.write_text(LEASE.format(number=number, mtu=mtu, masqueraded=masqueraded))


def test_one_object_is_the_whole_network(host: Host) -> None:
    lease(host)
    result = host.add(CONFIG)
    assert [item["address"] for item in result["ips"]] == ["10.245.14.2/24", "fd00:245:0:14::2/64"]
    assert [item["gateway"] for item in result["ips"]] == ["10.245.14.1", "fd00:245:0:14::1"]
    assert {host.link("br-net0")["mtu"], host.namespaces[0].link("eth0")["mtu"]} == {1450}
    assert host.addresses("br-net0") == {"10.245.14.1/24", "fd00:245:0:14::1/64"}
    assert "masq4" not in host.elements()


def test_flanneld_without_masquerade(host: Host) -> None:
    lease(host, masqueraded="false")
    host.add(CONFIG)
    assert host.elements()["masq4"] and host.elements()["masq6"]
    assert "10.245.0.0" in str(host.elements()["direct4"]) and "fd00:245::" in str(host.elements()["direct6"])


def test_without_a_lease_the_runtime_is_told_what_to_start(host: Host) -> None:
    host.container("c1")
    answer = host.refused("ADD", CONFIG)
    assert answer.code == 11 and FILE in answer.words and "start flanneld" in answer.words
    answer = host.refused("STATUS", CONFIG)
    assert answer.code == 50 and FILE in answer.words and "start flanneld" in answer.words
    lease(host)
    assert host.cni("STATUS", CONFIG).status == 0
    host.add(CONFIG)


def test_another_file(host: Host) -> None:
    lease(host, path="/run/cni/other.env")
    assert host.add({**CONFIG, "subnetFile": "/run/cni/other.env"})["ips"][0]["address"] == "10.245.14.2/24"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"subnetFile": FILE, "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}]]}}, "subnetFile"),
        ({"ipam": {"type": "flannel", "ranges": [[{"subnet": "10.1.0.0/24"}]]}}, "ipam.ranges"),
        ({"ipam": {"type": "flannel", "subnet": "10.1.0.0/24"}}, "ipam.subnet"),
    ],
)
def test_what_contradicts_itself(host: Host, keys: dict[str, object], words: str) -> None:
    lease(host)
    host.container("c1")
    answer = host.refused("ADD", {**CONFIG, **keys})
    assert answer.code == 7 and words in answer.words


def test_a_file_that_says_nothing(host: Host) -> None:
    lease(host)
    host.file(FILE).write_text("FLANNEL_MTU=1450\n")
    host.container("c1")
    answer = host.refused("ADD", CONFIG)
    assert answer.code == 7 and FILE in answer.words and "FLANNEL_SUBNET" in answer.words


def test_check_and_del_do_without_the_file(host: Host) -> None:
    host.container("c1")
    before = host.snapshot()
    lease(host)
    result = host.add(CONFIG)
    host.file(FILE).unlink()
    answer = host.cni("CHECK", {**CONFIG, "prevResult": result})
    assert answer.status == 0, answer.words
    host.delete(CONFIG)
    assert host.snapshot() == before


def test_a_new_lease_serves_old_and_new_containers(host: Host) -> None:
    host.container("c1")
    lan = host.neighbour()
    lan.run("ip", "route", "add", "10.245.0.0/16", "via", "198.51.100.1")
    before = host.snapshot()
    lease(host, 14, 1450)
    old = host.add(CONFIG)
    lease(host, 15, 1400)
    new = host.add(CONFIG, "c2")
    one, two = (result["ips"][0]["address"].split("/")[0] for result in (old, new))
    assert (one, two) == ("10.245.14.2", "10.245.15.2")
    inside = {item.name: item for item in host.namespaces}
    with serving(Server(inside["c1"], 80), Server(inside["c2"], 80), Server(lan, 81)):
        assert ask(inside["c1"], two, 80) == f"c2 {one}"
        assert ask(inside["c2"], one, 80) == f"c1 {two}"
        assert ask(lan, one, 80) == "c1 198.51.100.2"
        assert ask(lan, two, 80) == "c2 198.51.100.2"
        assert ask(inside["c1"], "198.51.100.2", 81) == f"lan {one}"
    assert host.cni("CHECK", {**CONFIG, "prevResult": old}).status == 0
    assert host.cni("CHECK", {**CONFIG, "prevResult": new}, "c2").status == 0
    host.delete(CONFIG)
    host.delete(CONFIG, "c2")
    host.run("ip", "netns", "del", "c2")
    assert host.snapshot() == before
