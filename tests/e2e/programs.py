"""The programs under test: where they come from, which version, and what happens where one is missing.

containerd, runc, podman and etcd are the distribution's. Everything else is built once by the go client, at the
versions pinned here, into .cache/e2e of the checkout; flannel and Kubernetes are for tests/cluster. What
cannot be had is not run on a user's machine, which the last lines of the summary say, and a failure in CI.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.scratch import CHECKOUT

CACHE = Path(os.environ.get("NFTCNI_CACHE", CHECKOUT / ".cache")) / "e2e"
BIN = CACHE / "bin"
PACKAGES = {
    "nerdctl": ("github.com/containerd/nerdctl/v2", "v2.3.5", "./cmd/nerdctl"),
    "containerd-rootless.sh": (
        *("github.com/containerd/nerdctl/v2", "v2.3.5", "extras/rootless/containerd-rootless.sh"),
    ),
    "crictl": ("sigs.k8s.io/cri-tools", "v1.34.0", "./cmd/crictl"),
    **{
        f"reference/{path.rsplit('/')[-1]}": ("github.com/containernetworking/plugins", "v1.10.0", f"./plugins/{path}")
        for path in (
            *("main/bridge", "main/ptp", "main/loopback", "ipam/host-local", "ipam/static", "ipam/dhcp"),
            *("meta/portmap", "meta/firewall", "meta/tuning", "meta/bandwidth"),
        )
    },
    "cnitool": ("github.com/containernetworking/cni", "v1.3.0", "./cnitool"),
    # The first line of containerd that asks plugins for their STATUS is newer than any distribution's here.
    "newest/containerd": ("github.com/containerd/containerd/v2", "v2.4.2", "./cmd/containerd"),
    "newest/ctr": ("github.com/containerd/containerd/v2", "v2.4.2", "./cmd/ctr"),
    "newest/containerd-shim-runc-v2": (
        *("github.com/containerd/containerd/v2", "v2.4.2", "./cmd/containerd-shim-runc-v2"),
    ),
    # The meta plugin's home before flannel-io/cni-plugin, which the module proxy does not have.
    "flannel": ("github.com/containernetworking/plugins", "v0.9.1", "./plugins/meta/flannel"),
    "flanneld": ("github.com/flannel-io/flannel", "v0.28.10", "."),
    **{
        name: ("k8s.io/kubernetes", "v1.37.2", f"./cmd/{name}")
        for name in ("kube-proxy", "kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    },
    "e2e.test": ("k8s.io/kubernetes", "v1.37.2", "./test/e2e"),
    "agnhost": ("k8s.io/kubernetes", "v1.37.2", "./test/images/agnhost"),
}
# Of the distribution, unpacked instead of installed: a package would start a service or change what `nc` is.
UNPACKED = {"etcd": "etcd-server", "nc.traditional": "netcat-traditional"}
SEARCHED = f"{os.environ['PATH']}:/usr/sbin:/sbin"
NOT_RUN: dict[str, str] = {}
VERSIONS: dict[str, str] = {}


def require(*names: str) -> None:
    """The programs, or the reason why this is not run."""
    for name in names:
        problem = _find(name)
        if problem:
            NOT_RUN[name] = problem
            words = f"NOT RUN: {name} is missing: {problem}"
            if os.environ.get("CI"):
                pytest.fail(words)
            pytest.skip(words)


@functools.cache
def _find(name: str) -> str:
    """Empty when the program is there, else what is wrong."""
    if name in PACKAGES:
        path: str | None = _built(name)
    elif name in UNPACKED:
        path = _unpacked(name)
    else:
        path = shutil.which(name, path=SEARCHED)
    if not path or path.startswith("cannot"):
        return path or "not installed"
    version = _version(path)
    wanted = PACKAGES[name][1] if name in PACKAGES else ""
    VERSIONS[name] = version or (f"built from {wanted}" if wanted else "tells no version")
    if version and wanted.lstrip("v") not in version:
        return f"it is {version} instead of {wanted}; remove {path}"
    if name == "podman" and int((re.findall(r"\d+", version) or ["0"])[0]) > 4:
        return f"{version} has no CNI"
    return ""


def _version(path: str) -> str:
    """What it says of itself, the line with a number. A script cannot be asked without running it."""
    for word in () if path.endswith(".sh") else ("--version", "-v"):
        done = subprocess.run([path, word], capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines() if done.returncode == 0 else ():
            if re.search(r"\d\.\d", line):
                return " ".join(line.split())
    return ""


def surroundings() -> dict[str, str]:
    """What the plugin itself runs on."""
    nft = shutil.which("nft", path=SEARCHED)
    found = {"nft": _version(nft) if nft else "", "python": _version("/usr/bin/python3"), "kernel": os.uname().release}
    return {name: version or "missing" for name, version in found.items()}


def _built(name: str) -> str:
    """The program's path, made of its module if need be; or `cannot ...`."""
    module, version, package = PACKAGES[name]
    path = BIN / name
    stamp = path.with_name(f".{path.name}")
    wanted = f"{module}@{version}"
    if path.exists() and stamp.exists() and stamp.read_text() == wanted:
        return str(path)
    if not shutil.which("go"):
        return "cannot be built without the go client"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["sh", str(CHECKOUT / "tests" / "e2e" / "build"), module, version, package, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SOURCES": str(CACHE / "src")},
    )
    if done.returncode:
        return f"cannot be built: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
    stamp.write_text(wanted)
    return str(path)


def _unpacked(name: str) -> str:
    """The program's path, out of its package; or `cannot ...`."""
    path = BIN / name
    if path.exists():
        return str(path)
    folder = CACHE / "src" / name
    folder.mkdir(parents=True, exist_ok=True)
    BIN.mkdir(parents=True, exist_ok=True)
    for words in (["apt-get", "download", "-q", UNPACKED[name]], ["sh", "-c", "dpkg -x *.deb ."]):
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"cannot be unpacked: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
    shutil.copy(next(folder.glob(f"**/bin/{name}")), path)
    return str(path)
