"""cnitool of the CNI project over our conflists, and CRI-O's sequence of calls replayed.

CRI-O itself is in no distribution's archive that the suite uses; its order was read from ocicni's source.
"""

from __future__ import annotations

import json
from typing import Any

import programs
import pytest
import readme
from machine import Machine
from support.scratch import Namespace
from support.traffic import Server, ask

CHOSEN = '{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}'


@pytest.fixture(scope="module")
def tool(machine: Machine) -> Machine:
    programs.require("cnitool")
    machine.shell(readme.commands("cnitool")[0])
    config = json.loads(machine.file("/etc/cni/net.d/nerdctl-bridge.conflist").read_text())
    config.update(cniVersion="1.1.0", name="newest")
    config["plugins"][0].update(bridge="newest", ipam={"ranges": [[{"subnet": "10.6.0.0/24"}]]})
    machine.write("/etc/cni/net.d/newest.conflist", json.dumps(config))
    return machine


@pytest.fixture
def pod(machine: Machine) -> Namespace:
    machine.run("mkdir", "-p", "/run/netns")
    if machine.file("/run/netns/pod").exists():
        machine.run("ip", "netns", "delete", "pod")
    machine.run("ip", "netns", "add", "pod")
    return machine.opened("pod", "/run/netns/pod")


def cnitool(machine: Machine, verb: str, network: str, pod: Namespace, **env: str) -> Any:
    variables = {"CNI_PATH": "/opt/cni/bin", "NETCONFPATH": "/etc/cni/net.d", **env}
    done = machine.call("cnitool", verb, network, pod.path, env=variables)
    assert done.returncode == 0, f"cnitool {verb} {network}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout) if done.stdout.strip() else None


def test_check_can_be_switched_off_where_an_ipam_plugin_does_not_do_it(tool: Machine, pod: Namespace) -> None:
    """libcni itself leaves it out; as with whereabouts, whose CHECK is an error."""
    script = """#!/bin/sh
[ $CNI_COMMAND = CHECK ] && echo '{"code": 4, "msg": "CNI CHECK method is not implemented"}' && exit 1
[ $CNI_COMMAND = ADD ] && echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.7.0.9/24", "gateway": "10.7.0.1"}]}'
exit 0
"""
    tool.write("/opt/cni/bin/nowhere", script, 0o755)
    plugin = {"type": "nftcni", "bridge": "nowhere", "ipam": {"type": "nowhere"}}
    config: dict[str, Any] = {"cniVersion": "1.0.0", "name": "nowhere", "plugins": [plugin]}
    tool.write("/etc/cni/net.d/nowhere.conflist", json.dumps(config))
    cnitool(tool, "add", "nowhere", pod)
    with pytest.raises(AssertionError, match="not implemented"):
        cnitool(tool, "check", "nowhere", pod)
    tool.write("/etc/cni/net.d/nowhere.conflist", json.dumps({**config, "disableCheck": True}))
    cnitool(tool, "check", "nowhere", pod)
    cnitool(tool, "del", "nowhere", pod)
    tool.run("rm", "/etc/cni/net.d/nowhere.conflist", "/opt/cni/bin/nowhere")


@pytest.mark.parametrize("network", ["bridge", "newest"])
def test_add_check_and_delete(tool: Machine, pod: Namespace, network: str) -> None:
    before = tool.state()
    result = cnitool(tool, "add", network, pod, CAP_ARGS=CHOSEN)
    addresses = {entry["address"] for entry in result["ips"]}
    assert addresses == pod.addresses("eth0")
    cnitool(tool, "check", network, pod, CAP_ARGS=CHOSEN)
    with Server(pod, 80):
        assert ask(tool.lan, "198.51.100.1", 8080) == "pod 198.51.100.2"
    pod.run("ip", "link", "set", "eth0", "down")
    with pytest.raises(AssertionError, match="eth0"):
        cnitool(tool, "check", network, pod, CAP_ARGS=CHOSEN)
    cnitool(tool, "del", network, pod, CAP_ARGS=CHOSEN)
    cnitool(tool, "del", network, pod)
    tool.check_unchanged(before)


