"""What is said when something fails: the key, path or link that it failed on, in the kernel's own words if it has any.

And what callers bring along that must not matter: their umask, their signals, an empty version. Hosts that lack
something altogether are test_bad_hosts, configurations that are refused test_bad_input*.
"""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from support.scratch import CHECKOUT, PLUGIN, Answer, Host, Json, network, port
from support.traffic import Server, ask

DUAL = ("10.88.0.0/24", "fd00:88::/64")
PORTS = [port(8080, 80), port(53, 53, "udp", "127.0.0.1")]


@pytest.fixture
def ready(host: Host) -> Host:
    host.container("c1")
    return host


def patched(folder: Path, *changes: tuple[str, str, str]) -> str:
    """A copy of the plugin with defects: (file, text that is there once, what stands there instead)."""
    for name in ("cni", "nft", "conf"):
        shutil.copytree(CHECKOUT / name, folder / name)
    for name, before, after in changes:
        text = (folder / name).read_text()
        assert text.count(before) == 1, f"{name} has changed: {before}"
        (folder / name).write_text(text.replace(before, after))
    return str(folder / "conf" / "nftcni")


def call_by(host: Host, words: tuple[str, ...], verb: str, config: Json) -> Answer:
    """A call by a program that does something first."""
    variables = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0"}
    done = host.call(*words, PLUGIN, input=json.dumps(config), env={**variables, "CNI_PATH": "/nonexistent"})
    return Answer(done.returncode, done.stdout, done.stderr)


# A read-only /proc/sys, as in a container that is not privileged


def make_read_only(host: Host) -> None:
    host.run("mount", "--bind", "/proc/sys", "/proc/sys")
    host.run("mount", "-o", "remount,ro,bind", "/proc/sys")


# key, value, what is set before so that it is the first one in the way
IN_THE_WAY: list[tuple[str, str, list[str]]] = [
    ("ipv6/conf/br-net0/accept_ra", "0", []),
    ("ipv4/ip_forward", "1", ["bridge"]),
    ("ipv6/conf/all/forwarding", "1", ["bridge", "ipv4/ip_forward"]),
    ("ipv4/conf/br-net0/route_localnet", "1", ["bridge", "ipv4/ip_forward", "ipv6/conf/all/forwarding"]),
]


@pytest.mark.parametrize(("key", "value", "before"), IN_THE_WAY, ids=[key for key, _, _ in IN_THE_WAY])
def test_a_sysctl_that_cannot_be_written_is_named(ready: Host, key: str, value: str, before: list[str]) -> None:
    if "bridge" in before:
        ready.run("ip", "link", "add", "br-net0", "up", "type", "bridge")
        ready.set_sysctl("ipv6/conf/br-net0/accept_ra", "0")
    for other in before[1:]:
        ready.set_sysctl(other, "1")
    make_read_only(ready)
    answer = ready.refused("ADD", network("net0", *DUAL, ports=PORTS))
    assert answer.code == 5 and key in answer.words and f" {value} " in answer.words, answer.words
    assert "Read-only" in answer.words or "ROFS" in answer.words


def test_a_read_only_proc_sys_that_is_as_it_should_be_is_no_error(ready: Host) -> None:
    ready.run("ip", "link", "add", "br-net0", "up", "type", "bridge")
    for key, value in (
        ("ipv6/conf/br-net0/accept_ra", "0"),
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/br-net0/route_localnet", "1"),
        ("ipv6/conf/default/accept_ra", "0"),
    ):
        ready.set_sysctl(key, value)
    ready.place("c1").set_sysctl("ipv4/conf/default/arp_notify", "1")
    make_read_only(ready)
    config = network("net0")
    result = ready.add(config)
    assert ready.cni("CHECK", {**config, "prevResult": result}).status == 0
    ready.delete(config)


