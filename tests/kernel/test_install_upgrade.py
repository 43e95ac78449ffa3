"""An upgrade of a host that serves containers: several bin folders, older layouts, a kill at every step, and back.

The versions are copies of this checkout with other numbers; what a runtime finds under a name is asked by running it.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
from support.installed import BIN, LIB, copied, install, set_version, tree, write
from support.scratch import CHECKOUT, Host, network, port
from support.traffic import Server, ask, open_socket

CONFIG = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)])
SECOND = "/opt/nftcni/bin"


def versions(host: Host, *folders: str) -> set[str]:
    return {host.run(f"{folder}/nftcni", "--version").split()[1] for folder in folders or (BIN, SECOND)}


def both(host: Host, checkout: Path) -> None:
    """As the README says it for the CRI and for nerdctl on one host."""
    install(host, "--no-units", checkout=checkout)
    install(host, "--no-units", "--drop-in", "--bin-dir", SECOND, "--conflist", "none", checkout=checkout)


# Several bin folders


@pytest.mark.parametrize("words", [(), ("--drop-in", "--bin-dir", SECOND)], ids=["plain", "of one folder"])
def test_one_upgrade_serves_every_bin_folder(fresh: Host, tmp_path: Path, words: tuple[str, ...]) -> None:
    checkout = copied(tmp_path, "9.0.0")
    both(fresh, checkout)
    before = fresh.snapshot()
    fresh.add(CONFIG, "c1", plugin=f"{BIN}/nftcni")
    for number in (1, 2, 3):
        set_version(checkout, f"9.0.{number}")
        install(fresh, "--no-units", *words, checkout=checkout)
        assert versions(fresh) == {f"9.0.{number}"}
    assert json.loads(fresh.cni("VERSION", CONFIG, plugin=f"{SECOND}/portmap").stdout)["supportedVersions"]
    with Server(fresh.place("c1"), 80):
        assert ask(fresh, "127.0.0.1", 8080) == "c1 10.88.0.1"
    fresh.delete(CONFIG, "c1", plugin=f"{BIN}/nftcni")
    assert fresh.snapshot() == before


def test_a_plain_upgrade_adds_no_bin_folder(fresh: Host, tmp_path: Path) -> None:
    checkout = copied(tmp_path, "9.0.0")
    install(fresh, "--bin-dir", SECOND, checkout=checkout)
    set_version(checkout, "9.0.1")
    install(fresh, checkout=checkout)
    assert not fresh.file(BIN).exists()
    assert versions(fresh, SECOND, "/usr/local/sbin") == {"9.0.1"}


def test_a_bin_folder_that_was_removed_or_changed_is_left_so(fresh: Host, tmp_path: Path) -> None:
    checkout = copied(tmp_path, "9.0.0")
    both(fresh, checkout)
    fresh.run("rm", "-r", SECOND)
    set_version(checkout, "9.0.1")
    assert f"left {SECOND}/nftcni" in install(fresh, checkout=checkout)
    assert not fresh.file(SECOND).exists()
    write(fresh, f"{SECOND}/nftcni", "mine")
    assert f"left {SECOND}/nftcni" in install(fresh, checkout=checkout)
    assert fresh.file(f"{SECOND}/nftcni").read_text() == "mine"


def test_a_watch_that_runs_goes_on_through_upgrades(fresh: Host, tmp_path: Path) -> None:
    """It loads `repair` only when it needs it, when its own version's code is gone."""
    checkout = copied(tmp_path, "9.0.0")
    install(fresh, checkout=checkout)
    fresh.add(CONFIG, "c1", plugin=f"{BIN}/nftcni")
    elements = fresh.elements()
    with fresh.popen("sh", "-c", f"exec {BIN}/nftcni watch >/run/watch.log 2>&1") as watch:
        try:
            wait_for(lambda: "watching" in fresh.run("cat", "/run/watch.log", check=False))
            for number in (1, 2, 3):
                set_version(checkout, f"9.0.{number}")
                install(fresh, "--no-units", checkout=checkout)
            assert len(code_folders(fresh)) == 2
            fresh.nft("flush ruleset")
            wait_for(lambda: fresh.elements() == elements)
        finally:
            watch.kill()


def wait_for(condition: object) -> None:
    assert callable(condition)
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"did not happen within 10 s: {condition}")


def code_folders(host: Host) -> list[str]:
    return host.run("find", LIB, "-mindepth", "1", "-maxdepth", "1", "-type", "d").split()


