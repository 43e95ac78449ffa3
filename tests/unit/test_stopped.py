"""What holds a program up, from files as the kernel writes them (proc(5), cgroup-v2.rst)."""

from __future__ import annotations

from pathlib import Path

import pytest

from cni.operate.walk.sockets import Process, stopped


@pytest.mark.parametrize(
    ("state", "frozen", "goes_on"),
    [("S", 0, ""), ("T", 0, "kill -CONT 7"), ("S", 1, "echo 0 > {root}/sys/fs/cgroup/pod/web/cgroup.freeze")],
)
def test_a_program_that_is_held_up(tmp_path: Path, state: str, frozen: int, goes_on: str) -> None:
    for folder in ("proc/7", "sys/fs/cgroup/pod/web"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/7/stat").write_text(f"7 (a) T (b) {state} 1 7 7 0 -1\n")
    (tmp_path / "proc/7/cgroup").write_text("1:name=systemd:/elsewhere\n0::/pod/web\n")
    (tmp_path / "sys/fs/cgroup/pod/web/cgroup.events").write_text(f"populated 1\nfrozen {frozen}\n")
    assert stopped(Process(7, "a", ""), f"{tmp_path}/") == goes_on.format(root=tmp_path)


def test_one_that_has_ended() -> None:
    assert stopped(Process(0, "a", "")) == ""
