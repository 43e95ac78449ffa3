"""Hosts that cannot serve, beside test_bad_hosts: without libnftables, without capabilities, other links in the way."""

from __future__ import annotations

import ctypes.util
import json
from pathlib import Path
from typing import Any

import pytest
from support.scratch import PLUGIN, Answer, Host, network, port

CONFIG = network(ports=[port(8080, 80)])
SETPRIV = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
NOBODY = ("--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture
def ready(host: Host) -> Host:
    host.container("c1")
    return host


def through(host: Host, prefix: tuple[str, ...], verb: str, config: Any = CONFIG) -> Answer:
    """A call of the plugin by another program, which takes rights away first."""
    variables = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_PATH": "/nonexistent"}
    variables["CNI_NETNS"] = "/run/netns/c1"
    done = host.call(*prefix, PLUGIN, input=json.dumps(config), env=variables)
    return Answer(done.returncode, done.stdout, done.stderr)


def hide_libnftables(host: Host) -> None:
    """An empty file over each libnftables.so of the machine, in the host's mount namespace alone."""
    name = ctypes.util.find_library("nftables")
    assert name is not None, "needs the distribution's package libnftables1"
    places = {path.resolve() for folder in ("/usr/lib", "/lib") for path in Path(folder).glob(f"**/{name}")}
    assert places
    host.file("/run/empty").write_text("")
    for place in places:
        host.run("mount", "--bind", "/run/empty", str(place))


def test_without_the_library_it_says_what_to_install(ready: Host) -> None:
    hide_libnftables(ready)
    answer = ready.refused("ADD", CONFIG)
    assert answer.code == 5 and "nftables" in answer.words and "install" in answer.words


def test_without_the_library_what_stands_is_served_and_removed(ready: Host) -> None:
    before = ready.snapshot()
    result = ready.add(CONFIG)
    hide_libnftables(ready)
    assert ready.cni("CHECK", {**CONFIG, "prevResult": result}).status == 0
    assert ready.cni("STATUS", CONFIG).status == 0
    ready.delete(CONFIG)
    assert ready.snapshot() == before


# what takes the rights away: user ID 0 without capabilities, another user, root of a user namespace of its own
UNPRIVILEGED = {
    "no-capabilities": SETPRIV,
    "another-user": (*SETPRIV, *NOBODY),
    "user-namespace": ("unshare", "--user", "--map-root-user"),
}


@pytest.mark.parametrize("who", UNPRIVILEGED)
def test_add_without_rights_is_an_error_that_says_so(ready: Host, who: str) -> None:
    before = ready.snapshot()
    answer = through(ready, UNPRIVILEGED[who], "ADD")
    assert answer.status != 0 and answer.code == 5, answer.stdout + answer.stderr
    assert answer.stderr == ""
    assert any(word in answer.words for word in ("root", "CAP_", "permitted", "permission", "EPERM", "EACCES"))
    assert ready.snapshot() == before


@pytest.mark.parametrize("who", UNPRIVILEGED)
def test_del_without_rights_does_not_claim_success(ready: Host, who: str) -> None:
    """What it could not remove is still known, so that a DEL with rights removes it."""
    before = ready.snapshot()
    ready.add(CONFIG)
    between = ready.snapshot()
    answer = through(ready, UNPRIVILEGED[who], "DEL")
    assert answer.status != 0 and answer.code in (5, 11), answer.stdout + answer.stderr
    assert answer.stderr == ""
    assert ready.snapshot() == between
    ready.delete(CONFIG)
    assert ready.snapshot() == before


# a kind of link as `ip -d` calls it: how to make one of the bridge's name
KINDS = {
    "veth": "link add br-net0 type veth peer name other",
    "macvlan": "link add link base name br-net0 type macvlan",
    "tun": "tuntap add br-net0 mode tap",
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_other_kind_of_link_is_named(ready: Host, kind: str) -> None:
    ready.run("ip", "link", "add", "base", "type", "veth", "peer", "name", "base-peer")
    ready.run("ip", *KINDS[kind].split())
    answer = ready.refused("ADD", CONFIG)
    assert answer.code == 7 and all(word in answer.words for word in ("bridge", "br-net0", kind)), answer.words


def test_an_alternative_name_is_in_the_way_like_a_name(ready: Host) -> None:
    """The kernel finds links by both, and gives no new link a name that is another one's alternative."""
    ready.run("ip", "link", "add", "base", "type", "veth", "peer", "name", "base-peer")
    ready.run("ip", "link", "property", "add", "dev", "base", "altname", "br-net0")
    answer = ready.refused("ADD", CONFIG)
    assert answer.code in (5, 7) and "br-net0" in answer.words


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_the_hosts_own_namespace(ready: Host, verb: str) -> None:
    config = {**CONFIG, "prevResult": {"ips": []}} if verb == "CHECK" else CONFIG
    answer = ready.refused(verb, config, netns=f"/proc/{ready.pid}/ns/net")
    assert answer.code == 8 and f"/proc/{ready.pid}/ns/net" in answer.words


def test_the_hosts_own_namespace_by_another_path(ready: Host) -> None:
    """`ip netns attach` and bind mounts give it other names; it is known by what it is."""
    ready.file("/run/netns/self").write_text("")
    ready.run("mount", "--bind", f"/proc/{ready.pid}/ns/net", "/run/netns/self")
    assert ready.refused("ADD", CONFIG, netns="/run/netns/self").code == 8


def test_a_folder_with_a_newline_does_not_break_the_answer(ready: Host) -> None:
    answer = ready.refused("ADD", CONFIG, netns='/run/netns/a\nb"c')
    assert answer.code == 8 and answer.stdout.count("\n") == 1
