"""State lost or damaged: set aside with a message, the rest goes on, nothing that the kernel holds is given away."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Callable

import pytest
from support.scratch import PLUGIN, Host, Json, network, port

DUAL = ("10.88.0.0/24", "fd00:88::/64")
PORTS = [port(8080, 80), port(5353, 53, "udp", "127.0.0.1")]
CONFIG = network("net0", *DUAL, ports=PORTS)


def folder(host: Host) -> Path:
    (found,) = [path for path in host.file("/run/nftcni").iterdir() if "." in path.name]
    return found


def record(host: Host) -> Path:
    return folder(host) / "attachments" / "net0" / "c1@eth0"


def read_claim(path: Path) -> str:
    """A link for one host address, a file for several."""
    return os.readlink(path) if path.is_symlink() else path.read_text()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "zero-length": lambda path: path.write_text(""),
    "truncated": lambda path: path.write_text(path.read_text()[:100]),
    "garbage": lambda path: path.write_bytes(bytes(range(256))),
    "not-an-object": lambda path: path.write_text("[]"),
    "newer-schema": lambda path: path.write_text(re.sub('"schema":[0-9]+', '"schema":99', path.read_text())),
    "a-field-missing": lambda path: path.write_text(path.read_text().replace('"bridge"', '"brigde"')),
    "somebody-elses": lambda path: path.write_text(path.read_text().replace('"c1"', '"c9"')),
    "a-folder": lambda path: (path.unlink(), path.mkdir()),
    "gone": lambda path: path.unlink(),
}


@pytest.fixture
def damaged(host: Host) -> Host:
    host.container("c1")
    host.add(network("net0", *DUAL, ports=[port(9090, 80)]), "other")
    host.add(CONFIG)
    return host


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("way", ["DEL", "GC", "ADD again"])
def test_a_damaged_record(damaged: Host, name: str, way: str) -> None:
    DAMAGES[name](record(damaged))
    valid = [{"containerID": "other", "ifname": "eth0"}]
    if way == "ADD again":
        result = damaged.add(CONFIG)
        assert damaged.cni("CHECK", {**CONFIG, "prevResult": result}).status == 0
        damaged.delete(CONFIG)
    elif way == "DEL":
        answer = damaged.cni("DEL", CONFIG, netns="")
        assert answer.status == 0
        assert "net0" in answer.stderr and "c1" in answer.stderr, "the damage has to be said"
    else:
        assert damaged.cni("GC", {**CONFIG, "cni.dev/valid-attachments": valid}).status == 0
        if name == "gone":
            damaged.delete(CONFIG)  # no record, nothing listed: the table's own entry is found by its name
    left = [path for path in damaged.state_files() if "/damaged/" not in path]
    assert not [path for path in left if "c1" in path]
    assert {item["elem"]["comment"] for item in damaged.elements()["attachments"]} == {"net0/other/eth0"}
    assert {item[0]["elem"]["comment"] for item in damaged.elements()["dnat4"]} == {"net0/other/eth0"}
    ports = list((folder(damaged) / "ports").iterdir())
    assert not [text for text in map(read_claim, ports) if "c1" in text]


def test_what_was_damaged_is_kept_aside_for_people(damaged: Host) -> None:
    record(damaged).write_text("garbage")
    done = damaged.command("list")
    assert "moved to" in done.stderr and "c1@eth0" in done.stderr
    (kept,) = (folder(damaged) / "damaged").iterdir()
    assert kept.read_text() == "garbage"


def test_lost_state_gives_nothing_away(damaged: Host) -> None:
    damaged.run("rm", "-rf", "/run/nftcni")
    damaged.container("c3")
    result = damaged.add(network("net0", *DUAL), "c3")
    held = {"10.88.0.2/24", "10.88.0.3/24", "fd00:88::2/64", "fd00:88::3/64"}
    assert not held & {item["address"] for item in result["ips"]}
    damaged.container("c4")
    answer = damaged.cni("ADD", network("net2", "10.90.0.0/24", ports=[port(8080, 80)]), "c4")
    assert answer.code == 100 and "net0" in answer.words and "c1" in answer.words
    asked = network("net0", *DUAL, runtimeConfig={"ips": ["10.88.0.3"]})
    assert damaged.cni("ADD", asked, "c4").code == 102


@pytest.mark.parametrize("keys", [{"gatewayMode": "isolated"}, {"isGateway": False}], ids=["isolated", "no-gateway"])
def test_lost_state_gives_no_address_of_an_internal_network_away(host: Host, keys: Json) -> None:
    """Only the table of the bridge family has its addresses: the next container got the first one's."""
    config = network("inner", *DUAL, **keys)
    first = host.add(config)
    before = host.elements()
    host.run("rm", "-rf", "/run/nftcni")
    second = host.add(config, "c2")
    assert not {one["address"] for one in first["ips"]} & {one["address"] for one in second["ips"]}
    host.delete(config, "c2")
    assert host.elements() == before
    host.delete(config)
    assert host.elements() == {} and host.state_files() == []


