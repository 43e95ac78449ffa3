"""Hosts on which an ADD cannot succeed: links in the way, a full bridge, missing rights or libraries, odd folders."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.scratch import PLUGIN, Host, network, port


@pytest.fixture
def ready(host: Host) -> Host:
    host.container("c1")
    return host


@pytest.mark.parametrize("kind", [("veth", "peer", "name", "other"), ("bridge",)], ids=["veth", "bridge"])
def test_the_bridges_name_is_another_kind_of_link(ready: Host, kind: tuple[str, ...]) -> None:
    ready.run("ip", "link", "add", "br-net0", "type", *kind)
    if kind == ("bridge",):
        ready.add(network())
        return
    answer = ready.refused("ADD", network())
    assert answer.code == 7 and "br-net0" in answer.words and "veth" in answer.words and "bridge" in answer.words


def test_the_loopback_is_no_bridge_either(ready: Host) -> None:
    answer = ready.refused("ADD", network(bridge="lo"))
    assert answer.code == 7 and '"lo"' in answer.words


def test_a_full_bridge_says_how_many_ports_it_takes(ready: Host) -> None:
    """BR_MAX_PORTS of the kernel is 1024, and port 0 is not used."""
    ready.run("ip", "link", "add", "br-net0", "type", "bridge")
    lines = [f"link add p{n} master br-net0 type ifb\n" for n in range(1023)]
    done = ready.call("ip", "-batch", "-", input="".join(lines))
    assert done.returncode == 0, done.stderr
    answer = ready.refused("ADD", network())
    assert answer.code == 5 and "br-net0" in answer.words and "1023" in answer.words


def test_without_privileges_it_says_which(ready: Host) -> None:
    ready.run("chmod", "777", "/run/cni")
    done = ready.popen(
        *("setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", PLUGIN),
        env={
            **{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1"},
            **{"CNI_IFNAME": "eth0", "CNI_PATH": "/x"},
        },
        stdin=-1,
        stdout=-1,
        stderr=-1,
    )
    import json

    out, err = done.communicate(json.dumps(network(dataDir="/run/cni/state")), timeout=20)
    answer = json.loads(out)
    assert done.returncode == 1 and err == ""
    assert answer["code"] == 5 and "root" in answer["details"] and "CAP_NET_ADMIN" in answer["details"]


def hide(host: Host, path: Path) -> None:
    host.run("mount", "-t", "tmpfs", "none", str(path))


def distribution_packages() -> Path:
    found = [Path(folder, "nftables") for folder in ("/usr/lib/python3/dist-packages", *sys.path)]
    return next(path for path in found if path.is_dir())


def test_without_the_nftables_module_it_says_what_to_install(ready: Host) -> None:
    hide(ready, distribution_packages())
    answer = ready.refused("ADD", network(ports=[port(8080, 80)]))
    assert answer.code == 5 and "nftables" in answer.words and "python3-nftables" in answer.words


def test_the_module_is_not_needed_once_the_table_stands(ready: Host) -> None:
    config = network(ports=[port(8080, 80)])
    ready.add(config)
    hide(ready, distribution_packages())
    ready.container("c2")
    ready.add(network(), "c2")
    ready.delete(config)
    ready.delete(network(), "c2")


def test_a_state_folder_that_is_a_file(ready: Host) -> None:
    ready.file("/run/nftcni").write_text("")
    answer = ready.cni("ADD", network())
    assert answer.code == 7 and "/run/nftcni" in answer.words and "not a folder" in answer.words
    assert ready.namespaces[0].link("eth0") is None


def test_a_state_folder_on_a_read_only_file_system(ready: Host) -> None:
    ready.run("mount", "-t", "tmpfs", "-o", "ro", "none", "/run/cni")
    answer = ready.refused("ADD", network(dataDir="/run/cni/state"))
    assert answer.code == 5 and "/run/cni/state" in answer.words and "ROFS" in answer.words


def test_a_table_of_that_name_without_our_sets_is_replaced(ready: Host) -> None:
    """The name is ours alone, as knftables asks of everybody: what is found there was ours once, or is a mistake."""
    ready.nft("table inet nftcni {\n chain somebody { }\n}")
    ready.add(network())
    assert "somebody" not in ready.run("nft", "list", "table", "inet", "nftcni")
    assert len(ready.elements()["attachments"]) == 1
