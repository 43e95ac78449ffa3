"""The import diet: which modules each verb loads. Python itself is most of the time that a container waits for.

When this fails it prints the import times; what is new there has to earn its milliseconds or be loaded when needed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.scratch import CHECKOUT, PLUGIN, Host, network, port

PYTHON = "/usr/bin/python3"
# Writes down what is loaded while the lock is held.
UNDER_THE_LOCK = f"""
import sys
from pathlib import Path
sys.path.insert(0, "{CHECKOUT}")
sys.argv.pop(0)
from cni.state.lock import Lock
acquire, release, before = Lock.acquire, Lock.release, set()

def acquired(self, *words):
    acquire(self, *words)
    before.update(sys.modules)

def released(self):
    with open("/run/loaded", "a") as out:
        out.write("\\n".join(sorted(set(sys.modules) - before)))
    release(self)

Lock.acquire, Lock.release = acquired, released
from cni.main import main
main()
"""
FORBIDDEN = {
    *("argparse", "dataclasses", "enum", "functools", "hashlib", "inspect", "ipaddress", "json", "logging", "pathlib"),
    *("re", "random", "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "traceback", "typing"),
    *("nftables", "pyroute2", "site", "ssl", "collections", "contextlib", "ctypes"),
    *("os", "posixpath", "genericpath", "_collections_abc", "stat"),
}
# setns(2) has no binding in Python's os module before 3.12.
ONLY_BEFORE_312 = {"_ctypes"} if sys.version_info < (3, 12) else set()
# Each verb's own modules: what ADD needs is not loaded by VERSION, and so on.
SLOW = {"cni.operate.commands", "cni.operate.watch", "cni.operate.doctor", "cni.dropin.amendment", "cni.dropin.tuning"}
RARE = {
    "cni.recovery",
    "cni.protocol.delegation",
    "cni.verbs.delegated",
    "cni.verbs.garbage",
    "cni.model.flannel",
    *SLOW,
}
ALLOWED_FOR_VERSION = {
    *("cni", "cni.main", "cni.protocol", "nft", "nft.signals", "nft.system"),
    *("cni.stdlib", "cni.protocol.jsontext", "cni.protocol.stdio", "cni.protocol.versions"),
    "cni.protocol.roles",
}
FORBIDDEN_OURS = {
    "CHECK": {"cni.verbs.add", "cni.verbs.status", *RARE},
    "STATUS": {"cni.verbs.add", *RARE},
    "ADD": {
        "cni.verbs.delete",
        "cni.kernel.deletion",
        "cni.withdrawal",
        "cni.rebuilding",
        "cni.verbs.status",
        "cni.verbs.check",
        "cni.verbs.drift",
        "cni.kernel.dumps",
        *RARE,
    },
    "DEL": {"cni.verbs.status", "cni.verbs.check", "cni.verbs.drift", "cni.kernel.dumps", *RARE},
}


def loaded(host: Host, verb: str, config: object, program: str = PLUGIN) -> tuple[set[str], str]:
    """The modules that the verb loads on top of a bare interpreter's, and the table of import times."""
    variables = {
        **{"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1"},
        **{"CNI_IFNAME": "eth0", "CNI_PATH": "/x", "PYTHONDONTWRITEBYTECODE": ""},
    }
    words = (PYTHON, "-X", "importtime", "-IS", program)
    done = host.call(*words, input=json.dumps(config), env=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    return names - bare(), done.stderr


def bare() -> set[str]:
    done = subprocess.run([PYTHON, "-X", "importtime", "-IS", "-c", "pass"], capture_output=True, text=True, check=True)
    return {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.fixture
def steady(host: Host) -> Host:
    """A host on which a container is attached already: the first ADD loads the library that makes the table."""
    host.add(network("net0", "10.88.0.0/24", "fd00:88::/64"), "first")
    host.container("c1")
    return host


@pytest.mark.parametrize("verb", ["VERSION", "STATUS", "ADD", "CHECK", "DEL"])
def test_diet(steady: Host, verb: str) -> None:
    config = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)])
    if verb in ("CHECK", "DEL"):
        config["prevResult"] = steady.add(config)
    names, times = loaded(steady, verb, config)
    heavy = {name for name in names if name.split(".")[0] in FORBIDDEN}
    ours = {name for name in names if name.split(".")[0] in ("cni", "nft")}
    excess = ours - ALLOWED_FOR_VERSION if verb == "VERSION" else ours & FORBIDDEN_OURS[verb]
    assert not heavy and not excess, f"{verb} loads {sorted(heavy | excess)}\n{times}"


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_portmap_loads_no_parser_of_networks(steady: Host, tmp_path: Path, verb: str) -> None:
    before = steady.add(network("net0", "10.88.0.0/24"))
    config = {"cniVersion": before["cniVersion"], "name": "net0", "type": "portmap", "prevResult": before}
    config["runtimeConfig"] = {"portMappings": [port(8080, 80)]}
    (tmp_path / "portmap").symlink_to(PLUGIN)
    names, times = loaded(steady, "ADD", config, str(tmp_path / "portmap"))
    if verb == "DEL":
        names, times = loaded(steady, "DEL", config, str(tmp_path / "portmap"))
    assert not names & {"cni.model.config", "cni.model.ipam", "os", "cni.verbs.add", "cni.verbs.delete"}, times


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_firewalld_is_asked_without_subprocess(steady: Host, tmp_path: Path, verb: str) -> None:
    """Every host with systemd has a bus, whether firewalld runs or not."""
    (tmp_path / "busctl").write_text('#!/bin/sh\necho "$@" >>"$0.calls"\necho b true\n')
    (tmp_path / "busctl").chmod(0o755)
    steady.env.update(PATH=f"{tmp_path}:/usr/sbin:/usr/bin", DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nonexistent")
    before = steady.add(network("net0", "10.88.0.0/24"))
    config = {"cniVersion": before["cniVersion"], "name": "net0", "type": "firewall", "prevResult": before}
    (tmp_path / "firewall").symlink_to(PLUGIN)
    names, times = loaded(steady, "ADD", config, str(tmp_path / "firewall"))
    if verb == "DEL":
        names, times = loaded(steady, "DEL", network("net0", "10.88.0.0/24"))
    assert ("removeSource" if verb == "DEL" else "addSource") in (tmp_path / "busctl.calls").read_text()
    heavy = {name for name in names if name.split(".")[0] in FORBIDDEN}
    assert "cni.firewalld" in names and not heavy, times


def test_foreign_modules_are_these(steady: Host) -> None:
    """Everything that is not ours and not in a bare interpreter, named one by one."""
    names, times = loaded(steady, "ADD", network("net0", ports=[port(8080, 80)]))
    foreign = {name for name in names if name.split(".")[0] not in ("cni", "nft")}
    builtin = {
        "_socket",
        "_struct",
        "struct",
        "_json",
        "_blake2",
        "fcntl",
        "errno",
        "time",
        "_signal",
        "__future__",
        "gc",
    }
    assert foreign - ONLY_BEFORE_312 <= builtin, f"{sorted(foreign)}\n{times}"


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_nothing_is_loaded_while_others_wait_for_the_lock(steady: Host, verb: str) -> None:
    config = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)])
    if verb == "DEL":
        steady.add(config)
    assert loaded_under_the_lock(steady, PLUGIN, verb, config) == []


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_portmap_loads_nothing_while_others_wait_for_the_lock(steady: Host, verb: str) -> None:
    before = steady.add(network("net0", "10.88.0.0/24"))
    config = {"cniVersion": before["cniVersion"], "name": "net0", "type": "portmap", "prevResult": before}
    config["runtimeConfig"] = {"portMappings": [port(8080, 80)]}
    added = loaded_under_the_lock(steady, "/x/portmap", "ADD", config)
    assert (added if verb == "ADD" else loaded_under_the_lock(steady, "/x/portmap", "DEL", config)) == []


def test_firewall_loads_nothing_while_others_wait_for_the_lock(steady: Host) -> None:
    before = steady.add(network("net0", "10.88.0.0/24"))
    config = {"cniVersion": before["cniVersion"], "name": "net0", "type": "firewall", "prevResult": before}
    config["ingressPolicy"] = "same-bridge"
    assert loaded_under_the_lock(steady, "/x/firewall", "ADD", config) == []


def test_tuning_loads_nothing_while_others_wait_for_the_lock(steady: Host) -> None:
    before = steady.add(network("net0", "10.88.0.0/24"))
    config = {"cniVersion": before["cniVersion"], "name": "net0", "type": "tuning", "prevResult": before}
    config["mac"] = "02:11:22:33:44:55"
    assert loaded_under_the_lock(steady, "/x/tuning", "ADD", config) == []


def loaded_under_the_lock(host: Host, program: str, verb: str, config: object) -> list[str]:
    variables = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0"}
    words = (PYTHON, "-ISc", UNDER_THE_LOCK, program)
    host.run("rm", "-f", "/run/loaded")
    done = host.call(*words, input=json.dumps(config), env={**variables, "CNI_PATH": "/x"})
    assert done.returncode == 0, done.stdout
    return host.run("cat", "/run/loaded").split()
