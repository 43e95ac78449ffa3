"""The systemd units of conf/: what a private systemd makes of them, and that their commands work with their privileges.

The private systemd is a user's manager in process, mount and cgroup namespaces of its own, with an nftables.service and
a firewalld.service that only write down what happens to them. Whether `repair` and `watch` are right is not asked here.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.scratch import CHECKOUT, PLUGIN, Host, network, port
from support.traffic import open_socket

UNITS = sorted(path for path in (CHECKOUT / "conf" / "systemd").iterdir() if path.suffix in (".service", ".socket"))
REPAIRS = ["nftcni-repair@nftables.service", "nftcni-repair@firewalld.service"]  # as conf/install enables them
FOLDER = "/run/units"
FIREWALL = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'sleep 0.1; echo NAME start >> /run/units/log'
ExecReload=/bin/sh -c 'sleep 0.1; echo NAME reload >> /run/units/log'
ExecStop=/bin/sh -c 'sleep 0.1; echo NAME stop >> /run/units/log'
"""
# systemd keeps its processes apart by cgroups: it gets a folder of its own, which it takes for the root.
MANAGER = """
mkdir -p /run/cgroups /run/systemd/system
mount -t cgroup2 none /run/cgroups
mkdir /run/cgroups/nftcni-units.$$
echo $$ > /run/cgroups/nftcni-units.$$/cgroup.procs
exec unshare --pid --fork --kill-child --mount --cgroup --mount-proc sh -ec '
    mount -t cgroup2 none /sys/fs/cgroup
    "$0" --user --log-target=console
    exit  # a shell that waits: the first process of a namespace cannot be a manager for a user
' "$0"
"""


def needs(*programs: str) -> list[str]:
    """Their paths. Without systemd there is nothing to ask; everything else about the units needs it too."""
    found = [shutil.which(name, path=os.environ["PATH"] + ":/usr/lib/systemd:/lib/systemd") for name in programs]
    if not all(found):
        pytest.skip(f"NOT TESTED: the units in conf/ need {' and '.join(programs)} (package systemd)")
    return [path for path in found if path]


# Valid


def verify(host: Host, *units: str) -> subprocess.CompletedProcess[str]:
    needs("systemd-analyze")
    host.run("mount", "-t", "tmpfs", "empty", "/opt")
    host.run("mkdir", "-p", "/opt/cni/bin")
    host.run("ln", "-s", PLUGIN, "/opt/cni/bin/nftcni")
    return host.call("systemd-analyze", "--man=no", "verify", *units)


def test_systemd_finds_no_fault(host: Host) -> None:
    assert len(UNITS) == 4
    done = verify(host, *map(str, UNITS))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("good", "bad"), [("After=", "Afer="), ("oneshot", "once")])
def test_systemd_would_find_one(host: Host, good: str, bad: str) -> None:
    unit = host.file("/run/nftcni-repair@.service")
    unit.write_text((CHECKOUT / "conf" / "systemd" / "nftcni-repair@.service").read_text().replace(good, bad))
    assert bad.strip("=") in verify(host, "/run/nftcni-repair@.service").stderr


# Followed


class Manager:
    """The private systemd. `step` does one thing to a service and tells what happened, in its order."""

    def __init__(self, host: Host) -> None:
        (program, _) = needs("systemd", "systemctl")
        self.host = host
        host.env.update(XDG_RUNTIME_DIR=FOLDER, XDG_CONFIG_HOME=FOLDER, HOME=FOLDER)
        units = host.file(f"{FOLDER}/systemd/user")
        units.mkdir(parents=True)
        for name in ("nftables", "firewalld"):
            (units / f"{name}.service").write_text(FIREWALL.replace("NAME", name))
        (units / "default.target").write_text("[Unit]\n")
        for unit in UNITS:
            (units / unit.name).write_text(unit.read_text().replace("/opt/cni/bin/nftcni", f"{FOLDER}/nftcni"))
        self.write_program(f"{FOLDER}/nftcni", 'echo "$@" >> /run/units/log; exit 1')
        self.log = host.file(f"{FOLDER}/log")
        self.log.touch()
        with host.file(f"{FOLDER}/said").open("w") as said:
            self._process = host.popen(
                "sh", "-ec", MANAGER, program, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        try:
            self._wait_until_it_answers()
            self.control("enable", *REPAIRS)
            self.control("daemon-reload")
        except BaseException:
            self.close()
            raise

    def write_program(self, path: str, text: str) -> None:
        self.host.file(path).write_text(f"#!/bin/sh\n{text}\n")
        self.host.file(path).chmod(0o755)

    def _wait_until_it_answers(self) -> None:
        for _ in range(100):
            if self._process.poll() is not None:
                break
            if self.call("list-jobs").returncode == 0:
                return
            select.select([], [], [], 0.1)
        raise AssertionError("no private systemd: " + self.host.file(f"{FOLDER}/said").read_text())

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """systemctl from inside of the process namespace: the manager answers nobody whose process it cannot see."""
        inside = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        command = ["nsenter", "-t", *inside[:1], "--pid", "--mount", "systemctl", "--user", "--quiet", *words]
        env = {**os.environ, **self.host.env}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)

    def control(self, *words: str) -> str:
        done = self.call(*words)
        assert done.returncode == 0, f"systemctl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def step(self, *words: str) -> list[str]:
        before = len(self.log.read_text().splitlines())
        self.control(*words)
        wait(lambda: not self.control("list-jobs", "--no-legend").strip())
        return self.log.read_text().splitlines()[before:]

    def close(self) -> None:
        self._process.kill()  # and with it, by --kill-child, every process of its namespace
        self._process.wait()
        wait(self._cgroups_are_gone)

    def _cgroups_are_gone(self) -> bool:
        """A cgroup can be removed once its last process is reaped."""
        ours = ["find", "/run/cgroups", "-depth", "-path", "*/nftcni-units.*", "-type", "d"]
        self.host.call(*ours, "-delete")
        return not self.host.call(*ours).stdout


