"""A foreign `ipam.type`: found on CNI_PATH, called for every verb, its errors passed on, its work undone on failure.

The first one is a script that writes down what it was asked; the others are the reference plugins, where installed.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.scratch import Answer, Host, network, port

REFERENCE = Path("/usr/lib/cni")
SCRIPT = """#!/bin/sh
cat > {folder}/$CNI_COMMAND.stdin
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_ARGS" >> {folder}/calls
echo "$CNI_NETNS $CNI_PATH" > {folder}/$CNI_COMMAND.env
echo "a word for the log" >&2
[ -e {folder}/$CNI_COMMAND.fails ] && cat {folder}/$CNI_COMMAND.fails && exit 1
[ $CNI_COMMAND = ADD ] && cat {folder}/result
exit 0
"""
RESULT = {
    "cniVersion": "1.0.0",
    "ips": [{"address": "10.77.0.5/24", "gateway": "10.77.0.1"}],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {"nameservers": ["10.77.0.1"]},
}


class Delegate:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        script = folder / "leaser"
        script.write_text(SCRIPT.format(folder=folder))
        script.chmod(0o755)
        self.answers(RESULT)
        self.env = {"CNI_PATH": f"/nonexistent:{folder}"}

    def answers(self, result: Any) -> None:
        (self.folder / "result").write_text(result if isinstance(result, str) else json.dumps(result))

    def fails(self, verb: str, error: Any) -> None:
        (self.folder / f"{verb}.fails").write_text(error if isinstance(error, str) else json.dumps(error))

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def verbs(self) -> list[str]:
        return [call.split()[0] for call in self.calls]


@pytest.fixture
def delegate(tmp_path: Path) -> Delegate:
    return Delegate(tmp_path)


CONFIG = network(ipam={"type": "leaser", "own": [1]}, ports=[port(8080, 80)])


def test_add_uses_its_answer(host: Host, delegate: Delegate) -> None:
    result = host.add(CONFIG, env=delegate.env, args="IgnoreUnknown=1;X=y")
    assert [item["address"] for item in result["ips"]] == ["10.77.0.5/24"]
    assert result["dns"] == RESULT["dns"]
    assert host.addresses("br-net0") == {"10.77.0.1/24"}
    assert host.namespaces[0].json("ip", "-j", "route", "show", "default")[0]["gateway"] == "10.77.0.1"
    assert host.elements()["dnat4"][0][1]["concat"] == ["10.77.0.5", 80]
    assert delegate.calls == ["ADD c1 eth0 IgnoreUnknown=1;X=y"]
    assert json.loads((delegate.folder / "ADD.stdin").read_text()) == CONFIG


def test_its_words_reach_the_log(host: Host, delegate: Delegate) -> None:
    host.container("c1")
    assert "a word for the log" in host.cni("ADD", CONFIG, env=delegate.env).stderr


def test_del_runs_it_and_leaves_nothing(host: Host, delegate: Delegate) -> None:
    host.container("c1")
    before = host.snapshot()
    host.add(CONFIG, env=delegate.env)
    host.delete(CONFIG, env=delegate.env)
    host.delete(CONFIG, netns="", env=delegate.env)
    assert delegate.verbs == ["ADD", "DEL", "DEL"]
    assert host.snapshot() == before


def test_check_gc_and_status_are_forwarded(host: Host, delegate: Delegate) -> None:
    result = host.add(CONFIG, env=delegate.env)
    for verb, keys in (("CHECK", {"prevResult": result}), ("GC", {"cni.dev/valid-attachments": []}), ("STATUS", {})):
        answer = host.cni(verb, {**CONFIG, **keys}, env=delegate.env)
        assert answer.status == 0, answer.stdout
    assert delegate.verbs == ["ADD", "CHECK", "GC", "STATUS"]


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "STATUS"])
def test_its_error_is_passed_on_with_its_code(host: Host, delegate: Delegate, verb: str) -> None:
    host.container("c1")
    keys = {}
    if verb in ("CHECK", "DEL"):
        keys = {"prevResult": host.add(CONFIG, env=delegate.env)}
    delegate.fails(verb, {"cniVersion": "1.0.0", "code": 142, "msg": "no lease today", "details": "ask tomorrow"})
    answer = host.cni(verb, {**CONFIG, **keys}, env=delegate.env)
    assert answer.code == 142 and "no lease today" in answer.words and "ask tomorrow" in answer.words
    assert "leaser" in answer.words


def test_a_failed_add_is_undone_by_its_del(host: Host, delegate: Delegate) -> None:
    host.container("c1")
    delegate.fails("ADD", {"code": 142, "msg": "no lease today"})
    host.refused("ADD", CONFIG, env=delegate.env)
    assert delegate.verbs == ["ADD", "DEL"]


def test_a_failure_of_ours_is_undone_by_its_del(host: Host, delegate: Delegate) -> None:
    host.add(network("other", ports=[port(8080, 80)]), "holder")
    host.container("c1")
    answer = host.refused("ADD", CONFIG, env=delegate.env)
    assert answer.code == 100 and "holder" in answer.words
    assert delegate.verbs == ["ADD", "DEL"]


@pytest.mark.parametrize(
    "text", ["", "garbage", "[]", "{}", '{"ips": []}', '{"ips": [{"address": "x"}]}', '{"ips": 5}']
)
def test_an_answer_that_is_no_result(host: Host, delegate: Delegate, text: str) -> None:
    host.container("c1")
    delegate.answers(text)
    answer = host.refused("ADD", CONFIG, env=delegate.env)
    assert answer.code in (7, 999) and "leaser" in answer.words
    assert delegate.verbs == ["ADD", "DEL"]


def test_output_that_is_no_error_document(host: Host, delegate: Delegate) -> None:
    host.container("c1")
    delegate.fails("ADD", "Segmentation fault")
    answer = host.refused("ADD", CONFIG, env=delegate.env)
    assert answer.code == 999 and "leaser" in answer.words and "Segmentation fault" in answer.words


def test_a_delegate_that_is_in_no_folder(host: Host, delegate: Delegate) -> None:
    host.container("c1")
    answer = host.refused("ADD", network(ipam={"type": "missing"}), env=delegate.env)
    assert answer.code == 4 and "missing" in answer.words and str(delegate.folder) in answer.words


@pytest.mark.parametrize("kind", ["../leaser", "a/b", ".."])
def test_a_delegate_is_a_name_not_a_path(host: Host, delegate: Delegate, kind: str) -> None:
    host.container("c1")
    answer = host.refused("ADD", network(ipam={"type": kind}), env=delegate.env)
    assert answer.code == 7 and kind in answer.words


def test_old_result_shapes_are_understood(host: Host, delegate: Delegate) -> None:
    delegate.answers({"cniVersion": "0.2.0", "ip4": {"ip": "10.77.0.6/24", "gateway": "10.77.0.1"}})
    result = host.add(CONFIG, env=delegate.env)
    assert [item["address"] for item in result["ips"]] == ["10.77.0.6/24"]


@pytest.mark.parametrize("verb", ["CHECK", "GC", "STATUS", "DEL"])
def test_every_verb_hands_on_the_whole_request(host: Host, delegate: Delegate, verb: str) -> None:
    """The same environment and the full configuration ("Delegated plugin execution", SPEC.md)."""
    result = host.add(CONFIG, env=delegate.env)
    config = {**CONFIG, "prevResult": result, "cni.dev/valid-attachments": []}
    assert host.cni(verb, config, env=delegate.env).status == 0
    assert json.loads((delegate.folder / f"{verb}.stdin").read_text()) == config
    assert (delegate.folder / f"{verb}.env").read_text().split() == ["/run/netns/c1", delegate.env["CNI_PATH"]]


def test_gc_goes_on_past_its_error_and_reports_it(host: Host, delegate: Delegate) -> None:
    host.container("c1")
    before = host.snapshot()
    host.add(CONFIG, env=delegate.env)
    delegate.fails("GC", {"code": 142, "msg": "no collection today"})
    answer = host.cni("GC", {**CONFIG, "cni.dev/valid-attachments": []}, env=delegate.env)
    assert answer.code == 142 and "no collection today" in answer.words
    assert host.snapshot()["elements"] == before["elements"]
    assert host.links() == before["links"]


@pytest.mark.parametrize("how", ["fails", "missing"])
def test_del_takes_down_the_network_whatever_becomes_of_it(host: Host, delegate: Delegate, how: str) -> None:
    """Its error is passed on, so that the runtime calls again: the lease may still be there."""
    host.container("c1")
    before = host.snapshot()
    host.add(CONFIG, env=delegate.env)
    if how == "fails":
        delegate.fails("DEL", {"code": 142, "msg": "no lease today"})
    answer = host.cni("DEL", CONFIG, env=delegate.env if how == "fails" else {})
    assert answer.status != 0 and "leaser" in answer.words
    assert (host.elements(), host.links()) == (before["elements"], before["links"])
    (delegate.folder / "DEL.fails").unlink(missing_ok=True)
    host.delete(CONFIG, env=delegate.env)
    assert host.snapshot() == before


def test_a_delegate_that_is_killed(host: Host, delegate: Delegate) -> None:
    host.container("c1")
    script = delegate.folder / "leaser"
    script.write_text("#!/bin/sh\n[ $CNI_COMMAND = ADD ] && kill -9 $$\nexit 0\n")
    answer = host.refused("ADD", CONFIG, env=delegate.env)
    assert answer.code == 999 and "leaser" in answer.words


def test_a_delegate_that_cannot_be_executed(host: Host, delegate: Delegate) -> None:
    host.container("c1")
    (delegate.folder / "leaser").write_text("#!/nonexistent/interpreter\n")
    answer = host.refused("ADD", CONFIG, env=delegate.env)
    assert answer.code in (4, 5, 999) and "leaser" in answer.words


def test_the_first_folder_of_the_path_wins(host: Host, delegate: Delegate, tmp_path: Path) -> None:
    """A folder of that name is no executable; a symbolic link to one is."""
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "leaser").mkdir(parents=True)
    second.mkdir()
    (second / "leaser").symlink_to(delegate.folder / "leaser")
    third = tmp_path / "third"
    third.mkdir()
    (third / "leaser").write_text("#!/bin/sh\nexit 1\n")
    (third / "leaser").chmod(0o755)
    host.add(CONFIG, env={"CNI_PATH": f"{first}:{second}:{third}"})
    assert delegate.verbs == ["ADD"]


# A delegate that takes its time: the test says how long

WAITING = """#!/bin/sh
cat > /dev/null
echo $CNI_COMMAND >> {folder}/calls
if [ -e {folder}/$CNI_COMMAND.waits ]; then
    touch {folder}/$CNI_COMMAND.begun
    while [ ! -e {folder}/go ]; do sleep 0.01; done
