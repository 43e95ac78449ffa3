"""Installing and uninstalling while containerd runs, which watches its folder of networks."""

from __future__ import annotations

from pathlib import Path

import programs
import pytest
import readme
from kubelet import Kubelet, host_port, network_is_ready, network_problem
from machine import Machine, browse, start_containerd, wait_for
from nerdctl import HERE, NEIGHBOUR

pytestmark = pytest.mark.parametrize("containerd", ["distribution", "newest"], indirect=True, scope="module")


def process(machine: Machine) -> Path:
    number = machine.file("/run/containerd.pid").read_text().strip()
    return machine.file(f"/proc/{number}/exe")


def test_uninstalled_and_installed_again_while_it_runs(containerd: Machine) -> None:
    """The folder of networks was not there before the first installation."""
    programs.require("crictl")
    machine, kubelet = containerd, Kubelet(containerd)
    machine.stop("containerd")
    machine.shell("conf/install --uninstall || true; rm -rf /etc/cni")
    install = readme.commands("containerd")[0]
    machine.shell(install)
    start_containerd(machine)
    first = process(machine).stat()
    try:
        wait_for(lambda: network_is_ready(kubelet), "the network")
        machine.shell("conf/install --uninstall")
        assert machine.file("/etc/cni/net.d").is_dir(), "what somebody else watches"
        wait_for(lambda: network_problem(kubelet), "the node to say that it has no network")
        machine.shell(install)
        wait_for(lambda: network_is_ready(kubelet), "the network again")
        assert process(machine).stat() == first, "the containerd of before"
        pod = kubelet.pod("web", host_port(8080))
        assert browse(machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"
        kubelet.remove(pod)
    finally:
        machine.run("kill", "-KILL", process(machine).parent.name, check=False)
        wait_for(lambda: not process(machine).exists(), "its end, which may have begun")
        start_containerd(machine)
