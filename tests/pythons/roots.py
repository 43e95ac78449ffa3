"""Root file systems with one Python each, made of Debian packages and kept in the cache, and commands run inside.

A command has network, mount and process namespaces of its own, no network, and a copy of the checkout as /nftcni.
"""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

from pythons.interpreters import USERLAND, Interpreter
from support import debian
from support.debian import Apt, settle, unpack
from support.kept import kept
from support.scratch import CHECKOUT

ENTER = Path(__file__).with_name("enter")
SECONDS = 1500


def root(interpreter: Interpreter) -> Path:
    code = [__file__, debian.__file__]
    what = repr((interpreter, USERLAND))
    return kept(f"python{interpreter.version}", what, code, partial(_make, interpreter)) / "root"


def _make(interpreter: Interpreter, work: Path, made: Path) -> None:
    place = made / "root"
    unpack(Apt(interpreter.among, work / "among").fetch((*USERLAND, *interpreter.modules)), place)
    apt = Apt(interpreter.suite, work / "suite")
    same = interpreter.suite == interpreter.among
    packages = apt.fetch(interpreter.packages) if same else [apt.fetch_alone(name) for name in interpreter.packages]
    unpack(packages, place)
    python = place / "usr/bin/python3"
    python.unlink()
    python.symlink_to(f"python{interpreter.version}")
    settle(place)


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", str(ENTER), str(place), str(CHECKOUT)]
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=SECONDS, check=False)
