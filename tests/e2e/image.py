"""The images of the suites, made of the distribution's static busybox: a web server that says whom it sees, and others.

Archives as `docker save` writes them, which ctr, nerdctl and podman read. Nothing comes from a registry.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "docker.io/library/who:latest"
BUSYBOX = Path("/bin/busybox")
APPLETS = ["sh", "httpd", "wget", "ip", "cat", "echo", "grep", "hostname", "ping", "true", "sleep"]
SERVER = {"Cmd": ["httpd", "-f", "-h", "/www"], "ExposedPorts": {"80/tcp": {}}}
WHO = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
from=${REMOTE_ADDR#[}
from=${from%]}
echo "$(hostname) ${from#::ffff:}"
"""


def archive(
    path: Path, *names: str, starts: Mapping[str, Any] = SERVER, files: Mapping[str, Path] | None = None
) -> None:
    """`starts` is what the image's configuration says of its first process, `files` what is there besides busybox, or
    in place of its applets."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in ("bin", "etc", "tmp", "www", "www/cgi-bin"):
            _add(tar, folder, kind=tarfile.DIRTYPE)
        _add(tar, "bin/busybox", BUSYBOX.read_bytes())
        for applet in APPLETS:
            if f"bin/{applet}" in (files or {}):
                continue
            _add(tar, f"bin/{applet}", kind=tarfile.SYMTYPE, target="busybox")
        _add(tar, "www/cgi-bin/who", WHO.encode())
        _add(tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
        for place, source in (files or {}).items():
            _add(tar, place, source.read_bytes())
    data = layer.getvalue()
    config = {
        "architecture": "amd64" if Path("/lib64/ld-linux-x86-64.so.2").exists() else "arm64",
        "os": "linux",
        # The first process of a container ignores SIGTERM, and nobody should wait for that.
        "config": {"Env": ["PATH=/bin"], "StopSignal": "SIGKILL", **starts},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest()]},
        "history": [{"created_by": "tests/e2e"}],
    }
    text = json.dumps(config).encode()
    name = hashlib.sha256(text).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": names or [NAME], "Layers": ["layer.tar"]}]
    with tarfile.open(path, mode="w") as tar:
        _add(tar, name, text)
        _add(tar, "layer.tar", data)
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.mode, member.linkname = kind, len(data), 0o755, target
    tar.addfile(member, io.BytesIO(data))