@pytest.mark.parametrize("keys", [{"masqAll": True}, {"snat": False}], ids=json.dumps)
def test_whom_a_container_sees_outlives_its_record(host: Host, keys: Json) -> None:
    """A listing rebuilt the record without it, and deleted the elements."""
    config = network("net0", *DUAL, ports=PORTS, **keys)
    host.add(config)
    before = host.elements()
    host.run("rm", "-rf", "/run/nftcni")
    assert "(record rebuilt)" in host.command("list").stdout
    assert host.elements() == before and ("hidden4" in before or "shown4" in before)


def test_lost_state_is_said_once(damaged: Host) -> None:
    damaged.run("rm", "-rf", "/run/nftcni")
    damaged.container("c3")
    first = damaged.cni("ADD", network("net0", *DUAL), "c3")
    assert "net0/c1/eth0" in first.stderr and "lost" in first.stderr
    assert damaged.cni("DEL", network("net0", *DUAL), "c3").stderr == ""


def test_lost_state_is_deleted_from_the_table_alone(damaged: Host) -> None:
    damaged.run("rm", "-rf", "/run/nftcni")
    damaged.delete(CONFIG, netns="")
    damaged.delete(network("net0", *DUAL), "other", netns="")
    assert damaged.elements() == {} and damaged.state_files() == []
    assert damaged.link("br-net0") is None
    assert damaged.namespaces[0].link("eth0") is None


def without_damaged(host: Host) -> list[str]:
    return [path for path in host.state_files() if "/damaged/" not in path]


def named(*containers: str) -> Json:
    """The key of GC that says who is valid."""
    return {"cni.dev/valid-attachments": [{"containerID": name, "ifname": "eth0"} for name in containers]}


def gone_by(way: str, host: Host) -> None:
    """c1, by DEL without its namespace or by a GC that lists the other one alone."""
    if way == "DEL":
        host.delete(CONFIG, netns="")
    else:
        assert host.cni("GC", {**CONFIG, **named("other")}).status == 0


@pytest.mark.parametrize(
    ("way", "name"),
    [(way, name) for way in ("DEL", "GC") for name in DAMAGES],
)
def test_a_damaged_record_and_a_flushed_table(host: Host, way: str, name: str) -> None:
    """Nothing is left that tells of it but its claims and its link; all of that goes, and nothing of the other's."""
    host.add(network("net0", *DUAL, ports=[port(9090, 80)]), "other")
    host.container("c1")
    before = host.snapshot()
    host.add(CONFIG)
    DAMAGES[name](record(host))
    host.nft("flush ruleset")
    gone_by(way, host)
    assert host.command("repair").returncode == 0
    assert {**host.snapshot(), "state": without_damaged(host)} == before
    assert not [text for text in map(read_claim, (folder(host) / "ports").iterdir()) if "c1" in text]


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("table", ["kept", "flushed"])
@pytest.mark.parametrize("way", ["DEL", "GC"])
def test_a_damaged_record_of_a_container_that_has_ended(host: Host, way: str, table: str, name: str) -> None:
    """Its links went with its namespace, as they do with most runtimes before DEL: its addresses have to be free."""
    host.add(network("net0", *DUAL, ports=[port(9090, 80)]), "other")
    container = host.container("c1")
    before = host.snapshot()
    host.add(CONFIG)
    container.run("ip", "link", "del", "eth0")
    DAMAGES[name](record(host))
    if table == "flushed":
        host.nft("flush ruleset")
    gone_by(way, host)
    assert host.command("repair").returncode == 0
    assert {**host.snapshot(), "state": without_damaged(host)} == before


@pytest.mark.parametrize("way", ["DEL", "GC"])
def test_lost_state_of_a_container_that_has_ended(damaged: Host, way: str) -> None:
    """The other one, which lives, keeps what it has; the ended one's address and ports are anybody's."""
    damaged.place("c1").run("ip", "link", "del", "eth0")
    damaged.run("rm", "-rf", "/run/nftcni")
    gone_by(way, damaged)
    assert {item["elem"]["comment"] for item in damaged.elements()["attachments"]} == {"net0/other/eth0"}
    asked = {**CONFIG, "runtimeConfig": {**CONFIG["runtimeConfig"], "ips": ["10.88.0.3", "fd00:88::3"]}}
    damaged.add(asked, "c3")
    for name in ("c3", "other"):
        damaged.delete(asked, name)
    assert damaged.state_files() == [] and damaged.elements() == {} and damaged.link("br-net0") is None