@pytest.mark.parametrize("mode", ["bridge", "ptp"])
def test_a_read_only_proc_sys_of_a_router_keeps_nobody_from_the_network(host: Host, mode: str) -> None:
    """As in a nested, unprivileged host: forwarding was switched on from outside, and new links get the defaults. What
    protects is not needed on links that forward, and courtesies to neighbours can be done without."""
    for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/default/route_localnet"):
        host.set_sysctl(key, "1")
    lan = host.neighbour()
    make_read_only(host)
    keys: Json = {"mode": mode, "bridge": "br-net0" if mode == "bridge" else None}
    for name, number in (("c1", 8080), ("c2", 8081)):
        config = network("net0", *DUAL, ports=[port(number, 80)], **keys)
        result = host.add(config, name)
        with Server(host.place(name), 80):
            assert ask(lan, "198.51.100.1", number) == f"{name} 198.51.100.2"
            # The link's own address is tentative for two seconds: accept_dad is 1.
            assert ask(lan, "2001:db8:100::1", number, timeout=8) == f"{name} 2001:db8:100::2"
        answer = host.cni("CHECK", {**config, "prevResult": result}, name)
        assert answer.status == 0, answer.words
    assert host.command("repair", "--check").returncode == 0
    for name in ("c1", "c2"):
        host.delete(network("net0", *DUAL, **keys), name)
    assert host.elements() == {} and host.link("br-net0") is None


def test_a_value_with_control_characters_is_quoted_without_them(ready: Host) -> None:
    """On stderr, which a terminal shows; an answer's JSON escapes them."""
    done = ready.cni("ADD", network("net0", **{"isGatewa\x1b[2J\x00y": True}))
    assert done.status == 0 and "\x1b" not in done.stderr
    answer = ready.cni("ADD", network("net1", ipam={"type": "a\x1b[2J\x00", "ranges": [[{"subnet": "10.7.0.0/24"}]]}))
    assert answer.status != 0 and "\\x1b[2J\\x00" in answer.stderr and "\x00" not in answer.stderr


# A state folder that cannot be written


def full(host: Host, options: str) -> None:
    host.run("mount", "-t", "tmpfs", "-o", options, "none", "/run/nftcni")


def no_room_at(host: Host, config: Json) -> list[Answer]:
    """The answers to ADD with room for one file, for two, and so on until there is enough for all."""
    answers = []
    host.file("/run/nftcni").mkdir()
    for room in range(2, 60):
        full(host, f"nr_inodes={room}")
        kernel = host.links(), host.elements()
        answers.append(host.cni("ADD", config))
        assert answers[-1].status == 0 or (host.links(), host.elements()) == kernel, f"room for {room} files"
        deleted = host.cni("DEL", config)
        assert (host.links(), host.elements()) == kernel, f"room for {room} files"
        assert deleted.status == 0 or (deleted.code == 5 and "/run/nftcni/" in deleted.words), deleted.stdout
        host.run("umount", "--lazy", "/run/nftcni")  # a child that removed a link may have its lock open for a moment
        if answers[-1].status == 0:
            return answers
    raise AssertionError(answers[-1].stdout)


@pytest.mark.parametrize("table", ["no table", "a table"])
def test_a_full_state_folder_leaves_nothing(ready: Host, table: str) -> None:
    """Wherever the file system has no room any more, the kernel is as before; DEL succeeds as soon as it can lock."""
    if table == "a table":
        ready.add(network("other", "10.89.0.0/24"), "c2")
        ready.delete(network("other", "10.89.0.0/24"), "c2")
        ready.run("rm", "-rf", "/run/nftcni")
    *failed, done = no_room_at(ready, network("net0", *DUAL, ports=PORTS))
    assert done.status == 0 and len(failed) > 10
    for answer in failed:
        assert answer.code == 5 and "ENOSPC" in answer.words and "Traceback" not in answer.stdout + answer.stderr
    assert any("/pending" in answer.words for answer in failed), "the path is part of it"


def test_a_full_state_folder_is_named(ready: Host) -> None:
    *failed, _done = no_room_at(ready, network("net0", *DUAL, ports=PORTS))
    assert [answer.words for answer in failed if "/run/nftcni/" not in answer.words] == []


