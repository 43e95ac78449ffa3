"""`pip install .`: it works, from an environment of its own that sees the distribution's nftables module."""

from __future__ import annotations

import sys
from pathlib import Path

from building import run
from support.scratch import Host, network, port
from support.traffic import Server, ask

CONFIG = network("net0", "10.88.0.0/24", ports=[port(8080, 80)])


def test_what_pip_installs_serves(host: Host, repository: Path, tmp_path: Path, version: str) -> None:
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--system-site-packages", str(environment))
    run(str(environment / "bin" / "pip"), "install", "-q", str(repository))
    plugin = environment / "bin" / "nftcni"
    assert host.run(str(plugin), "--version") == f"nftcni {version}\n"
    before = host.snapshot()
    host.add(CONFIG, plugin=str(plugin))
    with Server(host.place("c1"), 80):
        assert ask(host, "127.0.0.1", 8080) == "c1 10.88.0.1"
    host.delete(CONFIG, plugin=str(plugin))
    assert host.snapshot() == before
    named = tmp_path / "portmap"
    named.symlink_to(plugin)
    assert "0.4.0" in host.cni("VERSION", {"cniVersion": "1.0.0"}, plugin=str(named)).document["supportedVersions"]