PORTMAP = {"cniVersion": "1.1.0", "name": "net0", "type": "portmap", "runtimeConfig": {"portMappings": PORTS}}
HOST_LOCAL = {
    **{"cniVersion": "1.1.0", "name": "net0", "type": "bridge"},
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.5.0.0/24"}]]},
}


@pytest.mark.parametrize("name", DAMAGES)
def test_check_of_a_rebuilt_record(damaged: Host, name: str) -> None:
    """It was a difference for ever, while repair and doctor called the container well and it was served."""
    result = damaged.add(CONFIG)
    config = {**CONFIG, "prevResult": result}
    DAMAGES[name](record(damaged))
    for _ in range(2):
        assert damaged.cni("CHECK", config).words == ""
    address = result["ips"][0]["address"]
    other = {**config, "prevResult": {**result, "ips": [{**result["ips"][0], "address": "10.88.0.77/24"}]}}
    answer = damaged.cni("CHECK", other)
    assert answer.code == 104 and address in answer.words
    damaged.nft("delete element inet nftcni dnat4 { tcp . 8080 }")
    answer = damaged.cni("CHECK", config)
    assert answer.code == 104 and "8080" in answer.words
    assert damaged.command("repair").returncode == 0
    assert damaged.cni("CHECK", config).words == ""
    damaged.place("c1").run("ip", "addr", "del", address, "dev", "eth0")
    answer = damaged.cni("CHECK", config)
    assert answer.code == 104 and address in answer.words


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("role", ["portmap", "host-local"])
def test_check_of_a_damaged_record_is_a_difference(host: Host, name: str, role: str) -> None:
    """Of the attachment, not a defect of ours: code 104 and never 999."""
    plugin = f"/run/cni/{role}"
    host.run("ln", "-s", PLUGIN, plugin)
    host.container("c1")
    config: Json = {"portmap": PORTMAP, "host-local": HOST_LOCAL}[role]
    if role == "portmap":
        config = {**config, "prevResult": host.add(network("net0", *DUAL))}
    answer = host.cni("ADD", config, plugin=plugin)
    config = {**config, "prevResult": answer.document}
    assert host.cni("CHECK", config, plugin=plugin).words == ""
    DAMAGES[name](record(host))
    for _ in range(2):
        answer = host.cni("CHECK", config, plugin=plugin)
        assert answer.code == 104 and "net0/c1/eth0" in answer.words, answer.stdout


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_pending_beside_a_damaged_record(damaged: Host, name: str) -> None:
    """A killed ADD that was repeated, and its record cannot be read: that used to end every verb of everybody."""
    (folder(damaged) / "pending").write_text(record(damaged).read_text())
    DAMAGES[name](record(damaged))
    asked = network("net0", *DUAL, runtimeConfig={"ips": ["10.88.0.3"]})
    damaged.container("c3")
    result = damaged.add(network("net0", *DUAL), "c3")
    assert damaged.cni("CHECK", {**network("net0", *DUAL), "prevResult": result}, "c3").words == ""
    assert not {"10.88.0.3/24", "fd00:88::3/64"} & {item["address"] for item in result["ips"]}, "c1 still has these"
    damaged.container("c4")
    assert damaged.cni("ADD", asked, "c4").code == 102
    damaged.delete(CONFIG)
    damaged.delete(asked, "c4")
    assert damaged.place("c1").link("eth0") is None
    assert not [path for path in without_damaged(damaged) if "c1" in path or "10.88.0.3" in path or "8080" in path]
    assert {item["elem"]["comment"] for item in damaged.elements()["attachments"]} == {
        "net0/other/eth0",
        "net0/c3/eth0",
    }


@pytest.mark.parametrize("way", ["DEL", "GC", "ADD again"])
@pytest.mark.parametrize("content", ["empty", "full"])
@pytest.mark.parametrize("what", ["leases/10.88.0.3", "ports/tcp-8080", "ports/udp-5353"])
def test_a_folder_in_place_of_a_claim_is_set_aside(damaged: Host, what: str, content: str, way: str) -> None:
    """Its owner goes on as if nothing was there."""
    path = folder(damaged) / what
    path.unlink()
    path.mkdir()
    if content == "full":
        (path / "file").write_text("somebody's")
    if way == "ADD again":
        result = damaged.add(CONFIG)
        assert not path.is_dir() and "net0/c1/eth0" in read_claim(path)
        assert damaged.cni("CHECK", {**CONFIG, "prevResult": result}).words == ""
        damaged.delete(CONFIG)
    elif way == "DEL":
        damaged.delete(CONFIG, netns="")
    else:
        assert damaged.cni("GC", {**CONFIG, **named("other")}).status == 0
    kept = folder(damaged) / "damaged" / what.replace("/", "%")
    assert kept.is_dir() and [entry.name for entry in kept.iterdir()] == (["file"] if content == "full" else [])
    assert not path.exists() and not path.is_symlink()
    damaged.add(CONFIG, "c3")
    damaged.delete(CONFIG, "c3")
    damaged.delete(CONFIG, "other")
    assert without_damaged(damaged) == [] and damaged.elements() == {}


