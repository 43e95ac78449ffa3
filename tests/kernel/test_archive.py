"""The installed program: one archive of compiled modules, and the sources where the archive is not to be used.

Which of the two was read is seen by taking the other one away.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.installed import BIN, DROP_IN, LIB, TAG, install
from support.scratch import CHECKOUT, Host, network, port
from support.traffic import Server, ask

PLUGIN = f"{BIN}/nftcni"
ARCHIVE = f"{LIB}/current/archive.{TAG}"
CONFIG = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)])
TOOLS = CHECKOUT / "conf" / "packaging"


# The loader, asked for the modules named.
LOADED = """
import marshal, os, sys
archive = os.open(sys.argv[1], os.O_RDONLY)
head = os.read(archive, 65536)
space = {}
exec(marshal.loads(head[16:]), space)
space["start"](archive, head, "/nowhere", "cni.main")
for name in sys.argv[2:]:
    __import__(name)
print(sys.modules["cni.main"].main.__code__.co_filename)
"""


@pytest.fixture
def installed(fresh: Host) -> Host:
    install(fresh, "--drop-in")
    return fresh


def life(host: Host, plugin: str = PLUGIN) -> None:
    """Everything a runtime and a person call, with traffic in between."""
    before = host.snapshot()
    result = host.add(CONFIG, plugin=plugin)
    with Server(host.place("c1"), 80):
        assert ask(host, "127.0.0.1", 8080) == "c1 10.88.0.1"
    assert host.cni("CHECK", {**CONFIG, "prevResult": result}, plugin=plugin).status == 0
    newest = {**CONFIG, "cniVersion": "1.1.0"}
    assert host.cni("STATUS", newest, plugin=plugin).status == 0
    valid = {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    assert host.cni("GC", {**newest, **valid}, plugin=plugin).status == 0
    assert "net0/c1/eth0" in host.run(plugin, "list")
    assert "Traceback" not in str(host.call(plugin, "doctor"))
    host.nft("flush ruleset")
    host.run(plugin, "repair")
    host.delete(CONFIG, plugin=plugin)
    assert host.snapshot() == before


def test_every_verb_and_command_comes_from_the_archive(installed: Host) -> None:
    installed.run("sh", "-c", f"rm -r {LIB}/current/cni {LIB}/current/nft")
    life(installed)
    for name in DROP_IN:
        answer = installed.cni("VERSION", {"cniVersion": "1.0.0"}, plugin=f"{BIN}/{name}")
        assert "1.0.0" in answer.document["supportedVersions"]
    tuning = {"cniVersion": "1.0.0", "name": "net0", "type": "tuning", "prevResult": {"cniVersion": "1.0.0"}}
    assert installed.cni("ADD", tuning, plugin=f"{BIN}/tuning").status == 0
    assert installed.run(f"{LIB}/current/iptables-answers", "--version").startswith("iptables")


def test_each_module_is_in_it(tmp_path: Path) -> None:
    """They are found in the folders, not named one by one; none of them needs its source."""
    made = build(tmp_path / "code")
    names = [
        str(path.relative_to(CHECKOUT).with_suffix("")).replace("/", ".")
        for folder in ("cni", "nft")
        for path in (CHECKOUT / folder).rglob("*.py")
        if path.name != "__init__.py"
    ]
    assert len(names) > 40
    for folder in ("cni", "nft"):
        shutil.rmtree(tmp_path / "code" / folder)
    done = subprocess.run(
        ["/usr/bin/python3", "-ISc", LOADED, made, *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "/final/cni/main.py\n", "a traceback must find the source's line where it is installed"


def build(folder: Path) -> Path:
    for name in ("cni", "nft"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    words = ["-X", "no_debug_ranges", "-IS", str(TOOLS / "compile_archive.py"), str(folder), "/final"]
    subprocess.run(["/usr/bin/python3", *words], check=True)
    return folder / f"archive.{TAG}"


def test_the_head_is_read_at_once(tmp_path: Path) -> None:
    """The stub reads 64 KiB: loader and index must fit with room for more modules."""
    head = build(tmp_path / "code").read_bytes()[:16]
    assert sum(int.from_bytes(head[place : place + 4], "little") for place in (8, 12)) < 32768


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    assert build(tmp_path / "one").read_bytes() == build(tmp_path / "two").read_bytes()


def damage(kind: str, data: bytes) -> bytes:
    """An archive that must not be used, or only up to where it is damaged."""
    size = len(data)
    return {
        "empty": b"",
        "cut in its head": data[:10],
        "cut in its index": data[:6000],
        "cut at its end": data[:-1],
        "longer than it says": data + b"\0",
        "of another Python": bytes([data[0] ^ 1]) + data[1:],
        "no loader": data[:16] + bytes(4000) + data[4016:],
        "no modules": data[: size // 2] + bytes(size - size // 2),
        "text": b"#" * size,
    }[kind]


DAMAGE = [
    *("empty", "cut in its head", "cut in its index", "cut at its end", "longer than it says", "of another Python"),
    *("no loader", "no modules", "text"),
]


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_archive_is_passed_over(installed: Host, kind: str) -> None:
    archive = installed.file(ARCHIVE)
    archive.write_bytes(damage(kind, archive.read_bytes()))
    life(installed)


@pytest.mark.parametrize(
    "command", ["rm {}", "rm {0}; mkdir {0}", "rm {0}; ln -s loop {0}"], ids=["absent", "folder", "loop"]
)
def test_without_an_archive_the_sources_serve(installed: Host, command: str) -> None:
    installed.run("sh", "-ec", command.format(ARCHIVE))
    life(installed)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_caller_that_closed_a_standard_stream_gets_an_answer_or_a_failure(installed: Host, closed: str) -> None:
    """Never the archive taken for stdin, nor an answer written into it."""
    before = installed.file(ARCHIVE).read_bytes()
    done = installed.call("sh", "-c", f"CNI_COMMAND=VERSION {PLUGIN} {closed}")
    assert installed.file(ARCHIVE).read_bytes() == before
    if ">&-" not in closed.replace("2>&-", ""):
        assert json.loads(done.stdout)["supportedVersions"]
    else:
        assert done.returncode == 1


def test_without_stdin_the_configuration_is_missing(installed: Host) -> None:
    """The archive had got its number, and was read in its place."""
    variables = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0", "CNI_PATH": "/x"}
    for verb in ("ADD", "DEL", "STATUS"):
        done = installed.call("sh", "-c", f"exec {PLUGIN} <&-", env={**variables, "CNI_COMMAND": verb})
        assert done.returncode == 1
        assert "no value at character 0" in json.loads(done.stdout)["msg"], "of an empty stdin"


def test_without_any_code_the_answer_says_so(installed: Host) -> None:
    installed.run("sh", "-c", f"rm -r {LIB}/code-*")
    answer: Any = installed.cni("DEL", CONFIG, plugin=PLUGIN)
    assert answer.status == 1 and "install it again" in answer.document["msg"] and "Traceback" not in answer.stderr
