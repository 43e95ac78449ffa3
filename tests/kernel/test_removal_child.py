"""The child that removes a link while its parent answers: the kernel may keep it for long ("unregister_netdevice:
waiting for veth to become free"), and a runtime may end the parent meanwhile. Nobody else waits for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scratch import CHECKOUT, PLUGIN, Host, Json, network, port

CONFIG = network("net0", ports=[port(8080, 80)])
START = f"""
import os, posix, signal, sys
sys.path.insert(0, "{CHECKOUT}")
sys.argv[0] = "{PLUGIN}"
"""
KEPT = f"""{START}
from cni.kernel import deletion
parent, ask = os.getpid(), deletion.Netlink.ask

def kept(self, *words):
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGSTOP)  # as long as the kernel keeps it in RTM_DELLINK
    return ask(self, *words)

deletion.Netlink.ask = kept
from cni.main import main
main()
"""
FORKED = f"""{START}
fork = posix.fork

def kept():
    child = fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSTOP)  # before it has closed what it shares with its parent
    return child

posix.fork = kept
from cni.main import main
main()
"""
PATIENCE = 10.0  # seconds until a test gives up; what it takes is a fraction of one


def descendants(process: int) -> list[int]:
    found = [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return [each for child in found for each in (child, *descendants(child))]


def is_stopped(process: int) -> bool:
    return "\nState:\tT" in Path(f"/proc/{process}/status").read_text()


def running(program: Path) -> list[int]:
    """Also who has lost its parent, or was forked a moment ago."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(program) in path.read_text():
                found.append(int(path.parent.name))
    return found


@contextlib.contextmanager
def kept_by(
    host: Host, program: str, folder: Path, config: Json = CONFIG
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A DEL of c1, or a GC of all, and the first of its children that is kept."""
    (folder / "kept.py").write_text(program)
    variables = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_PATH": "/x", "CNI_NETNS": ""}
    if "cni.dev/valid-attachments" in config:
        variables = {"CNI_COMMAND": "GC", "CNI_PATH": "/x"}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    kept: list[int] = []
    with host.popen("/usr/bin/python3", "-IS", str(folder / "kept.py"), env=variables, **pipes) as parent:
        assert parent.stdin is not None
        parent.stdin.write(json.dumps(config))
        parent.stdin.close()
        end = time.monotonic() + PATIENCE
        try:
            while not any(map(is_stopped, kept)):
                assert time.monotonic() < end, "no child was kept"
                kept = descendants(parent.pid)
                time.sleep(0.01)
            yield parent, next(filter(is_stopped, kept))
        finally:
            parent.kill()
            for child in running(folder / "kept.py"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)


def test_it_holds_nothing_when_its_parent_is_killed(host: Host, tmp_path: Path) -> None:
    host.add(CONFIG)
    host.container("c2")
    with kept_by(host, KEPT, tmp_path) as (parent, child):
        held = {os.readlink(path) for path in Path(f"/proc/{child}/fd").iterdir()}
        assert {name for name in held if not name.startswith("socket:")} == {"/dev/null"}, held
        # Its own, and the parent's two: whoever closes the table's last waits for the kernel.
        assert len([name for name in held if name.startswith("socket:")]) == 3, held
        parent.kill()
        assert parent.stdout is not None and parent.stdout.read() == "", "nor does it hold the runtime's pipe"
        answer = host.cni("ADD", {**CONFIG, "runtimeConfig": {}}, "c2")
        assert answer.status == 0, answer.stdout
    host.delete(CONFIG)
    assert "net0/c1/eth0" not in str(host.elements()) and host.place("c1").link("eth0") is None


@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_the_child_never_had_the_lock(host: Host, tmp_path: Path, verb: str) -> None:
    """It was forked under the lock, which is its own as well until it has closed it: a child that is kept before that
    had every verb of the host wait for it, 15 s each."""
    config = CONFIG if verb == "DEL" else {**CONFIG, "cni.dev/valid-attachments": []}
    host.add(CONFIG)
    host.container("c2")
    with kept_by(host, FORKED, tmp_path, config) as (parent, _child):
        parent.kill()
        parent.wait()
        answer = host.cni("ADD", {**CONFIG, "runtimeConfig": {}}, "c2")
        assert answer.status == 0, answer.stdout
        host.delete(CONFIG)
        assert "net0/c1/eth0" not in str(host.elements()) and host.place("c1").link("eth0") is None


@pytest.mark.parametrize("lost", [False, True], ids=["of a record", "without a record"])
def test_a_removal_that_comes_late_does_not_take_the_next_link_of_that_name(
    host: Host, tmp_path: Path, lost: bool
) -> None:
    """The container's namespace took the link with it, so the parent had what it waited for."""
    host.add(CONFIG)
    host.add({**CONFIG, "runtimeConfig": {}}, "c2")  # so that the bridge stays
    if lost:
        host.run("rm", "-rf", "/run/nftcni")
        host.run("nft", "delete", "table", "inet", "nftcni")
    with kept_by(host, KEPT, tmp_path) as (parent, child):
        host.place("c1").run("ip", "link", "del", "eth0")
        assert parent.wait(PATIENCE) == 0
        result = host.add(CONFIG)
        os.kill(child, signal.SIGCONT)
        end = time.monotonic() + PATIENCE
        while Path(f"/proc/{child}").exists():
            assert time.monotonic() < end
            time.sleep(0.01)
    assert host.cni("CHECK", {**CONFIG, "prevResult": result}).words == ""
    host.delete(CONFIG)
