"""podman as a person types it, on a host where it runs without systemd and without all capabilities."""

from __future__ import annotations

import json
from pathlib import Path

import programs
from machine import Machine, browse, wait_for
from support.scratch import Namespace

CONTAINERS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
seccomp_profile = "unconfined"
apparmor_profile = "unconfined"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""
STORAGE = '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n'
POLICY = {"default": [{"type": "insecureAcceptAnything"}]}


class Podman:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def __call__(self, *words: str) -> str:
        return self.machine.run("podman", *words).strip()

    def run(self, name: str, *options: str) -> None:
        self("run", "-d", "--pull=never", "--name", name, "--hostname", name, *options, "docker.io/library/who")
        self.ready(name)

    def ready(self, name: str) -> None:
        wait_for(lambda: browse(self.inside(name), "127.0.0.1", 80).startswith(f"{name} "), f"{name}'s web server")

    def inside(self, name: str) -> Namespace:
        return self.machine.inside(name, self("inspect", "-f", "{{.State.Pid}}", name))

    def address(self, name: str) -> str:
        return next(item for item in self.inside(name).addresses("eth0") if ":" not in item).split("/")[0]


def prepare(machine: Machine, archive: Path, settings: str) -> Podman:
    """With these settings besides what the host needs, and the image."""
    programs.require("podman", "runc", "conmon")
    machine.write("/etc/containers/containers.conf", CONTAINERS + settings)
    machine.write("/etc/containers/storage.conf", STORAGE)
    machine.write("/etc/containers/policy.json", json.dumps(POLICY))
    machine.write("/var/lib/who.tar", "")
    machine.file("/var/lib/who.tar").write_bytes(archive.read_bytes())
    podman = Podman(machine)
    podman("load", "-q", "-i", "/var/lib/who.tar")
    return podman
