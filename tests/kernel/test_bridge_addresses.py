"""The MAC address of a bridge that we make: one host's at every start, never that of every host. Bridges of two hosts
may share a wire, where one address for both cuts either off.
"""

from __future__ import annotations

import pytest
from support.scratch import Host, network

CONFIG = network("net0")


def address(host: Host, identity: str | None) -> str:
    """With this machine-id(5), None for none at all; a folder of its own takes /etc's place on the scratch host."""
    if not host.file("/run/etc").exists():
        host.run("sh", "-c", "cp -a /etc /run/etc && mount --bind /run/etc /etc")
    host.run("rm", "-f", "/etc/machine-id")
    if identity is not None:
        host.file("/etc/machine-id").write_text(identity)
    mac = host.add(CONFIG)["interfaces"][0]["mac"]
    host.delete(CONFIG)
    assert host.link("br-net0") is None
    return str(mac)


@pytest.mark.parametrize("identity", ["", "\n", "uninitialized\n", None])
def test_without_a_machine_id_it_is_not_every_hosts(host: Host, identity: str | None) -> None:
    """An image's machine-id is empty until its first boot is over, and all hosts made of it may have one name."""
    found = address(host, identity)
    assert found == address(host, identity), "the same until the next boot"
    host.run("sh", "-c", "echo 11111111-2222-3333-4444-555555555555 >/run/boot")
    host.run("mount", "--bind", "/run/boot", "/proc/sys/kernel/random/boot_id")
    assert found != address(host, identity), "another host of the same name"


def test_with_one_it_stays(host: Host) -> None:
    found = address(host, "0123456789abcdef0123456789abcdef\n")
    host.run("sh", "-c", "echo 11111111-2222-3333-4444-555555555555 >/run/boot")
    host.run("mount", "--bind", "/run/boot", "/proc/sys/kernel/random/boot_id")
    assert found == address(host, "0123456789abcdef0123456789abcdef\n")
    assert found != address(host, "fedcba9876543210fedcba9876543210\n")