def test_what_an_older_version_attached_passes_check_right_after_an_upgrade(fresh: Host, tmp_path: Path) -> None:
    """Its table had that version's rules until the next ADD or the next start of a watch; nothing of either is here. A
    connection through a published port goes on meanwhile."""
    checkout = copied(tmp_path, "0.0.1")
    rules = checkout / "nft" / "ruleset.py"
    text = rules.read_text()
    assert text.count("\t\tct state related accept\n") == 1
    rules.write_text(text.replace("\t\tct state related accept\n", ""))
    install(fresh, "--no-units", checkout=checkout)
    previous = {"prevResult": fresh.add(CONFIG, "c1", plugin=f"{BIN}/nftcni")}
    with fresh.place("c1").entered():
        listener = socket.create_server(("0.0.0.0", 80))
    with listener, open_socket(fresh, socket.AF_INET, "tcp") as client:
        client.settimeout(10)
        client.connect(("127.0.0.1", 8080))
        server, _ = listener.accept()
        server.settimeout(10)
        with server:
            said = install(fresh, "--no-units")
            for one, other in ((client, server), (server, client)):
                one.sendall(b"still here")
                assert other.recv(100) == b"still here"
    assert "restored net0/c1/eth0" in said
    answer = fresh.cni("CHECK", {**CONFIG, **previous}, "c1", plugin=f"{BIN}/nftcni")
    assert answer.status == 0, answer.words
    with Server(fresh.place("c1"), 80):
        assert ask(fresh, "127.0.0.1", 8080) == "c1 10.88.0.1"
        assert "restored" not in install(fresh, "--no-units"), "nothing is touched that is right"
    fresh.delete(CONFIG, "c1", plugin=f"{BIN}/nftcni")


# The layout of 0.1.0: stubs that name the code's folder themselves


OLD_STUB = """#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "{code}")

from cni.main import main

main()
"""


def install_old(host: Host, checkout: Path, code: str, bin_dir: str) -> None:
    """What conf/install of 0.1.0 left: the code, a stub for one bin folder, and both on the list."""
    folder = f"{LIB}/{code}"
    host.run("mkdir", "-p", folder, bin_dir)
    host.run("cp", "-r", str(checkout / "cni"), str(checkout / "nft"), folder)
    write(host, f"{bin_dir}/nftcni", OLD_STUB.format(code=folder))
    mark = host.run("sha256sum", f"{bin_dir}/nftcni").split()[0]
    with host.file(f"{LIB}/manifest").open("a") as manifest:
        manifest.write(f"code - {folder}\nfile {mark} {bin_dir}/nftcni\n")


def test_an_installation_of_the_old_layout_is_upgraded_in_all_its_bin_folders(fresh: Host, tmp_path: Path) -> None:
    checkout = copied(tmp_path, "0.0.1")
    install_old(fresh, checkout, "0123456789abcdef", BIN)
    set_version(checkout, "0.0.2")
    install_old(fresh, checkout, "fedcba9876543210", SECOND)
    fresh.add(CONFIG, "c1", plugin=f"{BIN}/nftcni")
    set_version(checkout, "9.0.0")
    install(fresh, "--no-units", checkout=checkout)
    assert versions(fresh) == {"9.0.0"}
    fresh.delete(CONFIG, "c1", plugin=f"{BIN}/nftcni")
    install(fresh, "--uninstall", checkout=checkout)
    assert fresh.run("find", BIN, SECOND, LIB, "!", "-type", "d") == ""


def test_code_that_a_stub_still_names_is_never_removed(fresh: Host, tmp_path: Path) -> None:
    """One that somebody changed is left alone, with what it needs."""
    checkout = copied(tmp_path, "0.0.1")
    install_old(fresh, checkout, "0123456789abcdef", SECOND)
    stub = fresh.file(f"{SECOND}/nftcni")
    stub.write_text(stub.read_text().replace("import sys\n", "import sys  # mine\n"))
    for number in (1, 2, 3):
        set_version(checkout, f"9.0.{number}")
        install(fresh, "--no-units", "--bin-dir", BIN, checkout=checkout)
    assert versions(fresh, SECOND) == {"0.0.1"} and versions(fresh, BIN) == {"9.0.3"}
    assert len(code_folders(fresh)) == 3


# Back to an older version


def test_an_older_version_is_refused_unless_forced(fresh: Host, tmp_path: Path) -> None:
    checkout = copied(tmp_path, "9.10.0")
    install(fresh, checkout=checkout)
    set_version(checkout, "9.9.0")
    before = tree(fresh)
    said = install(fresh, checkout=checkout, status=1)
    assert "9.10.0 is installed, this is 9.9.0" in said
    assert tree(fresh) == before
    install(fresh, "--force", checkout=checkout)
    assert versions(fresh, BIN) == {"9.9.0"}


# Killed


TOOLS = ("mv", "ln", "rm", "chmod", "mkdir")  # whatever changes something that is not aside
# Counts the steps of an installation; before the one that is chosen it ends the installation and itself.
STEP = """#!/bin/sh
[ -e /run/steps/off ] || {
    step=$(($(/bin/cat /run/steps/count) + 1))
    echo $step >/run/steps/count
    [ $step != "$(/bin/cat /run/steps/last)" ] || kill -KILL 0
}
exec /bin/TOOL "$@"
"""