@pytest.mark.parametrize("what", ["leases/10.88.0.3", "ports/tcp-8080"])
@pytest.mark.parametrize("damage", ["gone", "garbage", "a-folder"])
def test_a_damaged_lease_or_port(damaged: Host, what: str, damage: str) -> None:
    """The kernel's keys are the second lock: what the folder forgot is still refused there."""
    path = folder(damaged) / what
    path.unlink()
    if damage == "garbage":
        path.symlink_to("garbage")
    elif damage == "a-folder":
        path.mkdir()
    damaged.container("c3")
    if what.startswith("ports"):
        answer = damaged.cni("ADD", network("net0", *DUAL, ports=[port(8080, 80)]), "c3")
        assert answer.status != 0 and answer.code in (5, 100), answer.stdout
    else:
        asked = network("net0", *DUAL, runtimeConfig={"ips": ["10.88.0.3"]})
        answer = damaged.cni("ADD", asked, "c3")
        assert answer.status != 0 and answer.code in (5, 102), answer.stdout
    assert "Traceback" not in answer.stdout + answer.stderr


def test_another_boot_frees_everything_at_once(damaged: Host, tmp_path: Path) -> None:
    """The folder's name is the boot's; a reboot takes the kernel's part, so the table goes here too."""
    for namespace in damaged.namespaces:
        if namespace.link("eth0"):
            namespace.run("ip", "link", "del", "eth0")
    damaged.run("ip", "link", "del", "br-net0")
    damaged.nft("flush ruleset")
    other = tmp_path / "boot_id"
    other.write_text("00000000-1111-2222-3333-444444444444\n")
    damaged.run("mount", "--bind", str(other), "/proc/sys/kernel/random/boot_id")
    before = folder(damaged).name
    result = damaged.add(network("net0", *DUAL, ports=PORTS), "new")
    assert result["ips"][0]["address"] == "10.88.0.2/24"
    assert folder(damaged).name != before, "the old boot's folder is gone"


def test_nothing_is_listed_when_there_is_nothing_to_free(host: Host) -> None:
    """The sweep of other boots' folders runs when a folder is made, never in the steady state."""
    host.add(CONFIG, "first")
    host.container("c1")
    words = ("strace", "-f", "-qq", "-y", "-e", "trace=getdents64", "-o", "/run/log", PLUGIN)
    variables = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0"}
    done = host.call(*words, input=json.dumps(network("net0", *DUAL)), env={**variables, "CNI_PATH": "/x"})
    assert done.returncode == 0, done.stdout
    log = host.file("/run/log").read_text()
    assert "getdents64" in log, "Python's own start lists its folders"
    listed = [line for line in log.splitlines() if "/run/nftcni" in line]
    assert all("/containers/c1" in line for line in listed), "its own other attachments, at most"


def test_the_folder_of_a_full_bridge_is_not_read_to_its_end(host: Host) -> None:
    """Whether another port is at 127.0.0.1, and whether another container is there, the first entry tells."""
    many = 2000
    config = network("net0", *DUAL, ports=PORTS)
    host.add(network("net0", *DUAL), "first")
    host.add(config)
    place = folder(host) / "bridges" / "br-net0"
    for number in range(many):
        for name in (f"veth{number:011x}", f".port-veth{number:011x}"):
            (place / name).touch()
    words = ("strace", "-f", "-qq", "-y", "-e", "trace=getdents64", "-o", "/run/log", PLUGIN)
    variables = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0"}
    done = host.call(*words, input=json.dumps(config), env={**variables, "CNI_PATH": "/x"})
    assert done.returncode == 0, done.stdout
    listed = [line for line in host.file("/run/log").read_text().splitlines() if "/bridges/br-net0" in line]
    entries = sum(int(re.findall(r"/\* (\d+) entries", line)[0]) for line in listed)
    assert 0 < entries < many, "of twice as many"


def test_another_host_namespace_is_another_host(host: Host, tmp_path: Path) -> None:
    """RootlessKit and tests share a folder: leases of one network namespace mean nothing in another."""
    host.env["NFTCNI_DATA_DIR"] = str(tmp_path)
    host.add(network("net0", *DUAL, ports=PORTS))
    other = Host()
    try:
        other.env["NFTCNI_DATA_DIR"] = str(tmp_path)
        assert other.add(network("net0", *DUAL, ports=PORTS))["ips"][0]["address"] == "10.88.0.2/24"
        other.delete(network("net0", *DUAL, ports=PORTS))
    finally:
        other.close()
    assert len(host.elements()["attachments"]) == 1
    assert "net0/c1/eth0" in host.command("list").stdout
