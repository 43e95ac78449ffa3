"""conf/install in odd places: links for folders, blanks, file systems that cannot be written, a closed umask, a C
locale; SELinux, whose tools are stand-ins that write down what they are asked; beside a package of the distribution.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.installed import BIN, DROP_IN, LIB, NETWORKS, copied, install, set_version, tree, write
from support.scratch import CHECKOUT, Host, network, port
from support.traffic import Server

CONFIG = network("net0", "10.88.0.0/24", ports=[port(8080, 80)])


# Links


@pytest.mark.parametrize("link", ["/opt/cni/bin", "/usr/local", "/etc/cni"])
def test_a_folder_that_is_a_link_is_one_folder_by_each_of_its_names(fresh: Host, tmp_path: Path, link: str) -> None:
    """OSTree has /usr/local and /opt as links. Named by an option it had another spelling than the default, and the
    next call took its own files for somebody else's."""
    fresh.run("sh", "-ec", f"mkdir -p $(dirname {link}) /opt/real; [ ! -d {link} ] || mv {link} {link}.was")
    fresh.run("ln", "-s", "/opt/real", link)
    before = tree(fresh, "/etc", "/usr/local", "/opt")
    checkout = copied(tmp_path, "9.0.0")
    options = ("--prefix", "/usr/local", "--bin-dir", BIN, "--conf-dir", NETWORKS)
    real = tuple(word.replace(link, "/opt/real") for word in options)
    for number, words in enumerate(((), options, real, (), real, options)):
        set_version(checkout, f"9.0.{number}")
        install(fresh, "--no-units", *words, checkout=checkout)
        assert fresh.run(f"{BIN}/nftcni", "--version") == f"nftcni 9.0.{number}\n"
    assert fresh.run("cat", f"{LIB}/manifest").count(f" {BIN}/nftcni\n") == 1
    install(fresh, "--uninstall", *real[:2], checkout=checkout)
    left = [line for line in tree(fresh, "/etc", "/usr/local", "/opt") if line not in before]
    assert not [line for line in left if "nftcni" in line or " f " in line], left


# Blanks, and folders from where somebody stands


@pytest.mark.parametrize("stage", ["a stage/of mine", "stage", "./stage/"])
def test_destdir_may_have_blanks_and_begin_where_one_stands(fresh: Host, stage: str) -> None:
    fresh.run("mkdir", "/run/here")
    for words in ("--drop-in", "--drop-in", "--uninstall"):
        script = f'cd /run/here; exec env "DESTDIR=$1" sh {CHECKOUT}/conf/install {words}'
        done = fresh.call("sh", "-ec", script, "sh", stage)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        names = fresh.run("find", f"/run/here/{stage}", "-name", "portmap")
        assert len(names.splitlines()) == (words == "--drop-in")
    assert fresh.run("find", "/run/here", "!", "-type", "d") == ""


# What cannot be written


def test_a_read_only_usr_is_said_before_anything_is_done_and_another_prefix_helps(fresh: Host) -> None:
    fresh.run("sh", "-ec", "mount --bind /usr /usr && mount -o remount,bind,ro /usr")
    before = tree(fresh)
    said = install(fresh, status=1)
    assert "/usr/local" in said and "cannot be written to" in said and "--prefix" in said
    assert tree(fresh) == before
    install(fresh, "--prefix", "/opt/nftcni")
    fresh.add(CONFIG, plugin=f"{BIN}/nftcni")
    fresh.delete(CONFIG, plugin=f"{BIN}/nftcni")
    install(fresh, "--uninstall", "--prefix", "/opt/nftcni")
    assert tree(fresh) == before


def test_programs_may_be_forbidden_in_tmp(fresh: Host) -> None:
    fresh.run("mkdir", "/run/checkout")  # ours may be in /tmp
    fresh.run("cp", "-r", *(str(CHECKOUT / name) for name in ("cni", "nft", "conf")), "/run/checkout")
    fresh.run("mount", "-t", "tmpfs", "-o", "noexec", "tmp", "/tmp")
    install(fresh, checkout=Path("/run/checkout"))
    assert fresh.run("nftcni", "--version").startswith("nftcni ")


# Whoever calls it


