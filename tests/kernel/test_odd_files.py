"""Paths of a caller or a configuration that are no plain files: FIFOs, devices, other namespaces. Each ends with an
error that names the path, none with a wait."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.scratch import PLUGIN, Host, network

KINDS = ("a FIFO", "a device that never ends", "a device that is full", "a folder", "a file", "nothing")
PATIENCE = 20


def made(kind: str, folder: Path) -> str:
    path = folder / "odd"
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a file":
        path.write_bytes(b"\xff\xfe")
    elif kind.startswith("a device"):
        return "/dev/zero" if "ends" in kind else "/dev/full"
    return str(path)


@pytest.fixture
def impatient(tmp_path: Path) -> str:
    script = tmp_path / "nftcni"
    script.write_text(f'#!/bin/sh\nexec timeout --signal=KILL {PATIENCE} {PLUGIN} "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_a_network_namespace_that_is_none(host: Host, tmp_path: Path, impatient: str, kind: str, verb: str) -> None:
    path = made(kind, tmp_path)
    config = network("net0", prevResult={"cniVersion": "1.1.0", "ips": []})
    answer = host.refused(verb, config, netns=path, plugin=impatient)
    assert answer.code == 8 and path in answer.words, answer.words


@pytest.mark.parametrize("kind", ["mnt", "uts", "pid", "user", "ipc", "cgroup"])
def test_a_namespace_of_another_kind(host: Host, impatient: str, kind: str) -> None:
    """The kernel's own answer to setns(2): the ioctl that tells has another number on ppc64le, MIPS, SPARC."""
    path = f"/proc/{host.pid}/ns/{kind}"
    answer = host.refused("ADD", network("net0"), netns=path, plugin=impatient)
    assert answer.code == 8 and "is not a network namespace" in answer.words


@pytest.mark.parametrize("kind", KINDS)
def test_a_resolv_conf_that_is_none(host: Host, tmp_path: Path, impatient: str, kind: str) -> None:
    path = made(kind, tmp_path)
    host.container("c1")
    config = network("net0", ipam={"subnet": "10.88.0.0/24", "resolvConf": path})
    answer = host.refused("ADD", config, plugin=impatient)
    assert answer.code == 7 and "ipam.resolvConf" in answer.words and path in answer.words, answer.words


def test_a_resolv_conf_that_a_link_leads_to(host: Host, tmp_path: Path) -> None:
    (tmp_path / "real").write_text("nameserver 192.0.2.53\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    config = network("net0", ipam={"subnet": "10.88.0.0/24", "resolvConf": str(tmp_path / "link")})
    assert host.add(config)["dns"] == {"nameservers": ["192.0.2.53"]}


def test_a_resolv_conf_that_is_a_book(host: Host, tmp_path: Path) -> None:
    (tmp_path / "book").write_text("# word\n" * 400_000)
    host.container("c1")
    config = network("net0", ipam={"subnet": "10.88.0.0/24", "resolvConf": str(tmp_path / "book")})
    assert "ipam.resolvConf" in host.refused("ADD", config).words
