"""CPython's private modules change with its versions (since 3.15 the JSON scanner reads one attribute more): with each
of them broken in turn, every verb answers the same by the public one.

Only our own imports meet the broken one; the public modules stand upon the whole.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.scratch import PLUGIN, Host, network, port

PRIVATE = ("_json", "_socket", "_signal", "_struct", "_blake2", "_ctypes")
BREAK = """
import builtins, sys, types
real = builtins.__import__

class Moved(types.ModuleType):
    def __getattr__(self, name):
        raise {error}("it was moved")

def broken(name, globals=None, *rest):
    mine = ((globals or {{}}).get("__name__") or "").split(".")[0] in ("cni", "nft")
    if mine and name == {module!r}:
        if {when!r} == "import":
            raise {error}("it was moved")
        return Moved(name)
    return real(name, globals, *rest)

builtins.__import__ = broken
if {module!r} == "_ctypes":
    import os
    vars(os).pop("setns", None)
sys.argv = [{plugin!r}, *sys.argv[1:]]
exec(compile(open({plugin!r}).read(), {plugin!r}, "exec"), {{"__name__": "__main__", "__file__": {plugin!r}}})
"""
CONFIG = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80), port(53, 53, "udp")])


def broken(folder: Path, module: str, error: str, when: str) -> str:
    code = folder / "code"
    code.write_text(BREAK.format(module=module, error=error, when=when, plugin=PLUGIN))
    script = folder / "nftcni"
    script.write_text(f'#!/bin/sh\nexec /usr/bin/python3 -IS {code} "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize("module", PRIVATE)
@pytest.mark.parametrize(
    ("error", "when"), [("ImportError", "import"), ("RuntimeError", "import"), ("AttributeError", "use")]
)
def test_every_verb_answers_by_the_public_one(host: Host, tmp_path: Path, module: str, error: str, when: str) -> None:
    plugin = broken(tmp_path, module, error, when)
    host.container("c1")
    before = host.snapshot()
    assert host.cni("VERSION", {}, plugin=plugin).document == host.cni("VERSION", {}).document
    result = host.cni("ADD", CONFIG, plugin=plugin)
    assert result.status == 0, result.stdout + result.stderr
    check = host.cni("CHECK", {**CONFIG, "prevResult": result.document}, plugin=plugin)
    assert check.words == ""
    assert host.cni("STATUS", CONFIG, plugin=plugin).words == ""
    host.delete(CONFIG)
    assert host.add(CONFIG, netns="/run/netns/c1")["interfaces"] == result.document["interfaces"], "the same names"
    host.delete(CONFIG, plugin=plugin)
    assert host.snapshot() == before


SCANNERS = {
    "that reads one attribute more": "def make_scanner(context):\n    context.of_a_version_to_come\n",
    "that reads nothing right": "def make_scanner(context):\n    return lambda text, start: ({}, len(text))\n",
    "that cannot be called": "make_scanner = 5\n",
}


@pytest.mark.parametrize("kind", SCANNERS)
def test_a_scanner(host: Host, tmp_path: Path, kind: str) -> None:
    """Of another version: what it reads must not be wrong in silence."""
    (tmp_path / "run").write_text(
        "import sys, types, _json\nmine = types.ModuleType('_json')\nvars(mine).update(vars(_json))\n"
        f"exec({SCANNERS[kind]!r}, vars(mine))\nimport json\nsys.modules['_json'] = mine\nsys.argv = [{PLUGIN!r}]\n"
        f"exec(compile(open({PLUGIN!r}).read(), {PLUGIN!r}, 'exec'), "
        f"{{'__name__': '__main__', '__file__': {PLUGIN!r}}})\n"
    )
    done = host.call(
        "/usr/bin/python3",
        "-IS",
        str(tmp_path / "run"),
        input='{"cniVersion": "0.4.0", "x": [1.5, "\\u00f6"]}',
        env={"CNI_COMMAND": "VERSION"},
    )
    assert done.returncode == 0 and '"cniVersion":"0.4.0"' in done.stdout, done.stdout + done.stderr


def test_this_python_is_served_by_the_private_ones() -> None:
    """Or nothing above would mean anything."""
    sys.path.insert(0, str(Path(PLUGIN).parents[1]))
    from cni.protocol.jsontext import _scan
    from nft.stdlib import socket

    assert type(_scan).__module__ == "_json" and socket.__module__ == "_socket"
