"""The unit tests and one whole life of a container with each Python from 3.9 on."""

from __future__ import annotations

import pytest
from pythons.interpreters import INTERPRETERS, NOT_TO_BE_HAD, Interpreter
from pythons.roots import root, run

each = pytest.mark.parametrize("interpreter", INTERPRETERS, ids=[item.version for item in INTERPRETERS])


@each
def test_an_attachment(interpreter: Interpreter) -> None:
    """conf/demo: two ADDs, traffic, `list`, two DELs, nothing left."""
    done = run(root(interpreter), "conf/demo")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"Python {interpreter.version}." in done.stdout


@each
def test_unit_tests(interpreter: Interpreter) -> None:
    words = ("python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", "--tb=short", "-n2", "tests/unit")
    done = run(root(interpreter), *words)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize("version", NOT_TO_BE_HAD)
def test_not_to_be_had(version: str) -> None:
    pytest.skip(f"NOT RUN: no suite of Debian has Python {version} now, nor has the Python package index")