@pytest.fixture
def manager(host: Host) -> Iterator[Manager]:
    made = Manager(host)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("name", ["nftables", "firewalld"])
def test_repair_follows_the_firewall(manager: Manager, name: str) -> None:
    """Once after each start, restart and reload, though every one of these repairs fails; never after a stop."""
    assert manager.step("start", name) == [f"{name} start", "repair"]
    assert manager.step("reload", name) == [f"{name} reload", "repair"]
    assert manager.step("reload", name) == [f"{name} reload", "repair"]
    assert manager.step("restart", name) == [f"{name} stop", f"{name} start", "repair"]
    assert manager.step("stop", name) == [f"{name} stop"]
    assert manager.step("start", name) == [f"{name} start", "repair"]


def test_repair_follows_both(manager: Manager) -> None:
    """A host may run both services: stopping one does not cut the repair off from the other."""
    assert manager.step("start", "nftables", "firewalld").count("repair") == 2
    assert manager.step("stop", "firewalld") == ["firewalld stop"]
    assert manager.step("restart", "nftables") == ["nftables stop", "nftables start", "repair"]
    assert manager.step("reload", "nftables") == ["nftables reload", "repair"]
    assert manager.step("start", "firewalld")[-1] == "repair"


def test_repair_is_followed_after_it_was_enabled_on_a_running_host(manager: Manager) -> None:
    """conf/install starts it at once, so that the first reload finds it active."""
    assert manager.step("start", *REPAIRS) == ["repair", "repair"]
    assert manager.step("start", "nftables") == ["nftables start"], "the other order is nobody's: it is After="
    assert manager.step("reload", "nftables") == ["nftables reload", "repair"]


def test_the_socket_answers_with_metrics(manager: Manager) -> None:
    """A connection, a program: as curl would ask."""
    host = manager.host
    host.add(network("net0", ports=[port(8080, 80)]))
    manager.write_program(f"{FOLDER}/nftcni", f'exec {PLUGIN} "$@"')
    manager.control("start", "nftcni-metrics.socket")
    for _ in range(2):
        with open_socket(host, socket.AF_INET, "tcp") as asking:
            asking.settimeout(30)
            asking.connect(("127.0.0.1", 9764))
            asking.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b"".join(iter(lambda asking=asking: asking.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.") and b" 200 " in head, answer
        assert f"Content-Length: {len(body)}".encode() in head
        assert b"nftcni_attachments" in body and b'port="0.0.0.0:8080/tcp"' in body


# Their privileges


def as_in(unit: str) -> list[str]:
    """The command of a unit under the capability set that the unit leaves it."""
    text = (CHECKOUT / "conf" / "systemd" / unit).read_text()
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line[1:40])
    sets = [name.lower().removeprefix("cap_") for name in lines["CapabilityBoundingSet"].split()]
    bound = "-all," + ",".join(f"+{name}" for name in sets)
    return ["setpriv", "--no-new-privs", f"--bounding-set={bound}", "--inh-caps=-all", PLUGIN]


@pytest.mark.parametrize(("unit", "command"), [("nftcni-repair@.service", "repair"), ("nftcni-watch.service", "watch")])
def test_the_capabilities_of_a_unit_are_enough(host: Host, unit: str, command: str) -> None:
    """As systemd drops them: after the exec of a program by root, the bounding set is all that is left."""
    config = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)])
    host.add(config)
    before = host.elements()
    words = [*as_in(unit), command]
    if command == "repair":
        host.nft("flush ruleset")
        bridge = config["bridge"]
        wanted = {key: host.sysctl(key) for key in ("ipv4/ip_forward", f"ipv4/conf/{bridge}/route_localnet")}
        assert set(wanted.values()) == {"1"}
        for key in wanted:
            host.set_sysctl(key, "0")
        host.run(*words)
        assert host.elements() == before
        assert {key: host.sysctl(key) for key in wanted} == wanted
        return
    log = host.file("/run/watch.log")
    with log.open("w") as file:
        watcher = host.popen(*words, stdout=file, stderr=file)
    try:
        wait(lambda: "watching" in log.read_text())
        host.nft("flush ruleset")
        wait(lambda: host.elements() == before)
    finally:
        watcher.kill()
        watcher.wait()


def wait(condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        select.select([], [], [], 0.1)
    raise AssertionError("did not happen within 10 s")