fi
[ -e {folder}/$CNI_COMMAND.fails ] && cat {folder}/$CNI_COMMAND.fails && exit 1
[ $CNI_COMMAND = ADD ] && cat {folder}/result
exit 0
"""


class Slow:
    """One ADD in the background whose delegate waits in the verb until `finish`."""

    def __init__(self, host: Host, delegate: Delegate, verb: str) -> None:
        self.folder = delegate.folder
        (self.folder / "leaser").write_text(WAITING.format(folder=self.folder))
        (self.folder / f"{verb}.waits").touch()
        self.answers: list[Answer] = []
        self.thread = threading.Thread(target=lambda: self.answers.append(host.cni("ADD", CONFIG, env=delegate.env)))
        self.thread.start()
        while not (self.folder / f"{verb}.begun").exists():
            assert self.thread.is_alive()
            time.sleep(0.01)
        (self.folder / f"{verb}.waits").unlink()

    def finish(self) -> Answer:
        (self.folder / "go").touch()
        self.thread.join()
        return self.answers[0]


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_nobody_waits_for_it(host: Host, delegate: Delegate, verb: str) -> None:
    """Nor for its DEL after an ADD that failed: everybody else would get code 11 while it waits for its server."""
    other = network("other", "10.89.0.0/24", ports=[port(9090, 80)])
    host.container("c1")
    host.add(network("first", "10.90.0.0/24"), "c0")
    before = host.snapshot()
    if verb == "DEL":
        delegate.fails("ADD", {"code": 142, "msg": "no lease today"})
    slow = Slow(host, delegate, verb)
    try:
        host.add(other, "c2")
        host.delete(other, "c2")
        assert host.cni("STATUS", other).status == 0
        assert host.command("list").returncode == 0
        assert not slow.answers
    finally:
        answer = slow.finish()
    assert answer.code == (142 if verb == "DEL" else 0), answer.stdout
    host.delete(CONFIG, env=delegate.env)
    assert host.snapshot() == before


@pytest.mark.parametrize("way", ["the first ADD of another network", "repair"])
def test_the_table_may_be_made_anew_meanwhile(host: Host, delegate: Delegate, way: str) -> None:
    other = network("other", "10.89.0.0/24")
    if way == "repair":
        host.add(other, "c2")
    host.container("c1")
    slow = Slow(host, delegate, "ADD")
    try:
        if way == "repair":
            host.nft("flush ruleset")
            host.command("repair")
        else:
            host.add(other, "c2")
    finally:
        answer = slow.finish()
    assert answer.status == 0, answer.stdout


@pytest.mark.parametrize("by", ["the same", "built-in addresses", "nobody"])
def test_an_attachment_that_is_another_ones_by_now_stays(host: Host, delegate: Delegate, by: str) -> None:
    """Its runtime gave up waiting, deleted it and added it again; the first ADD has come too late."""
    again = {"the same": CONFIG, "built-in addresses": network(ports=[port(8080, 80)]), "nobody": None}[by]
    host.container("c1")
    slow = Slow(host, delegate, "ADD")
    try:
        host.delete(CONFIG, env=delegate.env)
        result = host.add(again, env=delegate.env) if again else None
        before = host.snapshot()
    finally:
        answer = slow.finish()
    assert answer.code == 11 and "net0/c1/eth0" in answer.words and "leaser" in answer.words
    assert host.snapshot() == before
    if again:
        assert host.elements()["dnat4"][0][1]["concat"] == [result["ips"][0]["address"].split("/")[0], 80]
        assert host.cni("CHECK", {**again, "prevResult": result}, env=delegate.env).status == 0
        host.delete(again, env=delegate.env)
    assert host.elements() == {} and host.state_files() == [] and host.link("br-net0") is None


def test_the_lease_of_another_one_stays_too(host: Host, delegate: Delegate) -> None:
    """A delegate knows container and interface alone: what it frees is what the second ADD has."""
    host.container("c1")
    slow = Slow(host, delegate, "ADD")
    try:
        host.delete(CONFIG, env=delegate.env)
        host.add(CONFIG, env=delegate.env)
    finally:
        slow.finish()
    assert delegate.verbs == ["ADD", "DEL", "ADD"]


def test_a_lease_that_failed_later_does_not_take_the_next_ones_attachment(host: Host, delegate: Delegate) -> None:
    """ADD fails in its delegate, whose DEL then waits; meanwhile the runtime tries again and succeeds."""
    host.container("c1")
    delegate.fails("ADD", {"code": 142, "msg": "no lease today"})
    slow = Slow(host, delegate, "DEL")
    try:
        (delegate.folder / "ADD.fails").unlink()
        result = host.add(CONFIG, env=delegate.env)
        before = host.snapshot()
    finally:
        answer = slow.finish()
    assert answer.code == 142
    assert host.snapshot() == before
    assert host.cni("CHECK", {**CONFIG, "prevResult": result}, env=delegate.env).status == 0


needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="NOT RUN: needs the package containernetworking-plugins in /usr/lib/cni"
)


@needs_reference
def test_the_reference_plugin_static(host: Host) -> None:
    ipam = {"type": "static", "addresses": [{"address": "10.66.0.9/24", "gateway": "10.66.0.1"}]}
    config = network(ipam=ipam, version="1.0.0")
    env = {"CNI_PATH": str(REFERENCE)}
    host.container("c1")
    before = host.snapshot()
    result = host.add(config, env=env)
    assert [item["address"] for item in result["ips"]] == ["10.66.0.9/24"]
    assert host.cni("CHECK", {**config, "prevResult": result}, env=env).status == 0
    host.delete(config, env=env)
    assert host.snapshot() == before


@needs_reference
def test_the_reference_plugin_host_local_under_another_name(host: Host, tmp_path: Path) -> None:
    """Under its own name it is built in; as `pool` it is exec'd, and what it leased lies in its own folder."""
    shutil.copy(REFERENCE / "host-local", tmp_path / "pool")
    leases = tmp_path / "leases"
    pool = {"subnet": "10.55.0.0/24", "rangeStart": "10.55.0.20", "rangeEnd": "10.55.0.21"}
    config = network(ipam={"type": "pool", "dataDir": str(leases), "ranges": [[pool]]}, version="1.0.0")
    env = {"CNI_PATH": str(tmp_path)}
    for name in ("c1", "c2", "c3"):
        host.container(name)
    before = host.snapshot()
    results = [host.add(config, name, env=env) for name in ("c1", "c2")]
    assert [item["ips"][0]["address"] for item in results] == ["10.55.0.20/24", "10.55.0.21/24"]
    assert host.place("c2").addresses("eth0") == {"10.55.0.21/24"}
    assert (leases / "net0" / "10.55.0.21").read_text().split() == ["c2", "eth0"]
    assert host.cni("CHECK", {**config, "prevResult": results[0]}, env=env).status == 0
    full = host.refused("ADD", config, "c3", env=env)
    assert "pool" in full.words and "no IP addresses available" in full.words
    (leases / "net0" / "10.55.0.20").unlink()
    assert host.cni("CHECK", {**config, "prevResult": results[0]}, env=env).status != 0
    for name in ("c1", "c2"):
        host.delete(config, name, env=env)
    assert not list((leases / "net0").glob("10.*"))
    assert host.snapshot() == before


def test_del_asks_who_gave_the_addresses_whatever_the_configuration_says_by_now(host: Host, delegate: Delegate) -> None:
    (delegate.folder / "dhcp").write_text("#!/bin/sh\nexit 0\n")
    (delegate.folder / "dhcp").chmod(0o755)
    host.container("c1")
    before = host.snapshot()
    host.add(CONFIG, env=delegate.env)
    host.delete({**CONFIG, "ipam": {"type": "dhcp"}}, env=delegate.env)
    assert delegate.verbs == ["ADD", "DEL"]
    assert host.snapshot() == before