def test_a_state_folder_without_a_free_page_is_named(ready: Host) -> None:
    ready.file("/run/nftcni").mkdir()
    full(ready, "size=4k")
    answer = ready.cni("ADD", network())
    assert answer.code == 5 and "ENOSPC" in answer.words and "/run/nftcni/" in answer.words


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC"])
def test_a_read_only_state_folder_is_named(host: Host, verb: str) -> None:
    config = network("net0", *DUAL, ports=PORTS)
    result = host.add(config)
    full(host, "ro")
    # libcni gives the first plugin of a chain no prevResult on ADD, only afterwards.
    given = {} if verb == "ADD" else {"prevResult": result, "cni.dev/valid-attachments": []}
    answer = host.cni(verb, {**config, **given})
    assert answer.code == 5 and "EROFS" in answer.words and "/run/nftcni/" in answer.words
    assert "Traceback" not in answer.stdout + answer.stderr


def test_a_state_folder_that_became_read_only_is_named(host: Host) -> None:
    """With the records and the lock in it, as after an error of its disk."""
    config = network("net0", *DUAL, ports=PORTS)
    host.add(config)
    host.run("mount", "--bind", "/run/nftcni", "/run/nftcni")
    host.run("mount", "-o", "remount,ro,bind", "/run/nftcni")
    for verb, container in (("ADD", "c2"), ("DEL", "c1")):
        if verb == "ADD":
            host.container("c2")
        answer = host.cni(verb, config, container)
        assert answer.code == 5 and "EROFS" in answer.words and "/run/nftcni/" in answer.words
    host.run("umount", "--lazy", "/run/nftcni")
    host.delete(config)
    assert host.elements() == {} and host.state_files() == []


# The kernel's own words


@pytest.mark.parametrize(
    ("keys", "route", "words"),
    [
        ({}, {"dst": "192.0.2.0/24", "gw": "10.99.0.1"}, ("Nexthop has invalid gateway", "192.0.2.0/24", "10.99.0.1")),
        ({}, {"dst": "192.0.2.1/32", "gw": "127.0.0.1"}, ("Nexthop has invalid gateway", "192.0.2.1/32", "127.0.0.1")),
        ({"isGateway": False}, {"dst": "2001:db8::/32", "gw": "fd00:99::1"}, ("2001:db8::/32", "fd00:99::1")),
        ({}, {"dst": "2001:db8::/32", "gw": "fd00:88::2"}, ("Gateway can not be a local address", "fd00:88::2")),
    ],
)
def test_a_route_that_the_kernel_refuses(ready: Host, keys: Any, route: Json, words: tuple[str, ...]) -> None:
    config = network("net0", *DUAL, **keys)
    config["ipam"]["routes"] = [route]
    answer = ready.refused("ADD", config)
    assert answer.code == 5 and all(word in answer.words for word in words), answer.words


# Two failures

TEARDOWN_FAILS = (
    "cni/kernel/deletion.py",
    "    present = [name for",
    "    raise kernel_refused('removing the link X', OSError(16, 'THE SECOND'))\n    present = [name for",
)


def test_the_first_error_is_told_when_the_teardown_fails_too(ready: Host, tmp_path: Path) -> None:
    """The second is on stderr; the record stays, so that DEL can go on from there."""
    config = network("net0", *DUAL, ports=PORTS)
    config["ipam"]["routes"] = [{"dst": "192.0.2.0/24", "gw": "10.99.0.1"}]
    before = ready.snapshot()
    answer = ready.cni("ADD", config, plugin=patched(tmp_path, TEARDOWN_FAILS))
    assert answer.code == 5 and "Nexthop has invalid gateway" in answer.words and "SECOND" not in answer.words
    assert "THE SECOND" in answer.stderr and "net0/c1/eth0" in answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr
    ready.delete(config)
    assert ready.snapshot() == before


# Defects of our own

DEFECT = (
    "cni/operate/listing.py",
    "        items = host.records()\n        ages",
    "        items = host.no_such_thing()\n        ages",
)


def test_a_defect_in_a_command_for_people_tells_where_it_is(host: Host, tmp_path: Path) -> None:
    """It used to end in silence, with the status of success or not."""
    done = host.call(patched(tmp_path, DEFECT), "list")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" in done.stderr and "no_such_thing" in done.stderr and "listing.py" in done.stderr


