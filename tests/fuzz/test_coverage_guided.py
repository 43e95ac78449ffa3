"""A few seconds of atheris for each parser. The long run is described in coverage_guided.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.targets import TARGETS

SECONDS = int(os.environ.get("NFTCNI_FUZZ_SECONDS", "5"))


@pytest.mark.parametrize("name", TARGETS)
def test_coverage_guided(name: str, tmp_path: Path, figures: dict[str, int]) -> None:
    script = str(Path(__file__).with_name("coverage_guided.py"))
    words = [sys.executable, script, name, f"-max_total_time={SECONDS}", "-timeout=5", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS + 60, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.search(r"Done (\d+) runs", done.stderr)
    assert found and int(found[1]) > 1000, done.stderr[-500:]
    figures["inputs"] += int(found[1])
