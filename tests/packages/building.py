"""Building the packages, and bare Debian systems to install them on.

The systems come from debootstrap and are kept in .cache; a test changes them in memory only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from support.scratch import CHECKOUT, Host

NFPM = "v2.43.0"
CACHE = CHECKOUT / ".cache"
LATER = "9.9.9"
NAMES = {"deb": "nftcni_{}-1_all.deb", "rpm": "nftcni-{}-1.noarch.rpm", "apk": "nftcni_{}-r1_all.apk"}
NAMES["archlinux"] = "nftcni-{}-1-any.pkg.tar.zst"
MIRROR = "apt-get indextargets --format '$(REPO_URI)' | grep '/debian/*$' | sort -u | head -n 1"
# The system is the scratch host's own, in layers: nothing stays in the folder that debootstrap made.
ROOT = "/run/root"
ENTER = f"""
mkdir {ROOT} /run/layer && mount -t tmpfs layer /run/layer && mkdir /run/layer/upper /run/layer/work
mount -t overlay -o lowerdir=$1,upperdir=/run/layer/upper,workdir=/run/layer/work over {ROOT}
mount -t proc proc {ROOT}/proc
mount -t sysfs sysfs {ROOT}/sys
mount --rbind /dev {ROOT}/dev
mount --bind /run {ROOT}/run
"""


def run(*words: str, env: dict[str, str] | None = None, cwd: Path = CHECKOUT) -> str:
    done = subprocess.run(
        words, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


def commit(folder: Path) -> None:
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    when = {"GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z", "GIT_AUTHOR_DATE": "2026-01-02T03:04:05Z"}
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "as it is"]):
        run("git", *words, cwd=folder, env=when)


def build(nfpm: str, checkout: Path, out: Path, *formats: str) -> None:
    path = f"{nfpm}:{os.environ['PATH']}"
    run(str(checkout / "conf" / "packaging" / "build"), str(out), *formats, env={"PATH": path}, cwd=checkout)


def bare_system(suite: str, packages: list[str]) -> Path:
    root = CACHE / f"bare-{suite}"
    wanted = f"{suite} {' '.join(packages)}"
    made_of = root / ".made-of"
    if not made_of.exists() or made_of.read_text() != wanted:
        mirror = os.environ.get("NFTCNI_DEBIAN_MIRROR") or run("sh", "-c", MIRROR).strip()
        assert mirror, "no mirror of Debian in apt's sources; set NFTCNI_DEBIAN_MIRROR"
        run("rm", "-rf", "--one-file-system", str(root))
        CACHE.mkdir(exist_ok=True)
        run("debootstrap", "--variant=minbase", f"--include={','.join(packages)}", suite, str(root), mirror)
        made_of.write_text(wanted)
    return root


class System:
    """A bare Debian, changed in memory only."""

    def __init__(self, host: Host, root: Path) -> None:
        self.host = host
        host.run("sh", "-ec", ENTER, "sh", str(root))

    def call(self, *words: str, env: dict[str, str] | None = None, input: str = "") -> subprocess.CompletedProcess[str]:
        clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        return self.host.call("chroot", ROOT, *words, env={**clean, **(env or {})}, input=input)

    def run(self, *words: str) -> str:
        done = self.call(*words)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def dpkg(self, *words: str) -> str:
        """Packages are handed in by their paths on this machine."""
        for word in words:
            if word.endswith(".deb"):
                shutil.copy(word, self.file("/tmp"))
        return self.run("dpkg", *(f"/tmp/{Path(word).name}" if word.endswith(".deb") else word for word in words))

    def file(self, path: str) -> Path:
        return self.host.file(ROOT + path)

    def tree(self) -> list[str]:
        places = ("/etc", "/lib/systemd", "/opt", "/usr", "/var/lib/systemd")
        found = self.run(
            "find", *places, "!", "-name", "__pycache__", "!", "-name", "*.pyc", "-printf", "%p %y %m %l\n"
        )
        return sorted(found.splitlines())
