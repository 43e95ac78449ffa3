"""conf/install on a scratch host whose /etc, /usr and /opt take changes without the machine seeing them.

What is on that host is compared file by file, with `find` as the oracle.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from support.scratch import CHECKOUT, Host

# The reference plugins, networks and iptables of the machine are not those of a fresh host.
FRESH = """
mkdir /run/layers && mount -t tmpfs layers /run/layers
for folder in etc usr; do
    mkdir -p /run/layers/$folder /run/layers/$folder.work
    mount -t overlay -o lowerdir=/$folder,upperdir=/run/layers/$folder,workdir=/run/layers/$folder.work over /$folder
done
mount -t tmpfs empty /opt
rm -rf /etc/cni /usr/local/lib/nftcni /usr/local/sbin/nftcni /usr/local/lib/systemd /etc/systemd/system/*.wants/nftcni*
rm -rf /usr/lib/nftcni /usr/sbin/nftcni /usr/lib/systemd/system/nftcni-*
rm -f /usr/sbin/ip*tables* /usr/bin/ip*tables* /usr/local/sbin/ip*tables*
"""
BIN, NETWORKS, LIB = "/opt/cni/bin", "/etc/cni/net.d", "/usr/local/lib/nftcni"
TAG = subprocess.check_output(
    ["/usr/bin/python3", "-c", "import sys; print(sys.implementation.cache_tag)"], text=True
).strip()
DROP_IN = sorted(("bridge", "ptp", "portmap", "firewall", "tuning", "bandwidth", "host-local", "static", "loopback"))


def install(
    host: Host,
    *words: str,
    status: int = 0,
    checkout: Path = CHECKOUT,
    by: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
) -> str:
    """What conf/install said, on stdout and then stderr."""
    done = host.call(*by, "sh", str(checkout / "conf" / "install"), *words, env=env)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def tree(host: Host, *folders: str) -> list[str]:
    """Every file with its kind, mode, size, link target and time of change; folders without a time. Without the folder
    of networks itself, which stays for a containerd that watches it."""
    places = folders or ("/etc", "/usr/local", "/opt")
    lines = host.run("find", *places, "-type", "d", "-printf", "%p %m\n", "-o", "-printf", "%p %y %m %s %l %T@\n")
    return sorted(line for line in lines.splitlines() if line not in ("/etc/cni 755", f"{NETWORKS} 755"))


def write(host: Host, path: str, text: str, mode: int = 0o755) -> None:
    host.run("mkdir", "-p", str(Path(path).parent))
    host.file(path).write_text(text)
    host.file(path).chmod(mode)


def copied(folder: Path, version: str) -> Path:
    """A checkout of another version."""
    for name in ("cni", "nft", "conf"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    set_version(folder, version)
    return folder


def set_version(checkout: Path, version: str) -> None:
    main = checkout / "cni" / "version.py"
    main.write_text(re.sub('^VERSION = ".*"', f'VERSION = "{version}"', main.read_text(), flags=re.MULTILINE))
