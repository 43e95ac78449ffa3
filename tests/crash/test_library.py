"""A libnftables that dies, exits or raises: the runtime has its answer; a standing table is worked on without it."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
from support.scratch import Host, network, port

CONFIG = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80), port(53, 53, "udp")])
DEATHS = {
    "segfault": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "abort": "import os; os.abort()",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "exit": "import os; os._exit(3)",
    "sys.exit": "import sys; sys.exit(0)",
    "exit-0": "import os; os._exit(0)",
    "raises": "raise RuntimeError('broken')",
    "syntax": "this is not Python",
}
# A map with concatenated data, which the JSON of nft before 1.1.0 turns into a set; a rule that uses it is then fatal.
FOREIGN = """{"nftables": [{"add": {"table": {"family": "inet", "name": "other"}}},
{"add": {"map": {"family": "inet", "table": "other", "name": "m", "type": "inet_service",
"map": ["ipv4_addr", "inet_service"]}}}]}"""


def break_library(host: Host, code: str) -> None:
    """In the host's mount namespace alone. Returns once the replacement is what that host sees."""
    found = [Path(folder, "nftables", "__init__.py") for folder in ("/usr/lib/python3/dist-packages", *sys.path)]
    module = next((path for path in found if path.is_file()), None)
    assert module is not None, "needs the distribution's package python3-nftables"
    host.run("mount", "-t", "tmpfs", "none", str(module.parent))
    host.file(str(module)).write_text(code + "\n")


@pytest.mark.parametrize("death", DEATHS)
def test_the_first_add_says_what_died_and_leaves_nothing(host: Host, tally: Counter[str], death: str) -> None:
    host.container("c1")
    host.delete(CONFIG)  # folders are made
    break_library(host, DEATHS[death])
    tally["injected"] += 1
    answer = host.refused("ADD", CONFIG)
    assert answer.code == 5 and "nftables" in answer.words
    host.delete(CONFIG)


@pytest.mark.parametrize("death", DEATHS)
def test_a_table_that_stands_needs_no_library(host: Host, tally: Counter[str], death: str) -> None:
    host.add(CONFIG)
    host.delete(CONFIG)
    before = host.snapshot()
    break_library(host, DEATHS[death])
    tally["injected"] += 1
    result = host.add(CONFIG)
    check = host.cni("CHECK", {**CONFIG, "prevResult": result})
    assert check.status == 0, check.words
    assert host.add(CONFIG) == result
    host.delete(CONFIG)
    assert host.snapshot() == before


@pytest.mark.parametrize("table", ["fresh", "standing"])
def test_beside_a_ruleset_that_crashes_nft(host: Host, table: str) -> None:
    """Whatever the installed nft makes of it, the answer is one, and only a table that is missing may be refused."""
    host.container("c1")
    if table == "standing":
        host.add(CONFIG)
        host.delete(CONFIG)
    made = host.call("nft", "-j", "-f", "-", input=FOREIGN)
    assert made.returncode == 0, made.stderr
    before = host.snapshot()
    answer = host.cni("ADD", CONFIG)
    assert answer.status == 0 or (table == "fresh" and answer.code == 5), answer.stdout + answer.stderr
    host.delete(CONFIG)
    assert host.snapshot() == before
