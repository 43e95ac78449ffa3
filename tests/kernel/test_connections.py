"""Which entries of the connection tracker ADD and DEL forget, where one port is published on several host addresses.

The entries are made by `conntrack -I`, so that no packet's timing matters; what clients see of it is test_conntrack.
"""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path

import pytest
from support.scratch import CHECKOUT, Host, Json, network, port

OWN = {4: "10.88.0.2", 6: "fd00:88::2"}
ADDRESSES = {
    4: ("198.51.100.1", "203.0.113.1", "203.0.113.2"),
    6: ("2001:db8:100::1", "2001:db8:9::1", "2001:db8:9::2"),
}
CLIENT = {4: "198.51.100.2", 6: "2001:db8:100::2"}
VERSIONS = [pytest.param(4, id="v4"), pytest.param(6, id="v6")]


@pytest.fixture
def tracking(host: Host) -> Host:
    """With three addresses of each family."""
    host.nft("table inet tracker { chain c { type filter hook prerouting priority 0; ct state new counter; }; }")
    host.set_sysctl("ipv6/conf/all/forwarding", "1")  # a router has anycast addresses, in the kernel's own time
    host.neighbour()
    for addresses in ADDRESSES.values():
        for address in addresses[1:]:
            host.run("ip", "addr", "add", address, "dev", "lo")
    return host


def remember(host: Host, target: str, source: str, sport: int) -> None:
    """A flow from the neighbour's sport to target:5300 that `source` answers."""
    client = CLIENT[6 if ":" in target else 4]
    words = ("-s", client, "-d", target, "--reply-src", source, "--reply-dst", client)
    ports = ("--sport", str(sport), "--dport", "5300", "--reply-port-src", "53", "--reply-port-dst", str(sport))
    host.run("conntrack", "-I", "-p", "udp", "-t", "300", *words, *ports)


def targets(host: Host, version: int) -> set[str]:
    """Where the UDP flows to port 5300 lead to."""
    listed = host.run("conntrack", "-L", "-f", f"ipv{version}", "-p", "udp", "--orig-port-dst", "5300")
    return {match[1] for line in listed.splitlines() for match in [re.search(r"dst=([\w.:]+)", line)] if match}


def on_two(version: int) -> Json:
    ports = [port(5300, 53, "udp", address) for address in ADDRESSES[version][:2]]
    return network("net0", "10.88.0.0/24", "fd00:88::/64", ports=ports)


@pytest.mark.parametrize("version", VERSIONS)
def test_add_forgets_the_flows_to_every_address_of_a_port(tracking: Host, version: int) -> None:
    """And to no other: the host's own service may have that port on a third one."""
    for number, address in enumerate(ADDRESSES[version], 40000):
        remember(tracking, address, address, number)
    assert targets(tracking, version) == set(ADDRESSES[version])
    tracking.add(on_two(version))
    assert targets(tracking, version) == {ADDRESSES[version][2]}


@pytest.mark.parametrize("version", VERSIONS)
def test_del_forgets_the_flows_of_every_address_of_a_port(tracking: Host, version: int) -> None:
    tracking.add(on_two(version))
    *published, other = ADDRESSES[version]
    for number, address in enumerate(published, 40000):
        remember(tracking, address, OWN[version], number)
    remember(tracking, other, other, 40002)
    assert targets(tracking, version) == set(ADDRESSES[version])
    tracking.delete(on_two(version), netns="")
    assert targets(tracking, version) == {ADDRESSES[version][2]}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_without_a_tracker_containers_come_and_go_all_the_same(tracking: Host, tmp_path: Path, number: int) -> None:
    """A copy of the plugin whose kernel has no ctnetlink."""
    for folder in ("cni", "nft", "conf"):
        shutil.copytree(CHECKOUT / folder, tmp_path / folder)
    place = tmp_path / "nft" / "conntrack.py"
    listing = "netlink.dump(GET, query, containing)"
    text = place.read_text()
    assert text.count(listing) == 1
    place.write_text(text.replace(listing, f"(_ for _ in ()).throw(OSError({number}, 'as if by the kernel'))"))
    shortcut = tmp_path / "cni" / "kernel" / "tracker.py"
    shortcut.write_text(shortcut.read_text().replace("/net/nf_conntrack", "/net/no_text_either"))
    plugin = str(tmp_path / "conf" / "nftcni")
    config = on_two(4)
    tracking.container("c1")
    before = tracking.snapshot()
    for verb in ("ADD", "DEL"):
        answer = tracking.cni(verb, config, plugin=plugin)
        assert answer.status == 0, answer.stdout
        assert "as if by the kernel" in answer.stderr and "Traceback" not in answer.stderr
    assert tracking.snapshot() == before
