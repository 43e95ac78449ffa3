"""The other packages: what is in them, and what they do on a scratch host: .rpm by rpm itself, the others unpacked.

And the release as a whole: the same bytes twice, its checksums, its bill of materials.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from building import LATER, NAMES, run
from support.installed import DROP_IN, tree
from support.scratch import CHECKOUT, Host, network, port

CONFIG = network("net0", "10.88.0.0/24", ports=[port(8080, 80)])
BIN = {"deb": "usr/lib/cni", "archlinux": "usr/lib/cni", "rpm": "usr/libexec/cni", "apk": "usr/libexec/cni"}
# On Arch /usr/sbin is a link, and pacman refuses a package that has a folder there.
COMMAND = {"deb": "usr/sbin", "rpm": "usr/sbin", "apk": "usr/sbin", "archlinux": "usr/bin"}
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
    share = {"man/man8/nftcni.8.gz", "bash-completion/completions/nftcni", "zsh/site-functions/_nftcni"}
    share |= {"fish/vendor_completions.d/nftcni.fish", "doc/nftcni/README.md", "doc/nftcni/podcidr.template"}
    assert {f"usr/share/{name}" for name in share} <= found
    assert {f"usr/lib/nftcni/drop-in/{name}" for name in ("nftcni", *DROP_IN)} <= found
    units = "lib/systemd/system" if kind == "deb" else "usr/lib/systemd/system"
    services = {f"{units}/{path.name}" for path in (CHECKOUT / "conf" / "systemd").iterdir()}
    assert sources | CONFLISTS | {f"{BIN[kind]}/nftcni", f"{COMMAND[kind]}/nftcni", "usr/lib/nftcni/current"} <= found
    assert ({"etc/init.d/nftcni-watch"} if kind == "apk" else services) <= found
    assert not [
        name for name in found if name.startswith("etc/cni") or "manifest" in name or "/archive.cpython" in name
    ]
    assert kind != "archlinux" or not [name for name in found if name.startswith(("usr/sbin", "bin", "sbin", "lib"))]


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
    back = ("-U", "--nodeps", "--oldpackage", str(release / NAMES["rpm"].format(version)))
    for words in (("-e", "nftcni"), back):
        refused = fresh.call(*rpm, *words)
        assert refused.returncode != 0 and "containers are attached" in refused.stderr
        assert fresh.run("nftcni", "--version") == f"nftcni {LATER}\n"
    fresh.delete(CONFIG, plugin=plugin)
    fresh.run(*rpm, *back)
    assert fresh.run("nftcni", "--version") == f"nftcni {version}\n"
    fresh.run(*rpm, "-e", "nftcni")
    left = {line.split()[0] for line in set(tree(fresh, "/etc", "/usr")) - set(before)}
    assert not [path for path in left if "nftcni" in path], left


UNPACK = {"apk": "gzip -dc {} 2>/dev/null | tar -x --ignore-zeros", "archlinux": "tar -xf {}"}
# By the shells that the managers take: BusyBox' and bash.
SCRIPT = {
    "apk": "PATH=/run/tools:$PATH /run/tools/sh ./.{} {}",
    "archlinux": "bash -c '. ./.INSTALL; \"$@\"' bash {} {}",
}
NAMED = {  # what apk calls it, and pacman
    "installed": ("post-install", "post_install"),
    "upgraded": ("post-upgrade", "post_upgrade"),
    "goes": ("pre-deinstall", "pre_remove"),
    "gone": ("post-deinstall", "post_remove"),
}


@pytest.mark.parametrize("kind", UNPACK)
def test_what_is_unpacked_serves_is_upgraded_and_goes(fresh: Host, release: Path, version: str, kind: str) -> None:
    """With the scripts that its manager would run then. Neither manager minds a script that refuses, so a container
    that is attached keeps its table and its record, and the package that is installed again takes it over."""

    def script(when: str) -> subprocess.CompletedProcess[str]:
        name = NAMED[when][kind == "archlinux"]
        return fresh.call("sh", "-c", f"cd /run/apart; {SCRIPT[kind].format(name, version)}")

    def unpack() -> None:
        fresh.run("sh", "-ec", "cd /run/apart; tar -c usr etc | tar -x --keep-directory-symlink -C /")
        assert script("installed").returncode == 0

    fresh.run("sh", "-ec", "mkdir /run/apart /run/tools; ln -s $(command -v busybox) /run/tools/sh")
    fresh.run("sh", "-ec", f"cd /run/apart; {UNPACK[kind].format(release / NAMES[kind].format(version))}")
    fresh.run(
        "sh", "-ec", "mv /usr/sbin/nft /run/nft; echo 'echo nftables v0.9.8' >/usr/sbin/nft; chmod +x /usr/sbin/nft"
    )
    fresh.run("sed", "-i", "1i #!/bin/sh", "/usr/sbin/nft")
    unpack()
    assert script("upgraded").stderr == "nftcni: nft 0.9.8 is too old, 1.0.0 is needed\n"
    fresh.run("mv", "/run/nft", "/usr/sbin/nft")
    assert script("upgraded").stderr == ""
    assert fresh.run("sh", "-c", "ls /usr/lib/nftcni/current/archive.cpython*").strip()
    fresh.run("sh", "-c", "mkdir /usr/lib/nftcni/code-0; touch /usr/lib/nftcni/code-0/archive.cpython-39")
    assert script("upgraded").returncode == 0
    assert len(fresh.run("sh", "-c", "ls -d /usr/lib/nftcni/code-*").split()) == 1

    plugin = f"/{BIN[kind]}/nftcni"
    fresh.add(CONFIG, plugin=plugin)
    elements, records = fresh.elements(), fresh.state_files()
    refusal = script("goes")
    assert refusal.returncode == 1 and "net0/c1/eth0" in refusal.stderr
    fresh.run("sh", "-c", f"rm -r /usr/lib/nftcni/code-*/cni /usr/lib/nftcni/current {plugin}")
    assert script("gone").returncode == 0
    assert not fresh.file("/usr/lib/nftcni").exists()
    assert (fresh.elements(), fresh.state_files()) == (elements, records)

    unpack()
    fresh.delete(CONFIG, plugin=plugin)
    assert script("goes").returncode == 0
    assert "nftcni" not in fresh.run("nft", "list", "ruleset")
    fresh.run("sh", "-c", f"rm -r /usr/lib/nftcni/code-*/cni /usr/lib/nftcni/current {plugin}")
    assert script("gone").returncode == 0
    assert not fresh.file("/usr/lib/nftcni").exists() and not fresh.file("/run/nftcni").exists()


def test_the_same_commit_gives_the_same_bytes(nfpm: str, repository: Path, release: Path, tmp_path: Path) -> None:
    """Whoever builds it: a clone that a umask has closed, in a folder with a blank, in another zone and language."""
    clone, out = tmp_path / "a clone", tmp_path / "out"
    run("sh", "-c", 'umask 077; git clone -q "$1" "$2"', "sh", str(repository), str(clone))
    assert (clone / "README.md").stat().st_mode & 0o777 == 0o600
    script = 'umask 077; exec conf/packaging/build "$1"'
    env = {"PATH": f"{nfpm}:{os.environ['PATH']}", "TZ": "Pacific/Auckland", "LC_ALL": "tr_TR.ISO-8859-9"}
    run("sh", "-c", script, "sh", str(out), env=env, cwd=clone)
    assert (out / "SHA256SUMS").read_text() == (release / "SHA256SUMS").read_text()


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


def test_the_bill_of_materials_is_valid_by_the_tools_of_spdx(release: Path, version: str) -> None:
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    bill = parse_file(str(release / f"nftcni-{version}.spdx.json"))
    assert [item.validation_message for item in validate_full_spdx_document(bill)] == []
    damaged = parse_file(str(release / f"nftcni-{version}.spdx.json"))
    damaged.packages[0].spdx_id = "nftcni"
    assert validate_full_spdx_document(damaged), "it would say"
