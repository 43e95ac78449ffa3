"""dataDir is used only if it is ours: no other user of the host made it, may write there, or led it elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.scratch import Host, Json, network

USER = 1234


def config(folder: str) -> Json:
    return network("net0", dataDir=folder)


@pytest.fixture
def tmp(host: Host) -> Path:
    """A /tmp of the scratch host: everybody may make something there."""
    host.run("mkdir", "-m", "1777", "/run/tmp")
    return host.file("/run/tmp")


def refused(host: Host, folder: str, *words: str) -> None:
    host.container("c1")
    for verb in ("ADD", "STATUS"):
        answer = host.refused(verb, config(folder))
        assert answer.code == 7 and "dataDir" in answer.words and folder in answer.words, answer.words
        for word in words:
            assert word in answer.words, answer.words
    found = list(host.file("/run").rglob("attachments"))
    assert not found


def test_a_folder_of_another_user(host: Host, tmp: Path) -> None:
    (tmp / "state").mkdir()
    os.chown(tmp / "state", USER, USER)
    refused(host, "/run/tmp/state", str(USER))


def test_below_a_folder_of_another_user(host: Host, tmp: Path) -> None:
    (tmp / "home" / "state").mkdir(parents=True)
    os.chown(tmp / "home", USER, USER)
    refused(host, "/run/tmp/home/state", "/run/tmp/home", str(USER))


@pytest.mark.parametrize("target", ["/run/elsewhere", "/run/nobody-made-it", "elsewhere"])
def test_another_users_link(host: Host, tmp: Path, target: str) -> None:
    host.run("mkdir", "/run/elsewhere")
    (tmp / "state").symlink_to(target)
    os.chown(tmp / "state", USER, USER, follow_symlinks=False)
    refused(host, "/run/tmp/state", str(USER))
    assert list(host.file("/run/elsewhere").iterdir()) == []


def test_a_folder_that_everybody_may_write(host: Host) -> None:
    host.run("mkdir", "-m", "777", "/run/open")
    refused(host, "/run/open/state", "every user")
    host.run("mkdir", "-m", "1777", "/run/open/sticky")
    answer = host.cni("ADD", config("/run/open/sticky"))
    assert answer.code == 7


def test_the_hosts_own_folder_that_somebody_has_made_before(host: Host, tmp: Path) -> None:
    """The folder's name can be known: the boot ID is public."""
    (tmp / "state").mkdir()
    host.add(config("/run/tmp/state"))
    (inner,) = (tmp / "state").iterdir()
    host.delete(config("/run/tmp/state"))
    host.run("rm", "-rf", "/run/nftcni", f"/run/tmp/state/{inner.name}")
    host.nft("flush ruleset")
    inner.mkdir()
    os.chown(inner, USER, USER)
    answer = host.refused("ADD", config("/run/tmp/state"))
    assert answer.code == 7 and inner.name in answer.words


def test_a_circle_of_links_and_a_file(host: Host) -> None:
    host.run("ln", "-s", "/run/b", "/run/a")
    host.run("ln", "-s", "/run/a", "/run/b")
    refused(host, "/run/a/state", "circle")
    host.file("/run/file").write_text("")
    assert host.cni("ADD", config("/run/file")).code == 7


@pytest.mark.parametrize("folder", ["/run/tmp/new", "/run/tmp/link", "/run/tmp/../ours", "/run/deep/er/still"])
def test_what_is_ours_is_used(host: Host, tmp: Path, folder: str) -> None:
    """Links of root's, /var/run for example, lead where root wants."""
    host.run("mkdir", "/run/elsewhere")
    (tmp / "link").symlink_to("/run/elsewhere")
    result = host.add(config(folder))
    assert host.cni("CHECK", {**config(folder), "prevResult": result}).words == ""
    host.delete(config(folder))
    assert host.elements() == {} and host.command("list").stdout == ""


@pytest.mark.parametrize("name", ["lock", "new", "pending"])
def test_a_link_where_a_file_of_ours_belongs_is_not_followed(host: Host, name: str) -> None:
    """Whoever could put it there could do worse, so it is somebody's mistake: no file is emptied for it."""
    host.add(network("net0"))
    host.file("/run/victim").write_text("precious")
    (folder,) = host.file("/run/nftcni").iterdir()
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("/run/victim")
    host.cni("ADD", network("net0"))
    host.cni("DEL", network("net0"))
    assert host.file("/run/victim").read_text() == "precious"


def test_the_refusal_says_how_to_close_the_folder(host: Host) -> None:
    """It named as a better place the very folder that it refused."""
    host.add(network("net0", bridge="br0"), "c1")
    host.run("chmod", "777", "/run/nftcni")
    done = host.command("list")
    assert done.returncode == 1 and "chmod o-w /run/nftcni" in done.stderr
    host.run("chmod", "o-w", "/run/nftcni")
    assert host.command("list").returncode == 0
