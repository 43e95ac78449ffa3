"""A userland whose nft cannot load the table: that is said by its name, and nothing is changed."""

from __future__ import annotations

from support.scratch import Host, network

WORDS = "is too old, 1.0.0 is needed"


def test_add_refuses(host: Host) -> None:
    host.container("c1")
    answer = host.refused("ADD", network("net0", "10.88.0.0/24", "fd00:88::/64"))
    assert WORDS in answer.words and answer.words.startswith("nft 0.9."), answer.words
    assert host.link("br-net0") is None and host.run("nft", "list", "tables") == ""


def test_status_refuses(host: Host) -> None:
    answer = host.refused("STATUS", network())
    assert answer.code == 50 and WORDS in answer.words, answer.words


def test_doctor_tells(host: Host) -> None:
    done = host.command("doctor")
    assert done.returncode == 1 and WORDS in done.stdout, done.stdout


def test_install_refuses(host: Host) -> None:
    before = host.run("find", "/etc", "/usr", "-maxdepth", "3")
    done = host.call("conf/install")
    assert done.returncode == 1 and WORDS in done.stderr, done.stdout + done.stderr
    assert host.run("find", "/etc", "/usr", "-maxdepth", "3") == before and not host.file("/opt").exists()
