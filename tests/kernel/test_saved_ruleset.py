"""A ruleset that was saved to a file and is loaded again: `nft list ruleset >/etc/nftables.conf`, as Debian's own
documentation advises, keeps the containers of that moment in the file.

What they had must neither block those of today nor lead packets to whoever has their address by now.
"""

from __future__ import annotations

from typing import Callable

import pytest
from support.scratch import Host, Json, network, port
from support.traffic import Server, ask

CONFIG = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)])
OTHER = network("net1", "10.89.0.0/24", ports=[port(9090, 80)])


def save(host: Host) -> None:
    host.file("/run/saved.nft").write_text("flush ruleset\n" + host.run("nft", "list", "ruleset"))


def load(host: Host) -> None:
    host.run("nft", "-f", "/run/saved.nft")


def reboot(host: Host) -> None:
    """As far as a namespace can: another boot ID, no links, the state folder as on a disk, the saved ruleset."""
    for namespace in host.namespaces:
        if namespace.link("eth0"):
            namespace.run("ip", "link", "del", "eth0")
    for item in host.links():
        if item["ifname"].startswith("br-"):
            host.run("ip", "link", "del", item["ifname"])
    host.file("/run/boot_id").write_text("00000000-1111-2222-3333-444444444444\n")
    host.run("mount", "--bind", "/run/boot_id", "/proc/sys/kernel/random/boot_id")
    load(host)


def owners(host: Host) -> set[str]:
    return {item["elem"]["comment"] for item in host.elements().get("attachments", [])}


@pytest.fixture
def stale(host: Host) -> Host:
    """The table has a container that is gone; nobody is attached."""
    host.add(CONFIG, "old")
    save(host)
    host.delete(CONFIG, "old")
    load(host)
    assert owners(host) == {"net0/old/eth0"}
    return host


@pytest.mark.parametrize("words", [("repair", "--check"), ("repair",)])
def test_repair_tells_of_what_is_nobodys(stale: Host, words: tuple[str, ...]) -> None:
    done = stale.command(*words)
    assert "tcp . 8080" in done.stdout and "net0/old/eth0" in done.stdout and "nobody" in done.stdout
    assert (done.returncode, owners(stale)) == ((1, {"net0/old/eth0"}) if "--check" in words else (0, set()))


def test_a_port_of_before_is_free(stale: Host) -> None:
    """The kernel's map refuses its key until somebody looks whether the holder is still there."""
    stale.neighbour()
    new = stale.container("new")
    stale.add(CONFIG, "new")
    with Server(new, 80):
        assert ask(stale.place("lan"), "198.51.100.1", 8080) == "new 198.51.100.2"
    assert owners(stale) == {"net0/new/eth0"}
    assert stale.command("repair", "--check").stdout == "nothing to repair\n"


def test_an_address_of_before_is_free(stale: Host) -> None:
    asked = network("net0", "10.88.0.0/24", runtimeConfig={"ips": ["10.88.0.2"]})
    result = stale.add(asked, "new")
    assert [item["address"] for item in result["ips"]] == ["10.88.0.2/24"]
    assert owners(stale) == {"net0/new/eth0"}


def test_what_others_lost_by_it_comes_back_with_the_repetition_of_an_add(host: Host) -> None:
    """Also one that came back under its own name with another address, as restarted containers do."""
    moved = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(7070, 80)])
    host.add(CONFIG, "old")
    host.add(moved, "moved")
    save(host)
    host.delete(CONFIG, "old")
    host.delete(moved, "moved")
    result = host.add(CONFIG, "new")
    host.add(moved, "moved", netns="/run/netns/moved")
    host.add(OTHER, "other")
    before = host.elements()
    load(host)
    assert host.add(CONFIG, "new") == result
    assert host.elements() == before


def test_a_late_del_takes_nothing_of_todays(host: Host) -> None:
    """Whose address and port the saved ruleset still has; the runtime deletes it only now."""
    host.add(CONFIG, "old")
    save(host)
    host.delete(CONFIG, "old")
    asked = {**CONFIG, "runtimeConfig": {**CONFIG["runtimeConfig"], "ips": ["10.88.0.2", "fd00:88::2"]}}
    host.add(asked, "new")
    state = host.state_files()
    load(host)
    host.delete(CONFIG, "old", netns="")
    assert host.state_files() == state, "the lease and the port are the new one's"
    assert "net0/old" not in host.run("nft", "list", "table", "inet", "nftcni")
    assert host.command("repair").returncode == 0
    assert owners(host) == {"net0/new/eth0"}


def test_gc_collects_it(stale: Host) -> None:
    stale.add(OTHER, "other")
    assert stale.cni("GC", {**CONFIG, "cni.dev/valid-attachments": []}).status == 0
    assert owners(stale) == {"net1/other/eth0"}


