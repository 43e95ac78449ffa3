"""A release of this checkout and of a later version.

nfpm comes from the Go module proxy, lintian and rpm from the distribution.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from building import CACHE, LATER, NFPM, build, commit, run
from support.installed import copied, set_version
from support.scratch import CHECKOUT


@pytest.fixture(scope="session")
def nfpm() -> str:
    """The folder with it."""
    folder = CACHE / f"nfpm-{NFPM}"
    if not (folder / "nfpm").exists():
        run(
            "go", "install", f"github.com/goreleaser/nfpm/v2/cmd/nfpm@{NFPM}", env={"GOBIN": str(folder), "GOFLAGS": ""}
        )
    missing = [name for name in ("lintian", "rpm") if not shutil.which(name)]
    if missing:
        run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing)
    return str(folder)


@pytest.fixture(scope="session")
def repository(version: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commit of what is in this checkout now."""
    folder = copied(tmp_path_factory.mktemp("checkout"), version)
    for name in ("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, folder)
    commit(folder)
    return folder


@pytest.fixture(scope="session")
def release(nfpm: str, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("release")
    build(nfpm, repository, out)
    return out


@pytest.fixture(scope="session")
def later(nfpm: str, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a later version."""
    folder = tmp_path_factory.mktemp("later") / "checkout"
    shutil.copytree(repository, folder)
    set_version(folder, LATER)
    commit(folder)
    out = tmp_path_factory.mktemp("later-release")
    build(nfpm, folder, out)
    return out


@pytest.fixture(scope="session")
def version() -> str:
    return run("conf/nftcni", "--version").split()[1]
