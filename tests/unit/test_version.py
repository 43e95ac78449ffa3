"""One version everywhere."""

from __future__ import annotations

import re

from support.scratch import CHECKOUT

from cni.version import VERSION


def test_pyproject_has_the_programs_version() -> None:
    text = (CHECKOUT / "pyproject.toml").read_text()
    assert re.findall('^version = "(.*)"$', text, re.MULTILINE) == [VERSION]
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION), "conf/install and the packages compare it by its numbers"
