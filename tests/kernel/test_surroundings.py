"""What a caller leaves the plugin with: closed descriptors, a folder that is gone, few files, nobody who reads.

What it says of failures is test_messages, callers' umask and signals are there, too.
"""

from __future__ import annotations

import json
import shlex

import pytest
from support.scratch import PLUGIN, Answer, Host, Json, network, port

CONFIG = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)])


@pytest.fixture
def ready(host: Host) -> Host:
    host.container("c1")
    return host


def by_shell(host: Host, script: str, verb: str, config: Json) -> Answer:
    """`PLUGIN` in the script stands for the plugin."""
    variables = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0"}
    text = script.replace("PLUGIN", shlex.quote(PLUGIN))
    done = host.call("sh", "-c", text, input=json.dumps(config), env={**variables, "CNI_PATH": "/x"})
    return Answer(done.returncode, done.stdout, done.stderr)


def test_closed_stderr_changes_nothing(ready: Host) -> None:
    """Its number went to a socket, and the exit status was 1."""
    before = ready.snapshot()
    result = by_shell(ready, "exec PLUGIN 2>&-", "ADD", CONFIG)
    assert result.status == 0 and len(ready.elements()["attachments"]) == 1
    ready.run("sh", "-c", "truncate -s 0 /run/nftcni/*.*/attachments/net0/c1@eth0")  # DEL has something to say of it
    answer = by_shell(ready, "exec PLUGIN 2>&-", "DEL", CONFIG)
    assert (answer.status, answer.stdout) == (0, "")
    ready.run("sh", "-c", "rm -r /run/nftcni/*.*/damaged")
    assert ready.snapshot() == before


@pytest.mark.parametrize("script", ["exec PLUGIN >&-", "exec PLUGIN >/dev/full", "exec PLUGIN </dev/stdin >&- 2>&-"])
def test_an_answer_that_nobody_can_read_is_no_success(ready: Host, script: str) -> None:
    before = ready.snapshot()
    answer = by_shell(ready, script, "ADD", CONFIG)
    assert answer.status == 1 and answer.stdout == ""
    assert "Traceback" not in answer.stderr
    assert "2>" in script or "stdout" in answer.stderr
    ready.delete(CONFIG)
    assert ready.snapshot() == before


def test_closed_stdin_is_an_error_of_the_configuration(ready: Host) -> None:
    answer = by_shell(ready, "exec PLUGIN <&-", "ADD", CONFIG)
    assert answer.status == 1 and answer.code in (5, 6) and "stdin" in answer.words
    assert ready.link("br-net0") is None


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8, 9, 10, 12, 16])
def test_few_files(ready: Host, number: int) -> None:
    """Each number is too few at another place, or enough."""
    before = ready.snapshot()
    answer = by_shell(ready, f"ulimit -n {number}; exec PLUGIN", "ADD", CONFIG)
    assert "Traceback" not in answer.stderr
    if answer.status == 0:
        assert len(ready.elements()["attachments"]) == 1
        ready.delete(CONFIG)
    elif answer.stdout:
        assert answer.code == 5 and (
            "EMFILE" in answer.words or "Too many open files" in answer.words or "Errno 24" in answer.words
        )
    assert ready.snapshot() == before


@pytest.mark.parametrize(
    "script",
    [
        "mkdir /run/gone; cd /run/gone; rmdir /run/gone; exec PLUGIN",
        "PATH= ; export PATH; exec PLUGIN",
        "LC_ALL=xx_XX; export LC_ALL; exec PLUGIN",
        "PYTHONHOME=/nowhere PYTHONPATH=/nowhere PYTHONWARNINGS=error PYTHONINSPECT=1 exec PLUGIN",
        "ulimit -v 60000; exec PLUGIN",
    ],
    ids=["folder", "path", "locale", "python", "memory"],
)
def test_what_must_not_matter(ready: Host, script: str) -> None:
    before = ready.snapshot()
    answer = by_shell(ready, script, "ADD", CONFIG)
    assert (answer.status, answer.stderr) == (0, "")
    deleted = by_shell(ready, script, "DEL", CONFIG)
    assert (deleted.status, deleted.stdout, deleted.stderr) == (0, "", "")
    assert ready.snapshot() == before
