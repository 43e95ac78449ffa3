"""conf/install on a scratch host whose /etc, /usr and /opt take changes without the machine seeing them; the conflists.

What is on that host is compared file by file, with `find` as the oracle. Getting packages from a distribution is not
tested here: the packages are there, or made to be missing where nothing can install them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.installed import BIN, DROP_IN, LIB, NETWORKS, TAG, install, tree, write
from support.scratch import CHECKOUT, PLUGIN, Host
from support.traffic import Server, ask

CONFLISTS = sorted(path.stem for path in (CHECKOUT / "conf" / "net.d").glob("*.conflist"))


def read_conflist(host: Host, name: str) -> Any:
    return json.loads(host.file(f"{NETWORKS}/{name}.conflist").read_text())


def as_runtime(conflist: Any, ports: list[Any]) -> Any:
    """The plugin object as libcni delivers it: version and name put in, and only the capabilities that it declares."""
    plugin = dict(conflist["plugins"][0])
    offered = {"portMappings": ports}
    declared = plugin.pop("capabilities", {})
    delivered = {key: value for key, value in offered.items() if declared.get(key) and value}
    plugin.update(cniVersion=conflist["cniVersion"], name=conflist["name"])
    return {**plugin, "runtimeConfig": delivered} if delivered else plugin


# The conflists


@pytest.mark.parametrize("name", CONFLISTS)
def test_each_conflist_makes_a_network(host: Host, name: str) -> None:
    conflist = json.loads((CHECKOUT / "conf" / "net.d" / f"{name}.conflist").read_text())
    assert conflist["cniVersion"] == "1.0.0", "what every runtime of today understands"
    check_network(host, conflist)


@pytest.mark.parametrize("subnets", [["10.244.1.0/24"], ["10.244.1.0/24", "fd00:244:1::/64"]], ids=["v4", "dual"])
def test_the_template_of_containerd_makes_a_network(host: Host, subnets: list[str]) -> None:
    text = (CHECKOUT / "conf" / "net.d" / "podcidr.template").read_text()
    start, end = text.index("[{{range"), text.index("{{end}}]") + len("{{end}}]")
    ranges = [[{"subnet": subnet}] for subnet in subnets]
    rendered = json.loads(text[:start] + json.dumps(ranges) + text[end:])
    check_network(host, rendered)


def check_network(host: Host, conflist: Any, plugin: str = PLUGIN) -> None:
    """One container publishes a port if the network can, a second one and the host reach it by all its addresses."""
    publishing = as_runtime(conflist, [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}])
    plain = as_runtime(conflist, [])
    before = host.snapshot()
    result = host.add(publishing, "one", plugin=plugin)
    host.add(plain, "two", plugin=plugin)
    one, two = host.namespaces
    addresses = [entry["address"].split("/")[0] for entry in result["ips"]]
    assert len(addresses) == len(plain["ipam"]["ranges"])
    with Server(one, 80):
        for address in addresses:
            assert ask(two, address, 80).startswith("one ")
            assert ask(host, address, 80).startswith("one ")
        expected = "one" if "runtimeConfig" in publishing else "refused"
        assert ask(host, "127.0.0.1", 8080).split()[0] == expected
    assert host.cni("CHECK", {**publishing, "prevResult": result}, "one", plugin=plugin).status == 0
    host.delete(publishing, "one", plugin=plugin)
    host.delete(plain, "two", plugin=plugin)
    assert host.snapshot() == before


def test_the_networks_of_the_conflists_do_not_overlap() -> None:
    """A host may have all of them: each has a name, a bridge and subnets of its own."""
    lists = [json.loads((CHECKOUT / "conf" / "net.d" / f"{name}.conflist").read_text()) for name in CONFLISTS]
    assert len(lists) >= 4
    plugins = [item["plugins"][0] for item in lists]
    subnets = [entry[0]["subnet"] for plugin in plugins for entry in plugin["ipam"]["ranges"]]
    for values in ([item["name"] for item in lists], [plugin["bridge"] for plugin in plugins], subnets):
        assert len(set(values)) == len(values)


def test_the_readme_explains_the_packaged_conflist() -> None:
    shown = (CHECKOUT / "README.md").read_text().split("```json\n")[1].split("```")[0]
    assert shown == (CHECKOUT / "conf" / "net.d" / "nerdctl-bridge.conflist").read_text()


# Installing


def test_an_installed_plugin_serves_containers_and_was_compiled(fresh: Host) -> None:
    install(fresh)
    before = tree(fresh)
    check_network(fresh, read_conflist(fresh, "nerdctl-bridge"), f"{BIN}/nftcni")
    assert tree(fresh) == before, "a plugin that compiles its modules when it runs was not compiled before"
    assert any(f"/archive.{TAG} f 644 " in line for line in before)
    assert fresh.run("nftcni", "--version").startswith("nftcni ")


def test_a_second_run_changes_nothing_but_files_times(fresh: Host) -> None:
    def content() -> list[str]:
        lines = fresh.run("find", BIN, NETWORKS, LIB, "-printf", "%p %y %m %l\n")
        files = fresh.run("sh", "-c", f"find {BIN} {NETWORKS} {LIB} -type f ! -name manifest | xargs sha256sum")
        manifest = fresh.file(f"{LIB}/manifest").read_text()
        return sorted([*lines.splitlines(), *files.splitlines(), *manifest.splitlines()])

    install(fresh)
    before = content()
    said = install(fresh)
    assert content() == before
    assert "is there already" in said


def test_uninstall_leaves_nothing(fresh: Host) -> None:
    before = tree(fresh)
    install(fresh, "--drop-in")
    check_network(fresh, read_conflist(fresh, "nerdctl-bridge"), f"{BIN}/nftcni")
    install(fresh, "--conflist", "10-nftcni", "--bin-dir", "/opt/other")
    assert tree(fresh) != before
    install(fresh, "--uninstall")
    assert tree(fresh) == before
    assert "nftcni" not in fresh.run("nft", "list", "ruleset")
    assert not fresh.file("/run/nftcni").exists()
    assert "nothing is installed" in install(fresh, "--uninstall", status=1)


def test_uninstall_waits_for_the_last_container(fresh: Host) -> None:
    install(fresh)
    config = as_runtime(read_conflist(fresh, "nerdctl-bridge"), [])
    fresh.add(config, "one", plugin=f"{BIN}/nftcni")
    before = tree(fresh)
    said = install(fresh, "--uninstall", status=1)
    assert "bridge/one/eth0" in said
    assert tree(fresh) == before
    fresh.delete(config, "one", plugin=f"{BIN}/nftcni")
    install(fresh, "--uninstall")


def test_uninstall_keeps_what_was_changed_since(fresh: Host) -> None:
    install(fresh)
    place = f"{NETWORKS}/nerdctl-bridge.conflist"
    write(fresh, place, "mine")
    said = install(fresh, "--uninstall")
    assert f"left {place}" in said
    assert fresh.file(place).read_text() == "mine"
    assert not fresh.file(BIN).exists()


def test_a_network_that_is_there_is_left_alone(fresh: Host) -> None:
    write(fresh, f"{NETWORKS}/87-other.conflist", "{}")
    install(fresh)
    assert fresh.run("ls", NETWORKS).split() == ["87-other.conflist"]
    install(fresh, "--conflist", "podman-nftcni")
    assert fresh.run("ls", NETWORKS).split() == ["87-other.conflist", "podman-nftcni.conflist"]


def test_a_network_that_was_deleted_is_installed_again_if_it_is_named(fresh: Host) -> None:
    install(fresh, "--conflist", "10-nftcni")
    fresh.file(f"{NETWORKS}/10-nftcni.conflist").unlink()
    install(fresh, "--conflist", "10-nftcni")
    assert fresh.file(f"{NETWORKS}/10-nftcni.conflist").exists()


def test_newer_code_replaces_the_stub_and_keeps_the_code_that_may_run(fresh: Host, tmp_path: Path) -> None:
    for folder in ("cni", "nft", "conf"):
        shutil.copytree(CHECKOUT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    main = tmp_path / "cni" / "version.py"
    original = main.read_text()
    stub = fresh.file(f"{BIN}/nftcni")
    folders: list[str] = []
    for version in ("7.0.1", "7.0.2", "7.0.3"):
        held = stub.open() if folders else None
        main.write_text(original.replace('VERSION = "', f'VERSION = "{version}+', 1))
        install(fresh, checkout=tmp_path)
        assert fresh.run("nftcni", "--version").startswith(f"nftcni {version}+")
        folders.append(fresh.run("readlink", "-f", f"{LIB}/current").strip())
        if held:
            with held:  # by rename: the file that a runtime had open is whole
                assert held.read() == stub.read_text()
    kept = fresh.run("find", LIB, "-mindepth", "1", "-maxdepth", "1", "-type", "d").split()
    assert sorted(kept) == sorted(folders[1:])


def test_the_tools_of_busybox_are_enough(fresh: Host) -> None:
    """As on Alpine: no coreutils, no bash."""
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.skip("NOT TESTED: conf/install with BusyBox needs busybox (package busybox-static)")
    fresh.run("mkdir", "/run/tools")
    for name in fresh.run(busybox, "--list").split():
        fresh.run("ln", "-s", busybox, f"/run/tools/{name}")
    before = tree(fresh)
    for words in (["--drop-in"], [], ["--uninstall"]):
        done = fresh.call("env", "PATH=/run/tools:/usr/bin", busybox, "sh", str(CHECKOUT / "conf" / "install"), *words)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert tree(fresh) == before


MANAGERS = {  # how each is told to install the Python module, by its own manual
    "apt-get": "apt-get install -qq -y --no-install-recommends python3-nftables",
    "dnf": "dnf install -q -y python3-nftables",
    "apk": "apk add -q -U py3-nftables",
    "pacman": "pacman -S --noconfirm --needed nftables",
    "zypper": "zypper -n -q install python3-nftables",
}


@pytest.mark.parametrize("manager", MANAGERS)
def test_what_is_missing_comes_from_the_distribution(fresh: Host, manager: str) -> None:
    """The manager is a stand-in that refuses once, for want of fresh lists, and then does install."""
    module = "/usr/lib/python3/dist-packages/nftables"
    fresh.run("sh", "-ec", f"mv {module} /run/module; rm -f /usr/bin/apt-get")
    write(
        fresh,
        f"/usr/local/bin/{manager}",
        f'#!/bin/sh\necho "${{0##*/}} $*" >>/run/asked\n[ -e /run/known ] || {{ '
        f">/run/known; exit 1; }}\n[ ! -e /run/module ] || mv /run/module {module}\n",
    )
    said = install(fresh)
    assert "installing" in said and "answers in" in said
    asked = fresh.file("/run/asked").read_text().splitlines()
    assert asked[0] == asked[-1] == MANAGERS[manager]


@pytest.mark.parametrize("moment", [0.03, 0.08, 0.12, 0.16, 0.2, 0.25])
def test_an_installation_that_was_killed_can_be_repeated_and_removed(fresh: Host, moment: float) -> None:
    before = tree(fresh)
    fresh.call("timeout", "--signal=KILL", str(moment), "sh", str(CHECKOUT / "conf" / "install"), "--drop-in")
    install(fresh, "--drop-in")
    assert fresh.run("nftcni", "--version")
    install(fresh, "--uninstall")
    assert tree(fresh) == before


# Drop-in names and answers to iptables


def test_containerds_network_brings_the_loopback_that_its_cri_runs(fresh: Host) -> None:
    install(fresh, "--conflist", "10-nftcni")
    assert fresh.run("readlink", f"{BIN}/loopback") == "nftcni\n"
    install(fresh, "--uninstall")
    assert not fresh.file(f"{BIN}/loopback").is_symlink()


def test_drop_in_links_every_name(fresh: Host) -> None:
    install(fresh, "--drop-in", "--bin-dir", "/opt/nftcni/bin")
    links = fresh.run("find", "/opt/nftcni/bin", "-type", "l", "-printf", "%f %l\n")
    assert sorted(links.splitlines()) == [f"{name} nftcni" for name in DROP_IN]
    for name in DROP_IN:
        answer = json.loads(fresh.cni("VERSION", {"cniVersion": "1.0.0"}, plugin=f"/opt/nftcni/bin/{name}").stdout)
        assert "1.0.0" in answer["supportedVersions"]


def test_drop_in_never_covers_another_plugin_unless_told(fresh: Host) -> None:
    write(fresh, f"{BIN}/portmap", "the reference one")
    before = tree(fresh)
    assert f"{BIN}/portmap is there" in install(fresh, "--drop-in", status=1)
    assert tree(fresh) == before
    install(fresh, "--drop-in", "--force")
    assert fresh.run("readlink", f"{BIN}/portmap") == "nftcni\n"
    install(fresh, "--uninstall")
    assert tree(fresh) == before


def test_answers_to_iptables_only_where_there_is_none(fresh: Host) -> None:
    install(fresh, "--iptables-answers")
    assert fresh.run("iptables", "--version").startswith("iptables v1.")
    assert fresh.run("readlink", "-f", "/usr/local/sbin/ip6tables").startswith(LIB)
    install(fresh)  # a newer version later: the links follow
    install(fresh, "--uninstall")
    for folder in ("/usr/sbin", "/usr/local/sbin"):
        write(fresh, f"{folder}/iptables", "#!/bin/sh\necho a real one\n")
        before = tree(fresh)
        said = install(fresh, "--iptables-answers", "--force", status=1)
        assert f"{folder}/iptables" in said
        assert tree(fresh) == before
        fresh.file(f"{folder}/iptables").unlink()


SEARCHED = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
REAL = '#!/bin/sh\necho "real ${0##*/}"\nprintf "<%s>" "$@"\nexit 3\n'


@pytest.mark.parametrize("name", ["iptables", "ip6tables"])
def test_a_real_iptables_that_comes_later_is_run(fresh: Host, name: str) -> None:
    """With its arguments and its exit status; and ours again when it is gone."""
    install(fresh, "--iptables-answers")
    words = [name, "-t", "nat", "-S", "CNI-HOSTPORT-DNAT", "1", "--wait", "", "two words"]
    ours = fresh.call(*words[:5], env=SEARCHED)
    assert (ours.returncode, ours.stdout) == (0, "-N CNI-HOSTPORT-DNAT\n")
    for folder in ("/usr/sbin", "/usr/bin"):
        write(fresh, f"{folder}/{name}", REAL)
        real = fresh.call(*words, env=SEARCHED)
        said = "".join(f"<{word}>" for word in words[1:])
        assert (real.returncode, real.stdout, real.stderr) == (3, f"real {name}\n{said}", "")
        fresh.file(f"{folder}/{name}").chmod(0o644)
        assert fresh.call(*words[:5], env=SEARCHED).stdout == ours.stdout, "what cannot be run is none"
        fresh.file(f"{folder}/{name}").unlink()
    write(fresh, "/usr/sbin/" + ("ip6tables" if name == "iptables" else "iptables"), REAL)
    again = fresh.call(*words[:5], env=SEARCHED)
    assert (again.returncode, again.stdout) == (0, ours.stdout)


def test_two_installations_of_the_answers_do_not_call_each_other(fresh: Host) -> None:
    """Each would take the other one for a real iptables, for ever."""
    install(fresh, "--iptables-answers")
    fresh.run("cp", "-r", LIB, "/opt/second")
    second = fresh.run("sh", "-c", "echo /opt/second/*/iptables-answers").strip()
    for name in ("iptables", "ip6tables"):
        fresh.run("ln", "-s", second, f"/usr/sbin/{name}")
        for path in (SEARCHED["PATH"], "/usr/sbin:/usr/local/sbin:/usr/bin"):
            done = fresh.call("timeout", "20", name, "--version", env={"PATH": path})
            assert done.returncode == 0 and done.stdout.startswith(f"{name} v1."), done
            done = fresh.call("timeout", "20", name, "-F", env={"PATH": path})
            assert done.returncode == 2 and "nftcni" in done.stderr


# Refusals


OLD_PYTHON = "printf '#!/bin/sh\\nexit 1\\n' > /run/old; chmod 755 /run/old; mv /run/old /usr/bin/python3"
OLD_NFT = "printf '#!/bin/sh\\necho nftables v0.9.8\\n' >/run/nft; chmod 755 /run/nft; mv /run/nft /usr/sbin/nft"
REFUSALS: dict[str, tuple[list[str], str]] = {  # what it says: its arguments, what is done to the host before
    "needs a value": (["--bin-dir"], ""),
    "no conf/net.d/nonesuch.conflist": (["--conflist", "nonesuch"], ""),
    "/opt/cni/bin/nftcni is there": ([], "mkdir -p /opt/cni/bin; echo theirs > /opt/cni/bin/nftcni"),
    "/usr/local/sbin/nftcni is there": ([], "echo theirs > /usr/local/sbin/nftcni"),
    "holds something else": (["--lib-dir", "/opt/theirs"], "mkdir -p /opt/theirs/things"),
    "is not a folder": (["--conf-dir", "/opt/file"], "touch /opt/file"),
    "only letters": (["--bin-dir", "/opt/a b"], ""),
    "needs /usr/bin/python3": ([], "rm /usr/bin/python3"),
    "needs Python 3.9": ([], OLD_PYTHON),
    "nft 0.9.8 is too old, 1.0.0 is needed": ([], OLD_NFT),
    "missing: nftables": ([], "rm -r /usr/lib/python3/dist-packages/nftables; rm -f /usr/bin/apt-get"),
}


@pytest.mark.parametrize("words", REFUSALS)
def test_a_refusal_says_why_and_changes_nothing(fresh: Host, words: str) -> None:
    arguments, preparation = REFUSALS[words]
    fresh.run("sh", "-ec", preparation)
    before = tree(fresh)
    said = install(fresh, *arguments, status=1)
    assert words in said
    assert tree(fresh) == before


def test_only_root_may_install(fresh: Host) -> None:
    before = tree(fresh)
    assert "needs root" in install(fresh, status=1, by=("unshare", "--user"))
    assert tree(fresh) == before
