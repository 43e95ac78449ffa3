"""Other processors: big-endian, 32 bits, other numbers of ioctls. The wire formats, and the life of two containers."""

from __future__ import annotations

import shutil

import pytest
from kernels.machine import boot
from kernels.suites import OTHER_MACHINES, WIRE, Machine
from support.debian import run

SECONDS = 1800  # some ten times what an idle machine of two cores takes
TESTS = " ".join(f"tests/unit/test_{name}.py" for name in WIRE)
# Not all of hypothesis' examples: an emulated processor takes its time for each.
COMMAND = f"""
python3 -c 'import sys, struct; print("processor", sys.byteorder, 8 * struct.calcsize("P"))'
PYTHONPATH=.:tests:tests/unit python3 -m pytest -q -p no:cacheprovider --tb=short --color=no {TESTS} || exit 1
conf/demo
"""
KINDS = {"s390x": "processor big 64", "ppc64el": "processor little 64", "armhf": "processor little 32"}


@pytest.mark.parametrize("other", OTHER_MACHINES, ids=[machine.processor.name for machine in OTHER_MACHINES])
def test_wire_formats_and_an_attachment(other: Machine, request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--all"):
        pytest.skip(f"NOT RUN: {other.processor.name} needs --all")
    if not shutil.which(other.processor.qemu[0]):
        run("apt-get", "install", "-qq", "-y", "--no-install-recommends", other.processor.package)
    outcome = boot(other, COMMAND, SECONDS)
    assert outcome.status == 0, outcome.console[-6000:]
    assert KINDS[other.processor.name] in outcome.reports
    assert "all well" in outcome.console