def killed(host: Host, checkout: Path, last: int, *words: str) -> bool:
    """Whether the installation came to its step number `last`."""
    host.file("/run/steps/count").write_text("0")
    host.file("/run/steps/last").write_text(str(last))
    env = {"PATH": "/run/steps/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    done = host.call("setsid", "--wait", "sh", str(checkout / "conf" / "install"), "--no-units", *words, env=env)
    assert done.returncode in (0, -9), done.stdout + done.stderr
    return done.returncode != 0


@pytest.fixture
def stepped(fresh: Host) -> Host:
    for tool in TOOLS:
        write(fresh, f"/run/steps/bin/{tool}", STEP.replace("TOOL", tool))
    return fresh


def clear(host: Host) -> None:
    host.run("sh", "-c", f"rm -rf /opt/* {LIB} /usr/local/sbin/nftcni /etc/cni")
    host.run("find", "/usr/local/share", "-name", "*nftcni*", "-delete")


def restore(host: Host) -> None:
    clear(host)
    host.run("tar", "-C", "/", "-xf", "/run/saved.tar")


def test_a_kill_at_any_step_of_an_upgrade_leaves_one_version_whole(stepped: Host, tmp_path: Path) -> None:
    """In each bin folder the same one; what was attached before is detached by it; and the next call finishes it."""
    checkout = copied(tmp_path, "9.0.0")
    both(stepped, checkout)
    places = ("opt/cni", "opt/nftcni", LIB[1:], "usr/local/sbin/nftcni", "etc/cni")
    stepped.run("tar", "-C", "/", "-cf", "/run/saved.tar", *places)
    set_version(checkout, "9.0.1")
    seen: list[str] = []
    step = 0
    while True:
        step += 1
        interrupted = killed(stepped, checkout, step)
        found = versions(stepped)
        assert len(found) == 1, f"step {step}: {found}"
        seen += found
        if not interrupted:
            break
        if step % 7 == 0:
            install(stepped, "--no-units", checkout=checkout)
            assert versions(stepped) == {"9.0.1"}
            install(stepped, "--uninstall", checkout=checkout)
            assert not [line for line in tree(stepped, "/opt", "/usr/local") if "nftcni" in line], f"step {step}"
        restore(stepped)
    assert seen == sorted(seen) and set(seen) == {"9.0.0", "9.0.1"}, "old up to one step, then new"
    assert len(seen) > 20


def test_a_kill_during_the_first_installation_leaves_nothing_that_half_works(stepped: Host) -> None:
    before = tree(stepped)
    step = 0
    while True:
        step += 3  # each third: the others are the same to whoever calls the plugin
        interrupted = killed(stepped, CHECKOUT, step, "--drop-in")
        if stepped.file(f"{BIN}/nftcni").exists():
            assert stepped.run(f"{BIN}/nftcni", "--version")
        if not interrupted:
            break
        if step % 7 == 0 or not stepped.file(f"{LIB}/manifest").exists():
            install(stepped, "--no-units", "--drop-in")
            assert stepped.run(f"{BIN}/bridge", "--version")
        if step % 7 in (0, 3) and stepped.file(f"{LIB}/manifest").exists():
            install(stepped, "--uninstall")
            left = [line for line in tree(stepped) if line not in before and "nftcni" in line]
            assert not left, f"step {step}: {left}"
        clear(stepped)
    assert step > 20


def test_a_kill_at_any_step_of_uninstalling_can_be_finished_or_undone(stepped: Host) -> None:
    """What is left is whole or gone for a runtime; each second time it is installed again first."""
    before = [line for line in tree(stepped, "/opt", "/usr/local") if "nftcni" in line]
    both(stepped, CHECKOUT)
    stepped.run(
        "tar", "-C", "/", "-cf", "/run/saved.tar", "opt", LIB[1:], "usr/local/sbin", "usr/local/share", "etc/cni"
    )
    step = 0
    while True:
        step += 3  # each third step, and after every second of those it is installed again
        interrupted = killed(stepped, CHECKOUT, step, "--uninstall")
        for folder in (BIN, SECOND):
            if stepped.file(f"{folder}/nftcni").exists():
                assert stepped.run(f"{folder}/nftcni", "--version")
        if not interrupted:
            break
        if step % 2 == 0:
            both(stepped, CHECKOUT)
            assert stepped.run(f"{SECOND}/bridge", "--version")
        if stepped.file(f"{LIB}/manifest").exists():
            install(stepped, "--uninstall")
        left = [line for line in tree(stepped, "/opt", "/usr/local") if "nftcni" in line and line not in before]
        assert not left, f"step {step}: {left}"
        restore(stepped)
    assert step > 10
