"""Callers that are not as careful as libcni: an open stdin, an unwritable stderr, a blocked signal, another locale.

What they leave to us is inherited by every process, so the tests start the plugin as such a caller does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from support.scratch import PLUGIN, Host, Json, network, port

CONFIG = network("net0", ports=[port(8080, 80)])
PATIENCE = 20  # seconds until a test gives up; what it takes is a fraction of one
PIPE = subprocess.PIPE


def variables(verb: str, container: str = "c1", netns: str | None = None) -> dict[str, str]:
    return {
        **{"CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0", "CNI_PATH": "/x"},
        "CNI_NETNS": f"/run/netns/{container}" if netns is None else netns,
    }


# VERSION


def version(host: Host, written: str, closed: bool = False) -> Json:
    with host.popen(PLUGIN, env={"CNI_COMMAND": "VERSION"}, stdin=PIPE, stdout=PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(written)
            process.stdin.flush()
            if closed:
                process.stdin.close()
            assert process.wait(PATIENCE) == 0, "it waits for more"
            return json.loads(process.stdout.read())
        finally:
            process.kill()


def test_version_waits_for_nobody(host: Host) -> None:
    """The reference plugins' VERSION never reads; a caller may leave stdin open and write nothing."""
    assert "1.1.0" in version(host, "")["supportedVersions"]


@pytest.mark.parametrize("closed", [True, False])
def test_version_echoes_what_is_there(host: Host, closed: bool) -> None:
    assert version(host, '{"cniVersion": "0.4.0"}', closed)["cniVersion"] == "0.4.0"


# stderr


@contextlib.contextmanager
def full() -> Iterator[IO[Any]]:
    with open("/dev/full", "wb") as file:
        yield file


@contextlib.contextmanager
def without_a_reader() -> Iterator[IO[Any]]:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as file:
        yield file


@pytest.mark.parametrize("stderr", [full, without_a_reader])
@pytest.mark.parametrize("verb", ["DEL", "GC", "ADD"])
def test_what_nobody_reads_makes_nothing_fail(host: Host, verb: str, stderr: Any) -> None:
    """A record that was lost is told on stderr; a DEL that fails for that would fail for ever."""
    host.add(CONFIG)
    (record,) = host.file("/run/nftcni").glob("*/attachments/net0/c1@eth0")
    record.unlink()
    config = json.dumps({**CONFIG, "cni.dev/valid-attachments": []})
    with stderr() as file, host.popen(PLUGIN, env=variables(verb), stdin=PIPE, stdout=PIPE, stderr=file) as process:
        out, _ = process.communicate(config, PATIENCE)
    assert process.returncode == 0, out
    host.delete(CONFIG)
    assert host.elements() == {} and host.state_files() == []


# Signals


def test_the_lock_is_waited_for_a_bounded_time_whatever_signals_are_blocked(host: Host) -> None:
    """A blocked SIGALRM, also one that is pending, passes through execve(2)."""
    host.add(CONFIG)
    (path,) = host.file("/run/nftcni").glob("*/lock")

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        signal.alarm(1)

    with path.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        options = {"stdin": PIPE, "stdout": PIPE, "preexec_fn": block}
        with host.popen(PLUGIN, env=variables("DEL"), **options) as process:
            try:
                out, _ = process.communicate(json.dumps(CONFIG), 15 + PATIENCE)
            finally:
                process.kill()
    assert process.returncode == 1 and json.loads(out)["code"] == 11, out


# The locale


def latin1(folder: Path) -> dict[str, str]:
    done = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / "de_DE.ISO-8859-1")],
        capture_output=True,
        text=True,
    )
    if not (folder / "de_DE.ISO-8859-1").is_dir():
        pytest.skip(f"NOT RUN: a Latin-1 locale needs localedef and the package locales: {done.stderr[:80]}")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE.ISO-8859-1"}


@pytest.mark.parametrize("first", ["Latin-1", "UTF-8"])
def test_a_path_is_the_same_in_every_locale(host: Host, first: str) -> None:
    """The kernel's bytes are UTF-8 in JSON: what ADD said in one locale is what CHECK finds in the other."""
    with tempfile.TemporaryDirectory() as name:
        locales = {"Latin-1": latin1(Path(name)), "UTF-8": {"LC_ALL": "C.UTF-8"}}
        host.run("ip", "netns", "add", "cö")
        netns, config = "/run/netns/cö", network("net0", dataDir="/run/zustände")
        added = host.cni("ADD", config, netns=netns, env=locales[first])
        assert added.status == 0, added.stdout
        assert added.document["interfaces"][-1]["sandbox"] == netns
        assert host.file("/run/zustände").is_dir()
        for locale in locales.values():
            check = host.cni("CHECK", {**config, "prevResult": added.document}, netns=netns, env=locale)
            assert check.words == ""
        host.delete(config, netns=netns, env=locales["Latin-1" if first == "UTF-8" else "UTF-8"])
        assert not [path for path in host.state_files() if "/" in path] and host.elements() == {}
