"""Lease files: one pool with the reference host-local plugin, which is here itself (Debian's package).

Whoever was first has an address; the other one sees it. What an earlier boot left is in nobody's way.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path

import pytest
from support.scratch import PLUGIN, Host, Json, network

REFERENCE = "/usr/lib/cni"
FOLDER = "/var/lib/cni/networks/net0"
SUBNET = "10.88.0.0/24"


def host_local(name: str = "net0", **keys: Json) -> Json:
    return {
        "cniVersion": "1.0.0",
        "name": name,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": SUBNET}]], **keys},
    }


def reserve(host: Host, container: str, verb: str = "ADD", **keys: Json) -> str:
    """The reference's own lease: its address."""
    answer = host.cni(verb, host_local(**keys), container, netns="/run/netns/x", plugin=f"{REFERENCE}/host-local")
    assert answer.status == 0, answer.stdout
    return str(answer.document["ips"][0]["address"]).partition("/")[0] if verb == "ADD" else ""


def address(result: Json) -> str:
    return str(result["ips"][0]["address"]).partition("/")[0]


def dropin(host: Host, role: str) -> str:
    path = f"/run/cni/{role}"
    host.run("ln", "-sf", PLUGIN, path)
    return path


def files(host: Host, folder: str = FOLDER) -> dict[str, str]:
    place = host.file(folder)
    return {path.name: path.read_bytes().decode() for path in place.iterdir()} if place.is_dir() else {}


@pytest.mark.parametrize("keys", [{}, {"type": "host-local"}], ids=["own", "host-local"])
def test_what_the_reference_leased_is_taken(host: Host, keys: Json) -> None:
    taken = {reserve(host, f"old{number}") for number in range(3)}
    config = network("net0", SUBNET)
    config["ipam"].update(keys)
    mine = address(host.add(config))
    assert mine not in taken
    assert reserve(host, "later") not in {*taken, mine}
    host.delete(config)
    assert set(files(host)) - {"lock", "last_reserved_ip.0"} == {*taken, "10.88.0.6"}


def test_the_names_keep_the_files_that_others_read(host: Host) -> None:
    """Byte for byte what the reference writes; gone at DEL."""
    expected = {"10.88.0.2": "c1\r\neth0", "last_reserved_ip.0": "10.88.0.2", "lock": ""}
    reserve(host, "c1")
    assert files(host) == expected
    host.run("rm", "-r", FOLDER)
    config = {**network("net0"), "type": "bridge", "isGateway": True, **{"ipam": host_local()["ipam"]}}
    host.add(config, plugin=dropin(host, "bridge"))
    assert files(host) == expected
    host.delete(config, plugin=dropin(host, "bridge"))
    assert files(host) == {} and not host.file(FOLDER).exists()


def test_a_data_dir_that_is_written_is_kept(host: Host) -> None:
    config = network("net0", SUBNET)
    config["ipam"]["dataDir"] = "/run/cni/leases"
    host.add(config)
    assert files(host, "/run/cni/leases/net0")["10.88.0.2"] == "c1\r\neth0"
    assert reserve(host, "other", dataDir="/run/cni/leases") == "10.88.0.3"
    host.delete(config)
    assert "10.88.0.2" not in files(host, "/run/cni/leases/net0")
    assert "10.88.0.3" in files(host, "/run/cni/leases/net0")


def test_without_one_nothing_is_written(host: Host) -> None:
    config = network("net0", SUBNET)
    host.add(config)
    host.delete(config)
    assert list(host.file("/var/lib/cni").iterdir()) == []


def test_the_drop_in_host_local_shares_the_pool(host: Host) -> None:
    plugin = dropin(host, "host-local")
    first = reserve(host, "old")
    mine = address(host.add(host_local(), "new", plugin=plugin, netns="/run/netns/x"))
    assert mine != first
    host.delete(host_local(), "new", plugin=plugin, netns="")
    assert set(files(host)) == {first, "last_reserved_ip.0", "lock"}


def test_files_from_before_this_boot_block_nothing(host: Host) -> None:
    """A whole pool of them."""
    place = host.file(FOLDER)
    place.mkdir(parents=True)
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for number in range(2, 255):
        path = place / f"10.88.0.{number}"
        path.write_text(f"gone{number}\r\neth0")
        os.utime(path, (boot - 60, boot - 60))
    config = network("net0", SUBNET)
    assert address(host.add(config)) == "10.88.0.2"
    assert files(host)["10.88.0.2"] == "c1\r\neth0"