def test_a_defect_in_a_verb_is_an_answer_all_the_same(ready: Host, tmp_path: Path) -> None:
    defect = (
        "cni/model/plan.py",
        "    ident = identity(",
        "    raise RuntimeError('THE CAUSE')\n    ident = identity(",
    )
    answer = ready.cni("ADD", network(), plugin=patched(tmp_path, defect))
    assert answer.code == 999 and "THE CAUSE" in answer.words and "RuntimeError" in answer.words


# What callers bring along


@pytest.mark.parametrize("umask", ["000", "002", "077", "777"])
@pytest.mark.parametrize("folder", ["/run/nftcni", "/run/cni/state"])
def test_nobody_else_may_write_into_the_state_folder(ready: Host, umask: str, folder: str) -> None:
    """With umask 0 it was everybody's: whoever writes a record decides what root does to links and the table."""
    config = network("net0", *DUAL, ports=PORTS, dataDir=None if folder == "/run/nftcni" else folder)
    assert call_by(ready, ("sh", "-c", f'umask {umask}; exec "$0"'), "ADD", config).status == 0
    root = ready.file(folder)
    found = {str(path.relative_to(root)): path.lstat().st_mode for path in [root, *root.rglob("*")]}
    assert len(found) > 10
    loose = {name: oct(mode) for name, mode in found.items() if not stat.S_ISLNK(mode) and mode & 0o022}
    assert loose == {}
    assert all(mode & 0o600 == 0o600 for mode in found.values())
    ready.delete(config)


@pytest.mark.parametrize("signals", ["CHLD", "CHLD,ALRM,PIPE,USR1,HUP"])
def test_a_caller_that_ignores_its_childrens_end(ready: Host, signals: str) -> None:
    """Ignoring SIGCHLD is inherited, and the kernel then reaps children before anybody can ask how they ended: those
    that load the table and remove links. The first ADD on a host and the last DEL have both."""
    config = network("net0", *DUAL, ports=PORTS)
    words = ("env", f"--ignore-signal={signals}")
    before = ready.snapshot()
    answer = call_by(ready, words, "ADD", config)
    assert answer.status == 0, answer.stdout
    assert len(ready.elements()["attachments"]) == 1
    ready.nft("flush ruleset")
    again = call_by(ready, words, "ADD", config)
    assert again.document == answer.document and len(ready.elements()["attachments"]) == 1
    deleted = call_by(ready, words, "DEL", config)
    assert (deleted.status, deleted.stdout, deleted.stderr) == (0, "", "")
    assert ready.snapshot() == before


@pytest.mark.parametrize("version", ["", None])
def test_an_empty_version_is_the_first_one(ready: Host, version: str | None) -> None:
    """As libcni reads it (pkg/version/conf.go): the result has that version's shape."""
    config = {**network("net0", *DUAL), "cniVersion": version}
    result = ready.add(config)
    assert result["cniVersion"] == "0.1.0"
    assert (result["ip4"]["ip"], result["ip6"]["ip"]) == ("10.88.0.2/24", "fd00:88::2/64")
    assert "ips" not in result and "interfaces" not in result
    refused = ready.refused("CHECK", config)
    assert refused.code == 1 and "0.1.0" in refused.words
    ready.delete(config)


def test_an_empty_version_in_an_error(ready: Host) -> None:
    answer = ready.refused("ADD", {**network("net0", "10.88.0.0/33"), "cniVersion": ""})
    assert answer.document["cniVersion"] == "0.1.0"


@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_a_bridge_by_another_name_of_it(ready: Host, kind: str) -> None:
    """The kernel finds a link by its altname too; rules and sysctls only know the one in front."""
    more = ("peer", "name", "other") if kind == "veth" else ()
    ready.run("ip", "link", "add", "br-real", "up", "type", kind, *more)
    ready.run("ip", "link", "property", "add", "dev", "br-real", "altname", "br-net0")
    answer = ready.refused("ADD", network())
    assert answer.code == 7 and "br-net0" in answer.words and "br-real" in answer.words
    assert "bridge" in answer.words
