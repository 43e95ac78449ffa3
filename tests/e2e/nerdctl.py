"""nerdctl as a person types it, on a host with containerd."""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import Any

from machine import Machine, browse, wait_for
from support.scratch import Namespace

IMAGE = "who"
HERE, HERE6 = "198.51.100.1", "2001:db8:100::1"  # the host's own addresses, as its neighbour knows them
NEIGHBOUR, NEIGHBOUR6 = "198.51.100.2", "2001:db8:100::2"


class Nerdctl:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.machine.call(*words)

    def __call__(self, line: str, *words: str) -> str:
        done = self.call("nerdctl", *shlex.split(line), *words)
        assert done.returncode == 0, f"nerdctl {line}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def fails(self, line: str, *words: str) -> str:
        """What it says when it refuses."""
        done = self.call("nerdctl", *shlex.split(line), *words)
        assert done.returncode != 0, f"nerdctl {line} succeeded: {done.stdout}"
        return done.stdout + done.stderr

    def run(self, name: str, options: str = "", command: str = "") -> str:
        """A running container whose web server answers, by its ID."""
        line = f"run -d --pull=never --name {name} --hostname {name} {options} {IMAGE} {command}"
        found = self(line)
        self.ready(name)
        return found

    def ready(self, name: str) -> None:
        """The server needs a moment after the container's start; runc has loopback up before that."""
        inside = self.inside(name)
        wait_for(lambda: browse(inside, "127.0.0.1", 80).startswith(f"{name} "), f"{name}'s web server")

    def inspect(self, name: str) -> Any:
        return json.loads(self(f"inspect {name}"))[0]

    def inside(self, name: str) -> Namespace:
        return self.machine.inside(name, str(self.inspect(name)["State"]["Pid"]))

    def address(self, name: str, link: str = "eth0") -> str:
        """The container's IPv4 address as the kernel has it."""
        found = [item for item in self.inside(name).addresses(link) if ":" not in item]
        return found[0].split("/")[0]

    def clear(self) -> None:
        names = self("ps -aq").split()
        if names:
            self("rm -f", *names)

    def ask(self, address: str, port: int) -> str:
        """Who answers the host itself."""
        return browse(self.machine, address, port)

    def ask_from_outside(self, address: str, port: int) -> str:
        return browse(self.machine.lan, address, port)
