"""The tests' own means: what a host must not have is found, and what is left on it is seen."""

from __future__ import annotations

import pytest
from machine import Machine


@pytest.mark.parametrize(
    "path",
    [
        *("/usr/sbin/iptables", "/usr/bin/ip6tables-nft", "/usr/local/sbin/iptables", "/usr/sbin/xtables-nft-multi"),
        *("/opt/cni/bin/bridge", "/usr/lib/cni/portmap", "/usr/libexec/cni/ptp", "/usr/local/lib/cni/tuning"),
    ],
)
def test_a_program_that_would_do_the_work_is_found(machine: Machine, path: str) -> None:
    assert machine.foreign() == []
    machine.write(path, "#!/bin/sh\n", 0o755)
    assert machine.foreign() == [path]
    machine.run("rm", path)


def test_a_table_of_somebody_else_is_seen(machine: Machine) -> None:
    before = machine.state()
    machine.nft("add table ip cni_hostport")
    with pytest.raises(AssertionError, match="cni_hostport"):
        machine.check_unchanged(before)
    machine.nft("delete table ip cni_hostport")
    machine.check_unchanged(before)


def test_an_nft_that_fails_is_seen(machine: Machine) -> None:
    before = machine.state()
    machine.write("/usr/local/sbin/nft", "#!/bin/sh\nexit 1\n", 0o755)
    with pytest.raises(AssertionError, match="nft list tables"):
        machine.check_unchanged(before)
    machine.run("rm", "/usr/local/sbin/nft")
    machine.check_unchanged(before)
