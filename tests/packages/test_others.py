"""The other packages: what is in them, and what they do on a scratch host: .rpm by rpm itself, the others unpacked.

And the release as a whole: the same bytes twice, its checksums, its bill of materials.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest
from building import LATER, NAMES, build, run
from support.installed import tree
from support.scratch import CHECKOUT, Host, network, port

CONFIG = network("net0", "10.88.0.0/24", ports=[port(8080, 80)])
BIN = {"deb": "usr/lib/cni", "archlinux": "usr/lib/cni", "rpm": "usr/libexec/cni", "apk": "usr/libexec/cni"}
LISTED = {
    "deb": "dpkg-deb --fsys-tarfile {} | tar -t",
    "rpm": "rpm -qlp {}",
    "apk": "gzip -dc {} 2>/dev/null | tar -t --ignore-zeros",
    "archlinux": "tar -tf {}",
}
CONFLISTS = {f"etc/nftcni/net.d/{path.name}" for path in (CHECKOUT / "conf" / "net.d").glob("*.conflist")}


def contents(kind: str, package: Path) -> set[str]:
    lines = run("sh", "-c", LISTED[kind].format(package)).splitlines()
    return {line.removeprefix("./").strip("/") for line in lines}


@pytest.mark.parametrize("kind", NAMES)
def test_each_package_has_all_of_it(release: Path, version: str, kind: str) -> None:
    found = contents(kind, release / NAMES[kind].format(version))
    code = {name.split("/")[3] for name in found if name.startswith("usr/lib/nftcni/code-")}
    assert len(code) == 1
    prefix = f"usr/lib/nftcni/{code.pop()}"
    sources = {
        f"{prefix}/{path.relative_to(CHECKOUT)}" for top in ("cni", "nft") for path in (CHECKOUT / top).rglob("*.py")
    }
    units = "lib/systemd/system" if kind == "deb" else "usr/lib/systemd/system"
    services = {f"{units}/nftcni-watch.service", f"{units}/nftcni-repair@.service"}
    assert sources | CONFLISTS | {f"{BIN[kind]}/nftcni", "usr/sbin/nftcni", "usr/lib/nftcni/current"} <= found
    assert ({"etc/init.d/nftcni-watch"} if kind == "apk" else services) <= found
    assert not [
        name for name in found if name.startswith("etc/cni") or "manifest" in name or "/archive.cpython" in name
    ]


def test_its_conflists_are_configuration_files(release: Path, version: str) -> None:
    rpm = run("rpm", "-qcp", str(release / NAMES["rpm"].format(version))).split()
    deb = run("dpkg-deb", "-I", str(release / NAMES["deb"].format(version)), "conffiles").split()
    arch = run("tar", "-xOf", str(release / NAMES["archlinux"].format(version)), ".PKGINFO")
    wanted = {f"/{name}" for name in CONFLISTS}
    assert set(rpm) == wanted == set(deb)
    assert set(re.findall("^backup = (.*)$", arch, re.MULTILINE)) == CONFLISTS
    flags = run(
        "rpm", "-qp", "--qf", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]", str(release / NAMES["rpm"].format(version))
    )
    assert {line.split()[1] for line in flags.splitlines() if ".conflist" in line} == {"cn"}, "%config(noreplace)"


def test_they_need_what_the_plugin_needs(release: Path, version: str) -> None:
    rpm = run("rpm", "-qp", "--requires", str(release / NAMES["rpm"].format(version)))
    assert {"/usr/bin/python3", "python3-nftables", "nftables"} <= set(rpm.split())
    apk = run(
        "sh", "-c", f"gzip -dc {release / NAMES['apk'].format(version)} 2>/dev/null | tar -xO --ignore-zeros .PKGINFO"
    )
    assert set(re.findall("^depend = (.*)$", apk, re.MULTILINE)) == {"python3", "py3-nftables", "nftables"}
    arch = run("tar", "-xOf", str(release / NAMES["archlinux"].format(version)), ".PKGINFO")
    assert set(re.findall("^depend = (.*)$", arch, re.MULTILINE)) == {"python", "nftables"}


def test_an_rpm_is_installed_upgraded_and_removed(fresh: Host, release: Path, later: Path, version: str) -> None:
    """By rpm itself, with a database of its own; the dependencies are Debian's here, and not in that."""
    plugin = "/usr/libexec/cni/nftcni"
    rpm = ("rpm", "--dbpath", "/run/rpmdb")
    before = tree(fresh, "/etc", "/usr")
    fresh.run(*rpm, "-i", "--nodeps", str(release / NAMES["rpm"].format(version)))
    assert fresh.run("nftcni", "--version") == f"nftcni {version}\n"
    result = fresh.add(CONFIG, plugin=plugin)
    fresh.run(*rpm, "-U", "--nodeps", str(later / NAMES["rpm"].format(LATER)))
    assert fresh.run("nftcni", "--version") == f"nftcni {LATER}\n"
    codes = fresh.run("sh", "-c", "ls -d /usr/lib/nftcni/code-*; ls /usr/lib/nftcni/current/archive.*").split()
    assert len(codes) == 2, codes
    assert fresh.cni("CHECK", {**CONFIG, "prevResult": result}, plugin=plugin).status == 0
    refused = fresh.call(*rpm, "-e", "nftcni")
    assert refused.returncode != 0 and "containers are attached" in refused.stderr
    fresh.delete(CONFIG, plugin=plugin)
    fresh.run(*rpm, "-e", "nftcni")
    left = {line.split()[0] for line in set(tree(fresh, "/etc", "/usr")) - set(before)}
    assert not [path for path in left if "nftcni" in path], left


