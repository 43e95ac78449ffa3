"""conf/demo, the first thing a newcomer runs: it succeeds, notices every failure, and changes nothing around it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.scratch import CHECKOUT, Host


def demo(host: Host, checkout: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
    return host.call("sh", str(checkout / "conf" / "demo"))


def lines_of(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(word)]


def test_the_demo_fetches_every_page_and_leaves_nothing(host: Host) -> None:
    before = host.snapshot()
    done = demo(host)
    assert done.returncode == 0, done.stdout + done.stderr
    fetched = [line.split() for line in lines_of(done.stdout, "ok ") if " -> " in line]
    origins = {(words[1], ":8080" in words[3], "[" in words[3]) for words in fetched}
    for origin in ("lan", "host", "client"):  # the published port over IPv4 and IPv6
        assert {(origin, True, False), (origin, True, True)} <= origins
    assert "http://127.0.0.1:8080" in {words[3] for words in fetched}
    assert lines_of(done.stdout, "dnat4 ")[0].split()[-1] == "demo/web/eth0"
    assert lines_of(done.stdout, "ok      nothing is left")
    assert not lines_of(done.stdout, "FAILED")
    assert host.snapshot() == before
    assert host.run("nft", "list", "ruleset") == ""
    assert host.run("ls", "/run/netns") == ""


@pytest.mark.parametrize(
    ("sabotage", "says"),
    [
        ("sed s/8080/8081/ | REAL", "conf/demo: 7 checks failed"),
        ('[ "$CNI_COMMAND" = DEL ] || REAL "$@"', "FAILED  left behind:"),
        ('[ "$CNI_COMMAND" != ADD ] || { echo refused; exit 1; }; REAL "$@"', "refused"),
    ],
    ids=["a port is not published", "DEL does nothing", "ADD fails"],
)
def test_the_demo_notices(host: Host, tmp_path: Path, sabotage: str, says: str) -> None:
    """The oracle of the demo itself: a plugin that is broken on purpose makes it fail."""
    shutil.copytree(CHECKOUT / "conf", tmp_path / "conf")
    plugin = tmp_path / "conf" / "nftcni"
    plugin.write_text(f"#!/bin/sh\n{sabotage.replace('REAL', str(CHECKOUT / 'conf' / 'nftcni'))}\n")
    done = demo(host, tmp_path)
    assert done.returncode == 1
    assert says in done.stdout + done.stderr
    assert "all well" not in done.stdout
