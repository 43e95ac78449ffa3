"""Names in the CNI bin folder that lead back to us: `ipam.type: static`, where `static` is a link to nftcni, made us
call ourselves without end. Everything here ends with its PID namespace, so that a failure is a failure and no storm.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.scratch import CHECKOUT, PLUGIN, Answer, Host, Json, network

NAME = "elsewhere"  # of a plugin that is not ours, now or later
CONFIG = network("net0", ipam={"type": NAME})
VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
# Every start is counted; the one beyond the limit does not happen.
GATE = """#!/bin/sh
echo start >>{log}
[ $(wc -l <{log}) -le {limit} ] || {{ echo '{{"code": 77, "msg": "stopped by the test"}}'; exit 1; }}
exec {program} "$@"
"""
LIMIT = 12


class Bin:
    """A CNI bin folder, and how often something of it was started by way of a gate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        self.log = folder / "log"
        self.log.touch()

    def gate(self, name: str, program: str) -> None:
        path = self.folder / name
        path.write_text(GATE.format(log=self.log, limit=LIMIT, program=program))
        path.chmod(0o755)

    @property
    def starts(self) -> int:
        return len(self.log.read_text().splitlines())

    def call(self, host: Host, verb: str, config: Json = CONFIG, plugin: str = PLUGIN, **env: str) -> Answer:
        """As a runtime calls it, in a PID namespace of its own: what it has started ends with it, in a few seconds."""
        wrapper = self.folder.parent / "limited"
        wrapper.write_text(
            f'#!/bin/sh\nexec unshare --pid --fork --kill-child --mount-proc timeout -s KILL 6 {plugin} "$@"\n'
        )
        wrapper.chmod(0o755)
        return host.cni(verb, config, plugin=str(wrapper), env={"CNI_PATH": str(self.folder), **env})


@pytest.fixture
def bin(tmp_path: Path) -> Bin:
    return Bin(tmp_path)


def stub(path: Path) -> None:
    path.write_text(Path(PLUGIN).read_text())
    path.chmod(0o755)


def installed(path: Path) -> None:
    """What conf/install writes, of another version of the code."""
    path.write_text(f'#!/usr/bin/python3 -IS\nimport sys\n\nsys.path.insert(0, "{CHECKOUT}")\n\n' + MAIN)
    path.chmod(0o755)


MAIN = "from cni.main import main\n\nmain()\n"
WAYS: dict[str, Any] = {
    "a link": lambda path: path.symlink_to(PLUGIN),
    "a link to a link": lambda path: (
        path.with_name("between").symlink_to(PLUGIN),
        path.symlink_to(path.with_name("between")),
    ),
    "a copy": stub,
    "another version's": installed,
}


@pytest.mark.parametrize("way", WAYS)
def test_we_are_never_our_own_delegate(host: Host, bin: Bin, way: str) -> None:
    WAYS[way](bin.folder / NAME)
    host.container("c1")
    before = host.snapshot()
    answer = bin.call(host, "ADD", NFTCNI_DEPTH="2")  # the limit of depth must not be what stops it
    assert answer.code == 7 and NAME in answer.words and "nftcni itself" in answer.words, answer.words
    assert answer.stderr == "" and host.snapshot() == before
    assert bin.call(host, "DEL").status == 0, "what was never started has nothing to undo"
    status = bin.call(host, "STATUS")
    assert status.code == 7 and "nftcni itself" in status.words


def test_a_hard_link_is_the_same_file(host: Host, bin: Bin) -> None:
    shutil.copy(PLUGIN, bin.folder / "nftcni")
    path = bin.folder / "nftcni"
    path.write_text(
        path.read_text().replace("os.path.dirname(os.path.dirname(os.path.realpath(__file__)))", f'"{CHECKOUT}"')
    )
    (bin.folder / NAME).hardlink_to(path)
    host.container("c1")
    answer = bin.call(host, "ADD", plugin=str(path), NFTCNI_DEPTH="2")
    assert answer.code == 7 and "nftcni itself" in answer.words, answer.words


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "STATUS", "DEL", "GC"])
def test_a_circle_by_way_of_others_ends(host: Host, bin: Bin, verb: str) -> None:
    """The other one is a script, as a meta plugin is a program: only the depth tells."""
    bin.gate(NAME, PLUGIN)
    host.container("c1")
    keys = {
        "CHECK": {"prevResult": {"cniVersion": "1.1.0", "ips": []}},
        "GC": {"cni.dev/valid-attachments": []},
    }
    answer = bin.call(host, verb, {**CONFIG, **keys.get(verb, {})})
    assert bin.starts < LIMIT
    if verb != "CHECK":  # which ends at the first: nothing is attached
        assert answer.code == 7 and "in a circle" in answer.words, answer.stdout


def test_a_depth_that_is_no_number_is_none(host: Host, bin: Bin) -> None:
    script = bin.folder / NAME
    script.write_text('#!/bin/sh\n[ $CNI_COMMAND = ADD ] && echo \'{"ips": [{"address": "10.77.0.5/24"}]}\' || true\n')
    script.chmod(0o755)
    host.container("c1")
    for depth in ("", "x", "-3", "²", "9" * 5000, "1"):
        assert bin.call(host, "ADD", NFTCNI_DEPTH=depth).status == 0
        assert bin.call(host, "DEL", NFTCNI_DEPTH=depth).status == 0
    assert bin.call(host, "ADD", NFTCNI_DEPTH="7").code == 7


@pytest.mark.parametrize("verb", VERBS)
def test_a_name_that_is_none_of_ours_is_an_error(host: Host, bin: Bin, verb: str) -> None:
    (bin.folder / NAME).symlink_to(PLUGIN)
    host.container("c1")
    before = host.snapshot()
    config = network("net0", prevResult={"cniVersion": "1.1.0"}, **{"cni.dev/valid-attachments": []})
    answer = host.cni(verb, config, plugin=str(bin.folder / NAME))
    assert answer.status == 1 and answer.code == 7, answer.stdout
    assert NAME in answer.words and "host-local" in answer.words, "which names there are is said"
    assert host.snapshot() == before


@pytest.mark.parametrize("name", ["nftcni", "nftcni.old", "bridge"])
def test_our_own_names_are_answered(host: Host, bin: Bin, name: str) -> None:
    (bin.folder / name).symlink_to(PLUGIN)
    assert host.cni("VERSION", {}, plugin=str(bin.folder / name)).document["supportedVersions"]


@pytest.mark.parametrize("said", ["Segmentation fault", "{", "[1]", ""])
def test_an_answer_that_is_no_result_is_quoted(host: Host, bin: Bin, said: str) -> None:
    script = bin.folder / NAME
    script.write_text(f"#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND != ADD ] || printf '%s' {json.dumps(said)}\n")
    script.chmod(0o755)
    host.container("c1")
    answer = bin.call(host, "ADD")
    assert answer.status == 1 and answer.code in (7, 999)
    assert json.dumps(said)[1:-1] in answer.words if said else "said nothing" in answer.words, answer.words


def test_a_plugin_that_reads_nothing_and_says_much(host: Host, bin: Bin) -> None:
    """More than a pipe holds, both ways."""
    script = bin.folder / NAME
    result = '{"ips": [{"address": "10.77.0.5/24"}]}'
    script.write_text(
        f"#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\nhead -c 300000 /dev/zero | tr '\\0' ' '\necho '{result}'\n"
    )
    script.chmod(0o755)
    host.container("c1")
    answer = bin.call(host, "ADD", {**CONFIG, "filler": "x" * 300000})
    assert answer.status == 0, answer.stdout
