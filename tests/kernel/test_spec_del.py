"""DEL, lines 23 to 27 of test_spec_index: it succeeds with whatever is missing or broken, and takes all of it away.

DEL with every wrong type in the configuration is test_bad_input_types, DEL again and late is test_again.
"""

from __future__ import annotations

import json

import pytest
from support.scratch import Host, network, port


@pytest.mark.parametrize("netns", ["", "/run/netns/gone", "/proc/999999999/ns/net"])
def test_del_of_what_never_was_succeeds(host: Host, netns: str) -> None:
    before = host.snapshot()
    host.delete(network(), netns=netns)
    host.delete(network(), netns=netns)
    assert host.snapshot() == before


@pytest.mark.parametrize(
    "change",
    [
        {"ipam": {"ranges": "broken"}},
        {"ipam": {}},
        {"bridge": "another"},
        {"prevResult": {"cniVersion": "9.9.9", "ips": "broken"}},
        {"prevResult": "corrupt"},
        {"runtimeConfig": {"portMappings": [{"hostPort": -1}]}},
        {"runtimeConfig": None},
        {"vlan": 7},
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("netns", ["", "/run/netns/gone"])
def test_del_does_all_it_can_with_any_configuration(host: Host, change: dict[str, object], netns: str) -> None:
    config = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)])
    host.container("c1")
    before = host.snapshot()
    host.add(config)
    host.delete({**config, **change}, netns=netns)
    assert host.snapshot() == before


def test_del_releases_addresses_when_the_namespace_is_gone(host: Host) -> None:
    config = network("net0", "10.88.0.0/30")
    host.add(config)
    host.end("c1")
    host.delete(config)
    assert host.add(config, "c2")["ips"][0]["address"] == "10.88.0.2/30"


@pytest.mark.parametrize("verb", ["DEL", "GC", "ADD"])
@pytest.mark.parametrize("mode", ["bridge", "ptp"])
@pytest.mark.parametrize("change", ["down; ip link set {} name stray0", "netns other", "netns c1"])
def test_a_host_end_that_somebody_renamed_or_moved_goes(host: Host, change: str, mode: str, verb: str) -> None:
    """The pair stayed, with the container's interface and address: DEL knew it by the host end's name alone."""
    config = network("net0", "10.88.0.0/24", "fd00:88::/64", mode=mode)
    if mode == "ptp":
        del config["bridge"]
    for name in ("c1", "other"):
        host.container(name)
    before = host.snapshot()
    link = next(item["name"] for item in host.add(config)["interfaces"] if item["name"].startswith("veth"))
    host.run("sh", "-c", f"ip link set {link} {change.format(link)}")
    if verb == "GC":
        host.cni("GC", {**config, "cni.dev/valid-attachments": []})
    elif verb == "ADD":  # again, as after a kill: the container gets a new pair
        host.add(config)
        assert host.link(link) is not None
    if verb != "GC":
        host.delete(config)
    assert host.snapshot() == before
    assert [one["ifname"] for name in ("c1", "other") for one in host.place(name).json("ip", "-j", "link")] == [
        "lo"
    ] * 2


def test_del_leaves_an_interface_that_may_be_the_next_containers(host: Host) -> None:
    """Of a MAC address that the user chose, nobody knows whose it is; the path of a namespace may be another's."""
    config = network("net0", "10.88.0.0/24", mac="02:00:00:00:00:07")
    link = next(item["name"] for item in host.add(config)["interfaces"] if item["name"].startswith("veth"))
    host.run("sh", "-c", f"ip link del {link}; ip link add veth0 type veth peer name eth0 netns c1")
    host.place("c1").run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:07")
    host.delete(config)
    assert "eth0" in host.place("c1").run("ip", "link")


def test_errors_do_not_hold_the_words_that_go_cni_takes_for_success(host: Host) -> None:
    """go-cni's Remove swallows "not found" and "no such file or directory" (cni.go)."""
    host.add(network())
    host.file("/run/nftcni").rename(host.file("/run/moved"))
    host.file("/run/nftcni").write_text("a file where the folder should be")
    answer = host.cni("DEL", network())
    assert answer.status != 0
    words = (answer.stdout + answer.stderr).lower()
    assert "not found" not in words and "no such file" not in words


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_a_missing_namespace_is_not_said_in_those_words_either(host: Host, verb: str) -> None:
    config = network(prevResult={"ips": []}) if verb == "CHECK" else network()
    words = host.refused(verb, config, netns="/run/netns/gone").words.lower()
    assert "/run/netns/gone" in words and "not found" not in words and "no such file" not in words


@pytest.mark.parametrize("args", ["IP=1=2", "nonsense", "K8S_POD_NAME=x", "IP=;MAC="])
def test_del_does_not_depend_on_cni_args(host: Host, args: str) -> None:
    """nerdctl's stop sends others than its run, and what is wrong with them no longer matters."""
    host.container("c1")
    before = host.snapshot()
    host.add(network())
    host.delete(network(), args=args)
    assert host.snapshot() == before


@pytest.mark.parametrize("version", ["0.1.0", "0.4.0", "1.0.0"])
def test_del_in_another_version_than_add(host: Host, version: str) -> None:
    """The conflist may have been rewritten meanwhile."""
    host.container("c1")
    before = host.snapshot()
    result = host.add(network(version="1.1.0"))
    host.delete({**network(version=version), "prevResult": result})
    assert host.snapshot() == before


def test_del_of_a_namespace_that_is_the_hosts_own_touches_no_link_of_the_host(host: Host) -> None:
    """Line 22: the reference plugins would look for CNI_IFNAME in it."""
    host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth9")
    before = host.snapshot()
    host.cni("DEL", network(), netns=f"/proc/{host.pid}/ns/net")
    assert host.snapshot() == before


def test_del_leaves_an_interface_alone_that_is_not_ours(host: Host) -> None:
    container = host.container("c1")
    container.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth9")
    host.delete(network())
    assert container.link("eth0") is not None