def test_a_pool_that_others_hold_is_exhausted(host: Host) -> None:
    config = network("net0", "10.88.0.0/29")
    for number in range(2, 7):
        path = host.file(f"{FOLDER}/10.88.0.{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"old{number}\r\neth0")
    host.container("c1")
    answer = host.refused("ADD", config)
    assert answer.code == 101 and FOLDER in answer.words
    assert host.cni("STATUS", config).code == 50


def test_a_requested_address_of_the_references(host: Host) -> None:
    taken = reserve(host, "old")
    host.container("c1")
    answer = host.refused("ADD", network("net0", SUBNET, args={"cni": {"ips": [taken]}}))
    assert answer.code == 102 and "old" in answer.words and FOLDER in answer.words
    reserve(host, "old", "DEL")
    assert address(host.add(network("net0", SUBNET, args={"cni": {"ips": [taken]}}))) == taken


def test_no_listing(host: Host) -> None:
    """One look-up for each candidate: the folder of a busy host has thousands."""
    for number in range(2, 12):
        path = host.file(f"{FOLDER}/10.88.0.{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"old{number}\r\neth0")
    host.container("c1")
    trace = host.file("/run/trace")
    words = ("strace", "-f", "-e", "trace=getdents64,openat", "-o", "/run/trace", PLUGIN)
    env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0"}
    done = host.call(*words, input=json.dumps(network("net0", SUBNET)), env={**env, "CNI_PATH": "/x"})
    assert address(json.loads(done.stdout)) == "10.88.0.12"
    lines = trace.read_text().splitlines()
    opened = {line.split("= ")[-1]: line for line in lines if "openat" in line and "O_DIRECTORY" in line}
    assert not any(FOLDER in line for line in opened.values())


def test_an_add_that_fails_leaves_no_lease_file(host: Host) -> None:
    config = network("net0", SUBNET)
    config["ipam"]["dataDir"] = "/run/cni/leases"
    host.container("c1").run("ip", "link", "add", "eth0", "type", "bridge")
    assert host.cni("ADD", config).status != 0
    assert not any(name.startswith("10.") for name in files(host, "/run/cni/leases/net0"))


def test_the_folder_is_readable_by_others(host: Host) -> None:
    """faasd runs as somebody else than the plugin, on some hosts."""
    config = network("net0", SUBNET)
    config["ipam"]["dataDir"] = "/run/cni/leases"
    host.add(config)
    assert Path(host.file("/run/cni/leases/net0")).stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("role", ["bridge", "host-local"])
def test_gc_collects_the_references_leases_too(host: Host, role: str) -> None:
    """Of those alone that are not among the valid attachments, as the reference's own GC."""
    kept, stale = reserve(host, "kept"), reserve(host, "stale")
    config = {**host_local(), "type": role, "isGateway": True, "cniVersion": "1.1.0"}
    valid = [{"containerID": "kept", "ifname": "eth0"}]
    answer = host.cni("GC", {**config, "cni.dev/valid-attachments": valid}, plugin=dropin(host, role))
    assert answer.status == 0, answer.stdout
    assert kept in files(host) and stale not in files(host)


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_kill_leaves_no_lease_behind(host: Host, verb: str) -> None:
    """At any change of the file system: DEL, or the same ADD again, ends what was begun."""
    config = {**network("net0", SUBNET), "type": "bridge", "isGateway": True, "ipam": host_local()["ipam"]}
    plugin = dropin(host, "bridge")
    host.container("c1")
    env = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0"}
    killed = 0
    calls = ("mkdir", "rename", "symlink", "link", "unlink", "rmdir", "write")
    for call, when in itertools.product(calls, range(1, 7)):  # strace counts each call of its own
        if verb == "DEL":
            host.add(config, plugin=plugin)
        inject = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}")
        words = ("strace", "-o", "/dev/null", *inject, plugin)
        done = host.call(*words, input=json.dumps(config), env={**env, "CNI_PATH": "/x"})
        killed += done.returncode != 0
        if when % 2:
            assert address(host.add(config, plugin=plugin)) in files(host)
        host.delete(config, plugin=plugin)
        assert not any(name.startswith("10.") for name in files(host)), (call, when)
        assert host.state_files() == [], (call, when)
    assert killed > 12