def test_gc_keeps_what_is_valid(host: Host) -> None:
    host.add(CONFIG)
    host.run("sh", "-c", "rm /run/nftcni/*/attachments/net0/*")
    valid = {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    assert host.cni("GC", {**CONFIG, **valid}).status == 0
    assert owners(host) == {"net0/c1/eth0"}


def test_repair_keeps_a_container_whose_record_alone_is_lost(host: Host) -> None:
    """Its link is there, so it is a container's and no ruleset's of before."""
    host.neighbour()
    host.add(CONFIG)
    host.run("sh", "-c", "rm /run/nftcni/*/attachments/net0/*")
    host.nft("insert rule inet nftcni filter_forward drop")
    host.add(OTHER, "other")
    assert host.command("repair").returncode == 0
    assert owners(host) == {"net0/c1/eth0", "net1/other/eth0"}
    with Server(host.namespaces[1], 80):
        assert ask(host.place("lan"), "198.51.100.1", 8080) == "c1 198.51.100.2"


@pytest.mark.parametrize("state", ["kept", "gone"])
def test_after_a_reboot_nothing_of_it_counts(host: Host, state: str) -> None:
    host.add(CONFIG, "old")
    save(host)
    reboot(host)
    if state == "gone":
        host.run("rm", "-rf", "/run/nftcni")
    result = host.add(CONFIG, "new")
    assert [item["address"] for item in result["ips"]] == ["10.88.0.2/24", "fd00:88::2/64"]
    assert owners(host) == {"net0/new/eth0"}
    assert host.cni("CHECK", {**CONFIG, "prevResult": result}, "new").status == 0


def test_a_host_inside_another_that_is_started_again(host: Host) -> None:
    """It has the outer host's boot ID, but another network namespace."""
    host.add(CONFIG, "old")
    save(host)
    inner = Host()
    try:
        inner.file("/run/saved.nft").write_text(host.file("/run/saved.nft").read_text())
        load(inner)
        result = inner.add(OTHER, "new")
        assert owners(inner) == {"net1/new/eth0"}
        assert inner.cni("CHECK", {**OTHER, "prevResult": result}, "new").status == 0
        assert inner.command("repair", "--check").stdout == "nothing to repair\n"
    finally:
        inner.close()


def test_a_table_that_names_no_namespace_is_still_of_this_boot(host: Host) -> None:
    """An earlier version's, after an upgrade with running containers, the state folder lost or not."""
    host.add(CONFIG, "old")
    text = host.run("nft", "list", "ruleset")
    comment = next(line for line in text.splitlines() if "comment" in line and " boot " in line)
    boot = comment.partition(" boot ")[2].partition(" ")[0]
    host.nft("flush ruleset\n" + text.replace(boot, boot.partition(".")[0]))
    assert host.cni("STATUS", CONFIG).status == 0
    host.run("rm", "-rf", "/run/nftcni")
    host.add(OTHER, "new")
    assert owners(host) == {"net0/old/eth0", "net1/new/eth0"}


def test_who_removes_it_says_so(host: Host) -> None:
    """Or nobody learns why a port of the host did not answer until now."""
    host.add(CONFIG, "old")
    save(host)
    reboot(host)
    host.run("rm", "-rf", "/run/nftcni")
    done = host.command("doctor")
    assert "of an earlier boot" in done.stderr and "all well" in done.stdout
    assert host.command("doctor").stderr == ""


LATER: dict[str, Callable[[Host], object]] = {
    "CHECK": lambda host: host.cni("CHECK", {**OTHER, "prevResult": {"cniVersion": "1.1.0"}}, "other").code == 104,
    "STATUS": lambda host: host.cni("STATUS", OTHER).code == 51,
    "repair": lambda host: host.command("repair", "--check").returncode == 1,
}


@pytest.mark.parametrize("config", [CONFIG, network("net2", "10.90.0.0/24")], ids=["in-its-way", "not"])
def test_one_of_an_earlier_boot_that_is_loaded_later(host: Host, config: Json) -> None:
    """The firewall is restarted once containers run: everybody says so, and the next ADD puts it right, whether or not
    something is in its way."""
    host.add(CONFIG, "old")
    save(host)
    reboot(host)
    host.add(OTHER, "other")
    before = host.elements()
    load(host)
    assert {name: found(host) for name, found in LATER.items()} == dict.fromkeys(LATER, True)
    host.add(config, "new")
    assert owners(host) == {f"{config['name']}/new/eth0", "net1/other/eth0"}
    host.delete(config, "new")
    assert host.elements() == before
    assert host.command("repair", "--check").returncode == 0