def test_status_tells_what_would_drop_the_traffic(tool: Machine, pod: Namespace) -> None:
    cnitool(tool, "status", "newest", pod)
    tool.nft("table ip firewall { chain forward { type filter hook forward priority 0; policy drop; }; }")
    with pytest.raises(AssertionError, match="firewall"):
        cnitool(tool, "status", "newest", pod)
    tool.nft("delete table ip firewall")
    cnitool(tool, "status", "newest", pod)


def test_the_commands_of_the_readme(tool: Machine) -> None:
    before = tool.state()
    result, *_ = (said for said in map(tool.shell, readme.commands("cnitool")[1:]) if said)
    assert len(json.loads(result)["ips"]) == 2
    tool.check_unchanged(before)


def test_status(tool: Machine, pod: Namespace) -> None:
    cnitool(tool, "status", "newest", pod)


def test_gc(tool: Machine, pod: Namespace) -> None:
    """cnitool names nothing as valid: libcni detaches what it remembers of the network, and nothing of another one."""
    before = tool.state()
    cnitool(tool, "add", "newest", pod, CNI_IFNAME="eth1")
    cnitool(tool, "add", "bridge", pod)  # IPv6 is forwarded from here on, until the host's last container goes
    cnitool(tool, "del", "bridge", pod)
    kept = tool.state()
    cnitool(tool, "add", "bridge", pod)
    cnitool(tool, "gc", "bridge", pod)
    tool.check_unchanged(kept)
    # From 1.1.0 on it calls the plugin too, without the list that the specification requires.
    with pytest.raises(AssertionError, match="valid-attachments"):
        cnitool(tool, "gc", "newest", pod)
    tool.check_unchanged(before)


@pytest.mark.parametrize("nobody", [[], None], ids=["empty", "null"])
def test_the_sequence_of_cri_o(tool: Machine, pod: Namespace, nobody: list[str] | None) -> None:
    """VERSION, ADD with CHECK at once, DEL with a stale path and without one, GC at start with both keys.

    Go writes a list that nothing was ever appended to as null."""
    for line in readme.commands("CRI-O"):
        tool.shell(line)
    conflist = json.loads(tool.file("/etc/cni/net.d/crio-nftcni.conflist").read_text())
    config = {**conflist["plugins"][0], "name": conflist["name"], "cniVersion": "1.1.0"}
    config.pop("capabilities", None)
    plugin, args = "/opt/cni/bin/nftcni", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=1"
    before = tool.snapshot()
    versions = tool.cni("VERSION", {"cniVersion": "1.0.0"}, "dummy", netns="dummy", ifname="dummy", plugin=plugin)
    assert {"0.4.0", "1.0.0", "1.1.0"} <= set(versions.document["supportedVersions"])
    first = tool.cni("ADD", config, "pod1", netns=pod.path, args=args, plugin=plugin)
    assert first.status == 0, first.stdout
    checked = tool.cni("CHECK", {**config, "prevResult": first.document}, "pod1", pod.path, args=args, plugin=plugin)
    assert checked.status == 0, checked.stdout
    tool.run("ip", "netns", "delete", "pod")
    for netns in (pod.path, "/run/netns/stale", ""):
        gone = tool.cni("DEL", {**config, "prevResult": first.document}, "pod1", netns, args=args, plugin=plugin)
        assert gone.status == 0, gone.stdout
    assert tool.snapshot() == before
    tool.run("ip", "netns", "add", "pod")
    assert tool.cni("ADD", config, "pod2", netns="/run/netns/pod", args=args, plugin=plugin).status == 0
    keys = {
        key: [{"containerID": "pod2", "ifname": "eth0"}] for key in ("cni.dev/valid-attachments", "cni.dev/attachments")
    }
    kept = tool.snapshot()
    assert tool.cni("GC", {**config, **keys}, "", netns="", ifname="", plugin=plugin).status == 0
    assert tool.snapshot() == kept
    assert tool.cni("GC", {**config, **dict.fromkeys(keys, nobody)}, "", netns="", ifname="", plugin=plugin).status == 0
    assert tool.snapshot() == before