def test_a_closed_umask_closes_nothing(fresh: Host) -> None:
    """Of who installs it, and of who made the checkout. A folder that was there keeps its mode."""
    copy = "mkdir /run/w; umask 077; for f in cni nft conf; do cp -r --no-preserve=mode $0/$f /run/w; done"
    fresh.run("sh", "-ec", copy, str(CHECKOUT))
    fresh.run("sh", "-c", "chmod -R u+x /run/w/conf; umask 077; sh /run/w/conf/install --drop-in --conflist 10-nftcni")
    paths = fresh.file(f"{LIB}/manifest").read_text().splitlines()
    places = [line.split(" ", 2)[2] for line in paths]
    assert len(places) > 20
    assert fresh.run("find", *places, "!", "-type", "l", "!", "-perm", "-444") == ""
    assert fresh.run("find", *places, "-type", "d", "!", "-perm", "-111") == ""
    assert fresh.run("find", f"{BIN}/nftcni", f"{LIB}/current/iptables-answers", "!", "-perm", "755") == ""


@pytest.mark.parametrize("locale", ["C", "de_DE.ISO-8859-1"])
def test_no_locale_matters(fresh: Host, locale: str) -> None:
    fresh.env.update(LC_ALL=locale, LANG=locale, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    before = tree(fresh)
    install(fresh, "--drop-in")
    fresh.add(CONFIG, plugin=f"{BIN}/nftcni")
    with Server(fresh.place("c1"), 80):
        for words in (["list"], ["ports"], ["graph"], ["explain", "8080"], ["--help"]):
            done = fresh.call("nftcni", *words)
            assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    fresh.delete(CONFIG, plugin=f"{BIN}/nftcni")
    install(fresh, "--uninstall")
    assert tree(fresh) == before


# SELinux


def test_selinux_labels_are_put_right_before_services_start(fresh: Host) -> None:
    """By the policy's own path patterns; what was made in /opt would be usr_t, not bin_t. Not where it is off."""
    for name in ("selinuxenabled", "restorecon", "systemctl"):
        write(fresh, f"/usr/local/sbin/{name}", f'#!/bin/sh\necho "{name} $*" >>/run/asked\n')
    install(fresh, "--drop-in", "--bin-dir", "/opt/nftcni/bin")
    asked = fresh.file("/run/asked").read_text().splitlines()
    labelled = [line for line in asked if line.startswith("restorecon")]
    paths = {path for line in labelled for path in line.split()[1:]}
    assert {"/opt/nftcni/bin", "/opt/nftcni/bin/nftcni", LIB, "/usr/local/sbin/nftcni", "-R"} <= paths
    assert {f"/opt/nftcni/bin/{name}" for name in DROP_IN} <= paths
    assert "/usr/local/lib/systemd/system/nftcni-watch.service" in paths
    assert fresh.run("readlink", "-f", f"{LIB}/current").strip() in paths
    enabled = next(number for number, line in enumerate(asked) if "enable" in line.split())
    assert max(asked.index(line) for line in labelled) < enabled
    write(fresh, "/usr/local/sbin/selinuxenabled", "#!/bin/sh\nexit 1\n")
    fresh.file("/run/asked").write_text("")
    install(fresh)
    assert "restorecon" not in fresh.file("/run/asked").read_text()


# Services and packages of others


# systemctl of a running systemd: what it does not find it says, and fails, as 262 does of `disable` as well.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>/run/asked
case " $* " in
    *" stop "* | *" disable "*) [ -e /usr/lib/systemd/system/nftcni-watch.service ] || exit 5 ;;
esac
"""


def test_uninstalling_goes_on_where_systemd_does_not_know_the_units(fresh: Host) -> None:
    write(fresh, "/usr/bin/systemctl", SYSTEMCTL)
    fresh.run("mkdir", "-p", "/run/systemd/system")
    before = tree(fresh)
    install(fresh, "--prefix", "/opt/all")
    install(fresh, "--uninstall", "--prefix", "/opt/all")
    assert tree(fresh) == before


def test_beside_a_package_it_wants_to_be_told_and_leaves_the_packages_services(fresh: Host) -> None:
    write(fresh, "/usr/bin/systemctl", SYSTEMCTL)
    fresh.run("mkdir", "-p", "/run/systemd/system")
    write(fresh, "/usr/lib/systemd/system/nftcni-watch.service", "the package's")
    fresh.run("sh", "-ec", "mkdir -p /usr/lib/nftcni/code-0; ln -s code-0 /usr/lib/nftcni/current")
    before = tree(fresh)
    said = install(fresh, status=1)
    assert "a package of the distribution" in said and tree(fresh) == before
    install(fresh, "--force")
    fresh.file("/run/asked").write_text("")
    install(fresh, "--uninstall")
    assert fresh.file("/run/asked").read_text().splitlines()[-1] == "-q enable --now nftcni-watch.service"
    assert tree(fresh) == before
