"""conf/demo: the main job, by the executable, with every fetch and nothing left behind."""

from __future__ import annotations

import subprocess

from support.scratch import CHECKOUT


def test_demo() -> None:
    done = subprocess.run([CHECKOUT / "conf/demo"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
