"""The .deb in bare Debian systems: installed, upgraded under a container, refused, removed and purged; lintian."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from building import LATER, NAMES, System, bare_system
from support.scratch import CHECKOUT, Answer, Host, Json, network, port
from support.traffic import Server, ask

SUITES = {"bookworm": "12", "trixie": "13"}
CONFIG = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)])
LIB = "/usr/lib/nftcni"
EDITED = "/etc/nftcni/net.d/10-nftcni.conflist"
# Not clean: no bug of Debian asked for this package; and as long as conf/man is not there.
EXCEPTIONS = ["initial-upload-closes-no-bugs", *([] if (CHECKOUT / "conf" / "man").is_dir() else ["no-manual-page"])]


@pytest.fixture(params=SUITES)
def system(request: pytest.FixtureRequest, host: Host, release: Path, version: str) -> System:
    deb = release / NAMES["deb"].format(version)
    fields = subprocess.check_output(["dpkg-deb", "-f", str(deb), "Depends"], text=True)
    needed = re.findall(r"(?:^|, )([a-z0-9.+-]+)", fields)
    assert len(needed) == 3
    made = System(host, bare_system(request.param, sorted(needed)))
    assert made.file("/etc/debian_version").read_text().startswith(SUITES[request.param])
    return made


def cni(system: System, verb: str, config: Json = CONFIG, plugin: str = "/usr/lib/cni/nftcni") -> Answer:
    # What is mounted on the scratch host later is seen by its own root only.
    netns = f"/proc/{system.host.pid}/root/run/netns/c1"
    env = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": netns, "CNI_IFNAME": "eth0"}
    done = system.call(plugin, env={**env, "CNI_PATH": "/usr/lib/cni"}, input=json.dumps(config))
    return Answer(done.returncode, done.stdout, done.stderr)


def archives(system: System) -> list[str]:
    found = system.run("find", LIB, "-name", "archive.*")
    return found.split()


def test_its_whole_life(system: System, release: Path, later: Path, version: str) -> None:
    before = system.tree()
    host = system.host
    system.dpkg("-i", str(release / NAMES["deb"].format(version)))
    assert len(archives(system)) == 1, "compiled for this system's Python"
    assert system.run("nftcni", "--version") == f"nftcni {version}\n"
    assert not system.file("/etc/cni").exists(), "no network is switched on unasked"
    assert system.file("/etc/systemd/system/multi-user.target.wants/nftcni-watch.service").is_symlink()
    for name in ("nftables", "firewalld"):
        wants = f"/lib/systemd/system/{name}.service.wants/nftcni-repair@{name}.service"
        assert system.run("readlink", "-f", wants).endswith("/nftcni-repair@.service\n")

    network_before = host.snapshot()
    container = host.container("c1")
    result = cni(system, "ADD").document
    assert result.get("ips"), result
    assert "1.0.0" in cni(system, "VERSION", plugin=f"{LIB}/drop-in/portmap").document["supportedVersions"]
    system.file(EDITED).write_text("{}")
    with Server(container, 80):
        assert ask(host, "127.0.0.1", 8080) == "c1 10.88.0.1"
        said = system.dpkg("-i", str(later / NAMES["deb"].format(LATER)))
        assert "not empty" not in said
        assert system.run("nftcni", "--version") == f"nftcni {LATER}\n"
        assert ask(host, "127.0.0.1", 8080) == "c1 10.88.0.1"
    assert system.file(EDITED).read_text() == "{}"
    assert len(system.run("sh", "-c", f"ls -d {LIB}/code-*").split()) == 1 and len(archives(system)) == 1
    assert cni(system, "CHECK", {**CONFIG, "prevResult": result}).status == 0

    for words in (["-i", f"/tmp/{NAMES['deb'].format(version)}"], ["-r", "nftcni"]):
        done = system.call("dpkg", *words)
        assert done.returncode != 0 and "containers are attached" in done.stderr, done.stderr
        assert system.run("nftcni", "--version") == f"nftcni {LATER}\n"
    assert cni(system, "DEL").status == 0
    assert host.snapshot() == network_before

    system.run("dpkg", "-r", "nftcni")
    left = {line.split()[0] for line in set(system.tree()) - set(before)}
    conffiles = {path for path in left if path.startswith("/etc/nftcni")}
    assert EDITED in conffiles and not system.file(LIB).exists()
    system.run("dpkg", "-P", "nftcni")
    assert system.tree() == before
    assert "nftcni" not in host.run("nft", "list", "ruleset")


def test_another_python_gets_its_archive(system: System, release: Path, version: str) -> None:
    """dpkg's trigger tells of it; until then the sources serve."""
    system.dpkg("-i", str(release / NAMES["deb"].format(version)))
    made = archives(system)
    system.run("rm", *made)
    assert system.run("nftcni", "--version") == f"nftcni {version}\n"
    system.run("dpkg-trigger", "--by-package=python3-minimal", "--no-await", "/usr/bin/python3")
    system.run("dpkg", "--triggers-only", "-a")
    assert archives(system) == made


def test_it_comes_and_goes_over_what_conf_install_put_there(system: System, release: Path, version: str) -> None:
    """Both serve meanwhile, from the same records; the other one's service is enabled afterwards as it was before."""
    checkout = system.file("/run/checkout")
    shutil.copytree(CHECKOUT / "cni", checkout / "cni")
    shutil.copytree(CHECKOUT / "nft", checkout / "nft")
    shutil.copytree(CHECKOUT / "conf", checkout / "conf")
    system.run("sh", "/run/checkout/conf/install", "--no-packages", "--conflist", "none")
    # Neither systemd nor its systemctl is in a bare system: what they would have done.
    unit = "/usr/local/lib/systemd/system/nftcni-watch.service"
    wants = "/etc/systemd/system/multi-user.target.wants"
    system.run("sh", "-ec", f"mkdir -p $(dirname {unit}) {wants}; echo >{unit}; ln -s {unit} {wants}")
    before = system.tree()
    deb = str(release / NAMES["deb"].format(version))
    system.dpkg("-i", deb)
    system.host.container("c1")
    assert cni(system, "ADD").status == 0
    assert cni(system, "DEL", plugin="/opt/cni/bin/nftcni").status == 0
    system.run("dpkg", "-P", "nftcni")
    assert system.tree() == before
    assert system.run("/opt/cni/bin/nftcni", "--version") == f"nftcni {version}\n"


def test_lintian_has_nothing_to_say(release: Path, version: str) -> None:
    assert shutil.which("lintian")
    words = [
        "lintian",
        "--allow-root",
        "--suppress-tags",
        ",".join(EXCEPTIONS),
        str(release / NAMES["deb"].format(version)),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
