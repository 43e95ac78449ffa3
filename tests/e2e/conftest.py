"""What the suites with real runtimes share: the image, one host with containerd for each file, and the summary."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import image
import programs
import pytest
import readme
import test_forms
from kubelet import Kubelet, network_is_ready
from machine import PATH, Machine, start_containerd, wait_for


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "who.tar"
    image.archive(path)
    return path


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A host for all tests of a file; each test has to leave it as it was."""
    assert os.geteuid() == 0, "these tests need root: they make network namespaces"
    made = Machine()
    try:
        assert made.foreign() == []
        yield made
    finally:
        made.close()


# 1.6.20 and newer read this. What needs more of the machine than a network namespace has is left out.
CONTAINERD = """
version = 2
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "docker.io/library/who:latest"
  disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"
"""


@pytest.fixture(scope="module")
def containerd(request: pytest.FixtureRequest, machine: Machine, archive: Path) -> Iterator[Machine]:
    """The host with containerd and the image, in the namespaces of nerdctl and of Kubernetes. A file may ask for the
    newest one by the fixture's parameter; without, it is the distribution's."""
    if getattr(request, "param", "") == "newest":
        programs.require("newest/containerd", "newest/ctr", "newest/containerd-shim-runc-v2", "runc")
        machine.env["PATH"] = f"{programs.BIN}/newest:{PATH}"
    else:
        programs.require("containerd", "runc")
    machine.write("/etc/containerd/config.toml", CONTAINERD)
    start_containerd(machine)
    machine.write("/var/lib/who.tar", "")
    machine.file("/var/lib/who.tar").write_bytes(archive.read_bytes())
    for namespace in ("default", "k8s.io"):
        machine.run("ctr", "-n", namespace, "images", "import", "/var/lib/who.tar")
    yield machine
    machine.stop("containerd")
    machine.run("rm", "-rf", "/var/lib/containerd", "/run/containerd")
    machine.env["PATH"] = PATH


@pytest.fixture(scope="module")
def kubelet(containerd: Machine) -> Kubelet:
    programs.require("crictl")
    containerd.shell(readme.commands("containerd")[0])
    kubelet = Kubelet(containerd)
    wait_for(lambda: "NetworkReady" in kubelet("info"), "the CRI")
    wait_for(lambda: network_is_ready(kubelet), "the network that was just installed")
    return kubelet


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for kind, (forms, places) in sorted(test_forms.TALLY.items()):
        terminalreporter.write_line(f"e2e: forms of configurations: {kind}: {forms}, in {places} public places")
    for reason, kind in sorted(test_forms.REASONS.items()):
        terminalreporter.write_line(f"e2e: forms of configurations: {kind} is {reason}")
    versions = {**programs.surroundings(), **programs.VERSIONS}
    for name, version in sorted(versions.items()):
        terminalreporter.write_line(f"e2e: {name}: {version}")
    for name, problem in sorted(programs.NOT_RUN.items()):
        terminalreporter.write_line(f"e2e: NOT RUN: everything with {name}: {problem}")
