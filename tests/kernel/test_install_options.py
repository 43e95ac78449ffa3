"""Where conf/install writes, and what it starts: DESTDIR, the folders, services of systemd, of OpenRC and of neither.

OpenRC is a stand-in that writes down how it was called, its script is read by a shell.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.installed import BIN, LIB, NETWORKS, install, tree, write
from support.scratch import CHECKOUT, Host, network

CONFIG = network("net0", "10.88.0.0/24")
EVERYWHERE = ("/etc", "/usr", "/opt", "/var")


def new_files(before: list[str], after: list[str]) -> set[str]:
    return {line.split()[0] for line in set(after) - set(before)}


# Where it writes


def test_destdir_takes_everything_without_root(fresh: Host) -> None:
    stage = "/run/stage"
    before = tree(fresh, *EVERYWHERE)
    words = ("--drop-in", "--iptables-answers", "--conflist", "10-nftcni")
    said = install(fresh, *words, env={"DESTDIR": stage}, by=("unshare", "--user"))
    assert "nothing is enabled" in said
    assert tree(fresh, *EVERYWHERE) == before
    staged = new_files([], tree(fresh, stage))
    for path in (
        *(f"{BIN}/nftcni", f"{BIN}/bridge", f"{NETWORKS}/10-nftcni.conflist", f"{LIB}/current"),
        *("/usr/local/sbin/nftcni", "/usr/local/sbin/iptables", "/usr/local/lib/systemd/system/nftcni-watch.service"),
    ):
        assert stage + path in staged


def test_what_was_staged_serves_is_upgraded_and_removed_where_it_is_booted(fresh: Host) -> None:
    before = tree(fresh)
    install(fresh, env={"DESTDIR": "/run/stage"})
    fresh.run("sh", "-ec", "cd /run/stage && tar -c . | tar -x -C /")
    fresh.add(CONFIG, plugin=f"{BIN}/nftcni")
    install(fresh, "--no-units")
    fresh.delete(CONFIG, plugin=f"{BIN}/nftcni")
    install(fresh, "--uninstall")
    left = new_files(before, tree(fresh))
    assert not [path for path in left if "nftcni" in path], left


def test_a_staged_installation_can_be_removed_there(fresh: Host) -> None:
    install(fresh, "--drop-in", env={"DESTDIR": "/run/stage"})
    install(fresh, "--uninstall", env={"DESTDIR": "/run/stage"})
    assert fresh.run("find", "/run/stage", "!", "-type", "d") == ""


@pytest.mark.parametrize(
    "words", [("--prefix", "/opt/all"), ("--lib-dir", "/opt/all/lib"), ("--prefix", "/opt/all", "--no-units")]
)
def test_it_writes_where_the_options_say_and_nowhere_else(fresh: Host, words: tuple[str, ...]) -> None:
    before = tree(fresh, *EVERYWHERE)
    install(fresh, *words, "--bin-dir", "/opt/bin", "--conf-dir", "/opt/networks")
    made = new_files(before, tree(fresh, *EVERYWHERE)) - {"/opt"}
    assert {"/".join(path.split("/")[:3]) for path in made} == {"/opt/all", "/opt/bin", "/opt/networks"}
    assert any(path.endswith(".service") for path in made) == (words == ("--prefix", "/opt/all"))
    fresh.add(CONFIG, plugin="/opt/bin/nftcni")
    fresh.delete(CONFIG, plugin="/opt/bin/nftcni")
    install(fresh, "--uninstall", *words[:2])
    left = new_files(before, tree(fresh, *EVERYWHERE)) - {"/opt"}
    assert left <= {"/opt/networks"}, "a folder that a runtime may watch"


def test_usr_is_a_prefix(fresh: Host) -> None:
    install(fresh, "--prefix", "/usr", "--bin-dir", "/usr/lib/cni")
    assert fresh.run("readlink", "/usr/sbin/nftcni") == "/usr/lib/cni/nftcni\n"
    assert fresh.file("/usr/lib/systemd/system/nftcni-watch.service").exists()
    assert fresh.run("nftcni", "--version").startswith("nftcni ")


# Without a network


def test_nobody_is_asked_for_packages_that_are_there(fresh: Host) -> None:
    """The scratch host has no network at all; a manager that is asked would be seen."""
    write(fresh, "/usr/local/bin/apt-get", "#!/bin/sh\n>/run/asked\nexit 1\n")
    install(fresh)
    assert not fresh.file("/run/asked").exists()


def test_no_packages_installs_without_them_and_says_what_is_missing(fresh: Host) -> None:
    write(fresh, "/usr/local/bin/apt-get", "#!/bin/sh\n>/run/asked\nexit 1\n")
    fresh.run("rm", "-r", "/usr/lib/python3/dist-packages/nftables")
    said = install(fresh, "--no-packages")
    assert "missing: nftables" in said and "answers in" in said
    assert not fresh.file("/run/asked").exists()


# Services


def wanted(host: Host) -> list[str]:
    return sorted(host.run("find", "/etc/systemd/system", "-name", "nftcni*", "-printf", "%P\n").split())


def test_systemd_has_the_watch_and_the_repairs_from_the_next_boot_on(fresh: Host) -> None:
    install(fresh)
    assert wanted(fresh) == [
        "firewalld.service.wants/nftcni-repair@firewalld.service",
        "multi-user.target.wants/nftcni-watch.service",
        "nftables.service.wants/nftcni-repair@nftables.service",
    ]
    install(fresh, "--uninstall")
    assert wanted(fresh) == []


def test_a_running_systemd_is_told(fresh: Host) -> None:
    """A stand-in for systemctl writes down what it is asked."""
    write(fresh, "/usr/bin/systemctl", '#!/bin/sh\necho "$@" >>/run/asked\n')
    fresh.run("mkdir", "-p", "/run/systemd/system")
    install(fresh)
    repairs = "nftcni-repair@nftables.service nftcni-repair@firewalld.service"
    asked = fresh.file("/run/asked")
    assert asked.read_text().splitlines() == [
        "daemon-reload",
        "-q try-restart nftcni-watch.service",
        f"-q enable --now {repairs} nftcni-watch.service",
    ]
    asked.write_text("")
    install(fresh, "--uninstall")
    assert asked.read_text().splitlines() == [
        "-q stop nftcni-watch.service nftcni-repair@*.service",
        "-q disable nftcni-watch.service nftcni-repair@.service",
        "daemon-reload",
    ]


def test_no_units_means_none(fresh: Host) -> None:
    write(fresh, "/usr/bin/systemctl", "#!/bin/sh\n>/run/asked\n")
    install(fresh, "--no-units")
    assert wanted(fresh) == [] and not fresh.file("/usr/local/lib/systemd").exists()
    assert not fresh.file("/run/asked").exists()


@pytest.fixture
def openrc(fresh: Host) -> Host:
    fresh.run("rm", "-f", "/usr/bin/systemctl")
    for name in ("rc-update", "rc-service"):
        write(fresh, f"/usr/local/sbin/{name}", f'#!/bin/sh\necho "{name} $*" >>/run/asked\n')
    fresh.file("/run/asked").touch()
    return fresh


def test_openrc_has_the_watch(openrc: Host) -> None:
    script = openrc.file("/etc/init.d/nftcni-watch")
    openrc.run("mkdir", "/run/openrc")
    install(openrc, "--bin-dir", "/usr/libexec/cni")
    assert os.access(script, os.X_OK)
    names = 'printf "%s\\n" "$command" "$command_args" "$supervisor"'
    order = 'after() { echo after "$@"; }; before() { :; }; depend'
    read = openrc.run("sh", "-euc", f". /etc/init.d/nftcni-watch; {names}; {order}")
    assert read.split("\n")[:4] == ["/usr/libexec/cni/nftcni", "watch", "supervise-daemon", "after nftables firewalld"]
    asked = openrc.file("/run/asked")
    assert asked.read_text().splitlines() == [
        "rc-update -q add nftcni-watch default",
        "rc-service -q nftcni-watch restart",
    ]
    asked.write_text("")
    install(openrc, "--uninstall")
    assert asked.read_text().splitlines() == [
        "rc-service -q nftcni-watch stop",
        "rc-update -q del nftcni-watch default",
    ]
    assert not script.exists()


def test_openrc_that_does_not_run_is_only_configured(openrc: Host) -> None:
    install(openrc)
    assert openrc.file("/run/asked").read_text().splitlines() == ["rc-update -q add nftcni-watch default"]


def test_the_services_of_a_staged_system_are_its_own(fresh: Host) -> None:
    """By what is staged already, an image's root for example; not by what builds it."""
    for stage, files in (("/run/plain", ""), ("/run/alpine", "sbin/openrc-run")):
        if files:
            write(fresh, f"{stage}/{files}", "")
        install(fresh, env={"DESTDIR": stage})
        assert fresh.file(f"{stage}/etc/init.d/nftcni-watch").exists() == bool(files)


