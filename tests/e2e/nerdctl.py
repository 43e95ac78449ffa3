"""nerdctl as a person types it, on a host with containerd."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import readme
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

    def fails(self, line: str, *reasons: str) -> None:
        """A refusal must say why, in each of these words."""
        done = self.call("nerdctl", *shlex.split(line))
        assert done.returncode != 0, f"nerdctl {line} succeeded: {done.stdout}"
        said = done.stdout + done.stderr
        assert reasons and all(reason in said for reason in reasons), f"nerdctl {line}: {said}"

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


COMPOSE = """
services:
  web:
    image: who
    hostname: web
    pull_policy: never
    ports: ["8080:80"]
  db:
    image: who
    hostname: db
    pull_policy: never
"""


@contextlib.contextmanager
def composed(nerdctl: Nerdctl, networks: str = "") -> Iterator[tuple[str, str]]:
    """Two services by the README's commands, by the names of their containers; none is left afterwards."""
    machine = nerdctl.machine
    up, down = readme.commands("nerdctl compose")
    before, known = machine.snapshot(), set(nerdctl("network ls --format '{{.Name}}'").split())
    machine.write("/run/project/compose.yaml", COMPOSE + networks)
    machine.run("sh", "-ec", f"cd /run/project; {up}")
    web, db = sorted(nerdctl("ps --format '{{.Names}}'").split(), reverse=True)
    assert "web" in web and "db" in db
    wait_for(lambda: nerdctl.ask_from_outside(HERE, 8080) == f"web {NEIGHBOUR}", "the published service")
    for name in ("web", web):
        said = nerdctl(f"exec {db} wget -qO- http://{name}/cgi-bin/who")
        expected = [f"web {item.split('/')[0]}" for item in nerdctl.inside(db).addresses("eth0")]
        assert said in expected, f"{db} asks {name}: {said}, not one of {expected}"  # in any order in /etc/hosts
    yield web, db
    machine.run("sh", "-ec", f"cd /run/project; {down}")
    left = nerdctl("ps -aq").split(), set(nerdctl("network ls --format '{{.Name}}'").split()) - {*known, "bridge"}
    assert left == ([], set()), f"left by {down}: {left}"
    wait_for(lambda: machine.snapshot() == before, "nothing left of the project")
