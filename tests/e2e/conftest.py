"""What the suites with real runtimes share: the image, one host with containerd for each file, and the summary."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import image
import programs
import pytest
from machine import Machine, start_containerd


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
def containerd(machine: Machine, archive: Path) -> Machine:
    """The host with containerd and the image, in the namespaces of nerdctl and of Kubernetes."""
    programs.require("containerd", "runc")
    machine.write("/etc/containerd/config.toml", CONTAINERD)
    start_containerd(machine)
    machine.write("/var/lib/who.tar", "")
    machine.file("/var/lib/who.tar").write_bytes(archive.read_bytes())
    for namespace in ("default", "k8s.io"):
        machine.run("ctr", "-n", namespace, "images", "import", "/var/lib/who.tar")
    return machine


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if programs.VERSIONS:
        found = (f"{name}: {version}" for name, version in sorted(programs.VERSIONS.items()))
        terminalreporter.write_line("e2e: " + "; ".join(found))
    for name, problem in sorted(programs.NOT_RUN.items()):
        terminalreporter.write_line(f"e2e: NOT RUN: everything with {name}: {problem}")