def test_without_either_it_says_what_is_missing(fresh: Host) -> None:
    fresh.run("rm", "-f", "/usr/bin/systemctl")
    said = install(fresh)
    assert "no systemd and no OpenRC" in said and f"{BIN}/nftcni watch" in said
    assert not fresh.file("/etc/init.d/nftcni-watch").exists()


# What others add to the checkout


def test_manual_pages_and_completion_go_where_they_are_looked_for(fresh: Host, tmp_path: Path) -> None:
    from support.installed import copied

    checkout = copied(tmp_path, "9.9.9")
    for name in ("man/nftcni.8", "completion/nftcni.bash", "completion/_nftcni", "completion/nftcni.fish"):
        path = checkout / "conf" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{name}\n")
    before = tree(fresh)
    install(fresh, checkout=checkout)
    share = "/usr/local/share"
    for path, text in {
        f"{share}/man/man8/nftcni.8": "man/nftcni.8",
        f"{share}/bash-completion/completions/nftcni": "completion/nftcni.bash",
        f"{share}/zsh/site-functions/_nftcni": "completion/_nftcni",
        f"{share}/fish/vendor_completions.d/nftcni.fish": "completion/nftcni.fish",
    }.items():
        assert fresh.file(path).read_text() == f"{text}\n"
    install(fresh, "--uninstall", checkout=checkout)
    assert tree(fresh) == before


def test_the_checkouts_own_folders_are_found() -> None:
    """A file of a kind that conf/install knows no place for would be left out in silence."""
    pages = [
        path for path in (CHECKOUT / "conf" / "man").glob("*") if path.suffix not in {f".{n}" for n in range(1, 9)}
    ]
    assert not pages, pages
