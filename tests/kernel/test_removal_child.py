"""The child that removes a link while its parent answers: the kernel may keep it for long ("unregister_netdevice:
waiting for veth to become free"), and a runtime may end the parent meanwhile. Nobody else waits for it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from support.scratch import CHECKOUT, PLUGIN, Host, network, port

CONFIG = network("net0", ports=[port(8080, 80)])
KEPT = f"""
import os, signal, sys
sys.path.insert(0, "{CHECKOUT}")
sys.argv[0] = "{PLUGIN}"
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
PATIENCE = 10.0  # seconds until a test gives up; what it takes is a fraction of one


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_it_holds_nothing_when_its_parent_is_killed(host: Host, tmp_path: Path) -> None:
    host.add(CONFIG)
    host.container("c2")
    (tmp_path / "kept.py").write_text(KEPT)
    variables = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_PATH": "/x", "CNI_NETNS": ""}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with host.popen("/usr/bin/python3", "-IS", str(tmp_path / "kept.py"), env=variables, **pipes) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        parent.stdin.write(json.dumps(CONFIG))
        parent.stdin.close()
        end = time.monotonic() + PATIENCE
        child = 0
        while not child or "\nState:\tT" not in Path(f"/proc/{child}/status").read_text():
            assert time.monotonic() < end, "no child was kept"
            child = next(iter(children(parent.pid)), 0)
            time.sleep(0.01)
        try:
            held = {os.readlink(path) for path in Path(f"/proc/{child}/fd").iterdir()}
            assert {name for name in held if not name.startswith("socket:")} == {"/dev/null"}, held
            # Its own, and the parent's two: whoever closes the table's last waits for the kernel.
            assert len([name for name in held if name.startswith("socket:")]) == 3, held
            parent.kill()
            assert parent.stdout.read() == "", "nor does it hold the runtime's pipe"
            answer = host.cni("ADD", {**CONFIG, "runtimeConfig": {}}, "c2")
            assert answer.status == 0, answer.stdout
        finally:
            os.kill(child, signal.SIGKILL)
    host.delete(CONFIG)
    assert "net0/c1/eth0" not in str(host.elements()) and host.place("c1").link("eth0") is None