UNPACK = {"apk": "gzip -dc {} 2>/dev/null | tar -x --ignore-zeros", "archlinux": "tar -xf {}"}
SCRIPT = {"apk": "sh ./.post-install 0.0", "archlinux": "bash -c '. ./.INSTALL; post_install 0.0'"}


@pytest.mark.parametrize("kind", UNPACK)
def test_what_is_unpacked_serves(fresh: Host, release: Path, version: str, kind: str) -> None:
    """With the script that its manager would run then."""
    package = release / NAMES[kind].format(version)
    fresh.run("sh", "-ec", f"mkdir /run/apart; cd /run/apart; {UNPACK[kind].format(package)}")
    fresh.run("sh", "-ec", "cd /run/apart; tar -c usr etc | tar -x --keep-directory-symlink -C /")
    fresh.run("sh", "-c", f"cd /run/apart; {SCRIPT[kind]}")
    assert fresh.run("sh", "-c", "ls /usr/lib/nftcni/current/archive.cpython*").strip()
    plugin = f"/{BIN[kind]}/nftcni"
    fresh.add(CONFIG, plugin=plugin)
    fresh.delete(CONFIG, plugin=plugin)


def test_the_same_commit_gives_the_same_bytes(nfpm: str, repository: Path, release: Path, tmp_path: Path) -> None:
    build(nfpm, repository, tmp_path)
    assert (tmp_path / "SHA256SUMS").read_text() == (release / "SHA256SUMS").read_text()


def test_the_checksums_are_those_of_all_files(release: Path) -> None:
    listed = dict(reversed(line.split()) for line in (release / "SHA256SUMS").read_text().splitlines())
    assert listed == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in release.iterdir()
        if path.name != "SHA256SUMS"
    }
    assert len(listed) == 6


def test_the_sources_are_the_commit(release: Path, repository: Path, version: str) -> None:
    listed = run("tar", "-tzf", str(release / f"nftcni-{version}.tar.gz")).split()
    files = {name.removeprefix(f"nftcni-{version}/") for name in listed if not name.endswith("/")}
    assert files == set(subprocess.check_output(["git", "ls-files"], cwd=repository, text=True).split())


def test_the_bill_of_materials_names_every_file_and_dependency(release: Path, version: str) -> None:
    """By the fields that SPDX 2.3 makes mandatory."""
    bill = json.loads((release / f"nftcni-{version}.spdx.json").read_text())
    assert bill["spdxVersion"] == "SPDX-2.3" and bill["dataLicense"] == "CC0-1.0"
    names = {item["name"] for item in bill["packages"]}
    assert {"nftcni", "python3", "nftables", "python3-nftables"} <= names
    sums = {item["fileName"][2:]: item["checksums"] for item in bill["files"]}
    assert sums.keys() >= {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "cni").rglob("*.py")}
    for path, entries in sums.items():
        assert [entry["algorithm"] for entry in entries] == ["SHA1", "SHA256"]
        assert entries[1]["checksumValue"] == hashlib.sha256((CHECKOUT / path).read_bytes()).hexdigest()
    known = {item["SPDXID"] for item in [*bill["packages"], *bill["files"]]} | {"SPDXRef-DOCUMENT"}
    for relation in bill["relationships"]:
        assert {relation["spdxElementId"], relation["relatedSpdxElement"]} <= known
