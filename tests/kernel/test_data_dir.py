"""Two networks with different `dataDir`: the host has one table, so they share the first one's state folder.

Each with a folder of its own would not know the other's ports and containers, and an ADD that rebuilds the table would
leave the other's out.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.scratch import PLUGIN, Host, Json, network, port
from support.traffic import Server, ask, serving


def config(name: str, number: int, *ports: Json, folder: str = "") -> Json:
    return network(name, f"10.{number}.0.0/24", ports=ports, dataDir=folder or f"/run/data-{name}")


A, B = config("a", 1, port(8001, 80)), config("b", 2, port(8002, 80))

EXPECTED = {"a": "c1 10.1.0.1", "b": "c2 10.2.0.1"}


def records(host: Host) -> list[str]:
    """Of all folders."""
    roots = [host.file("/run/nftcni"), *host.file("/run").glob("data-*")]
    return sorted(path.name for root in roots for path in root.glob("*/attachments/*/*"))


def claims(host: Host) -> list[Path]:
    roots = [host.file("/run/nftcni"), *host.file("/run").glob("data-*")]
    return [path for root in roots for kind in ("ports", "leases", "bridges") for path in root.glob(f"*/{kind}/*")]


def serve(host: Host) -> None:
    with serving(Server(host.place("c1"), 80), Server(host.place("c2"), 80)):
        assert ask(host, "127.0.0.1", 8001) == EXPECTED["a"]
        assert ask(host, "127.0.0.1", 8002) == EXPECTED["b"]


@pytest.fixture
def both(host: Host) -> Host:
    host.neighbour()
    host.add(A, "c1")
    host.add(B, "c2")
    return host


def test_they_share_one_folder_and_leave_no_ghosts(both: Host) -> None:
    """Also if each DEL comes with another `dataDir` than its ADD."""
    assert records(both) == ["c1@eth0", "c2@eth0"]
    serve(both)
    for name, folder in (("c1", "/run/data-b"), ("c2", "/run/data-new")):
        of = A if name == "c1" else B
        both.delete({**of, "dataDir": folder}, name, netns="")
    assert records(both) == [] and claims(both) == [] and both.elements() == {}
    assert not [item for item in both.links() if item["ifname"].startswith(("veth", "br-"))]


def test_ports_and_addresses_are_free_after_del_and_not_before(both: Host) -> None:
    """A port on one host address collides with the same on all of them: no key of the table tells, the folder does."""
    both.container("c3")
    taken = config("b", 2, port(8001, 80, ip="198.51.100.1"))
    answer = both.cni("ADD", taken, "c3")
    assert answer.code == 100 and "c1" in answer.words, answer.stdout
    asked = {**config("a", 1, folder="/run/data-b"), "runtimeConfig": {"ips": ["10.1.0.2"]}}
    assert both.cni("ADD", asked, "c3").code == 102
    both.delete(A, "c1")
    assert both.add(taken, "c3", netns="/run/netns/c3")["ips"]
    both.delete(taken, "c3")
    assert both.add(asked, "c3", netns="/run/netns/c3")["ips"][0]["address"] == "10.1.0.2/24"


def test_list_finds_them_without_being_told(both: Host) -> None:
    done = both.command("list")
    found = [(line.split()[0], line.split()[2]) for line in done.stdout.splitlines()]
    assert found == [("a/c1/eth0", "10.1.0.2/24"), ("b/c2/eth0", "10.2.0.2/24")]
    assert done.stderr == "" and records(both) == ["c1@eth0", "c2@eth0"], "nothing is made up of what the table says"


@pytest.mark.parametrize("who", ["a", "a again", "b", "b again"])
def test_an_add_after_a_flush_brings_both_back(both: Host, who: str) -> None:
    of = A if who.startswith("a") else B
    both.nft("flush ruleset")
    if "again" in who:
        both.add(of, {"a": "c1", "b": "c2"}[who[0]])
    else:
        both.add({**of, "runtimeConfig": {}}, "c3")
    serve(both)


@pytest.mark.parametrize("told", ["/run/data-a", "", "/run/data-b"])
def test_repair_after_a_flush_brings_both_back(both: Host, told: str) -> None:
    both.nft("flush ruleset")
    done = both.call(PLUGIN, "repair", env={"NFTCNI_DATA_DIR": told} if told else {})
    assert done.returncode == 0, done.stdout + done.stderr
    serve(both)


@pytest.mark.parametrize("first", ["a", "b"])
def test_del_after_a_flush_leaves_nothing(both: Host, first: str) -> None:
    both.nft("flush ruleset")
    for of, name in sorted(((A, "c1"), (B, "c2")), key=lambda pair: pair[0]["name"] != first):
        both.delete(of, name, netns="")
    assert records(both) == [] and claims(both) == [] and both.elements() == {}
    assert not [item for item in both.links() if item["ifname"].startswith(("veth", "br-"))]


def test_a_folder_that_was_removed_with_the_table_is_forgotten(both: Host) -> None:
    """What led to it from the usual place leads nowhere then."""
    both.nft("flush ruleset")
    both.run("rm", "-rf", "/run/data-a")
    default = network("c", "10.3.0.0/24")
    both.add(default, "c3")
    assert records(both) == ["c3@eth0"]
    both.delete(default, "c3")
    assert records(both) == []


@pytest.mark.parametrize("folders", [("/run/data-a", "/run/data-b"), ("", "/run/data-b"), ("/run/zwölf", "")])
def test_two_first_ones_at_once_agree(host: Host, folders: tuple[str, str]) -> None:
    """Which folder it is was decided before the lock: each had its own, and the second table lacked the first."""
    configs = [
        {key: value for key, value in {**of, "dataDir": folder}.items() if value} for of, folder in zip((A, B), folders)
    ]
    for name in ("c1", "c2"):
        host.container(name)
    for _ in range(6):
        host.run("sh", "-c", "rm -rf /run/nftcni /run/data-* /run/zw*; nft delete table inet nftcni; true")
        started = [start(host, config, name) for config, name in zip(configs, ("c1", "c2"))]
        answers = [process.communicate(timeout=60) for process in started]
        assert [process.returncode for process in started] == [0, 0], answers
        listed = host.command("list").stdout.split()
        assert {"a/c1/eth0", "b/c2/eth0"} <= set(listed)
        serve(host)
        for config, name in zip(configs, ("c1", "c2")):
            host.delete(config, name)
        assert host.elements() == {} and records(host) == [] and host.command("list").stdout == ""


def start(host: Host, config: Json, name: str) -> subprocess.Popen[str]:
    variables = {
        **{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": name, "CNI_IFNAME": "eth0"},
        **{"CNI_NETNS": f"/run/netns/{name}", "CNI_PATH": "/x"},
    }
    process = host.popen(PLUGIN, env=variables, **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE))
    assert process.stdin is not None
    process.stdin.write(json.dumps(config))
    process.stdin.close()
    process.stdin = None
    return process


def test_a_folder_whose_name_no_comment_can_hold(host: Host) -> None:
    """The table does not name it then; the link in the usual place leads there."""
    config = config_of("/run/zwölf & so")
    result = host.add(config)
    assert host.cni("CHECK", {**config, "prevResult": result}).words == ""
    assert host.command("repair", "--check").stdout == "nothing to repair\n"
    host.delete(config)


def config_of(folder: str) -> Json:
    return network("net0", "10.88.0.0/24", dataDir=folder)
