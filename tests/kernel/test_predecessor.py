"""DEL of a container that the reference plugins attached: it is gone whole, as they would have taken it away.

The reference plugins are here themselves; what is left is what iptables-save, nft and ip say.
"""

from __future__ import annotations

import json
import shutil

import pytest
from support.libcni import REFERENCES, Runtime, nerdctl, ours, with_nftables
from support.scratch import Host, Json, port
from support.traffic import Server, ask

PORTS = [port(8080, 80), port(5353, 53, "udp")]
FOLDER = "/var/lib/cni/networks/bridge"
references = pytest.mark.parametrize("reference", REFERENCES)


def left(host: Host) -> dict[str, Json]:
    """All that is anybody's on the host, counters and handles aside; what is shared by all stays."""
    saved = [
        host.run(program, "-S", "-t", table) for program in ("iptables", "ip6tables") for table in ("nat", "filter")
    ]
    ruleset = host.run("nft", "list", "ruleset")
    return {
        "iptables": sorted(line for text in saved for line in text.splitlines()),
        "ports": [line for line in ruleset.splitlines() if "dport" in line or "masquerade" in line],
        "links": sorted(item["ifname"] for item in host.json("ip", "-j", "link")),
        "leases": sorted(path.name for path in host.file(FOLDER).iterdir()),
        "elements": host.elements(),
        "state": host.state_files(),
    }


def conflist(version: str = "1.0.0") -> Json:
    """The reference firewall knows no version before 0.4.0."""
    made = with_nftables(nerdctl())
    old = version < "0.4.0"
    plugins = [item for item in made["plugins"] if not (old and item["type"] == "firewall")]
    return {**made, "cniVersion": version, "plugins": plugins}


@references
def test_the_device_of_bandwidth_goes_too(host: Host, reference: str) -> None:
    """The reference's next ADD of that container would find its name taken."""
    made = conflist()
    limits = {"type": "bandwidth", "egressRate": 1000000, "egressBurst": 1000000}
    runtime = Runtime(host, {**made, "plugins": [*made["plugins"], limits]})
    host.container("other")
    runtime.add(reference, "other")
    before = left(host)
    host.container("c1")
    runtime.add(reference, "c1")
    assert any(name.startswith("bwp") for name in set(left(host)["links"]) - set(before["links"]))
    runtime.delete(ours(host), "c1")
    assert left(host) == before


@references
@pytest.mark.parametrize("kind", ["chain", "own"])
@pytest.mark.parametrize("version", ["1.0.0", "0.3.1"])
def test_nothing_is_left_of_it(host: Host, reference: str, kind: str, version: str) -> None:
    """By the drop-in names, and by a network that has become one plugin object; 0.3.1 sends no prevResult on DEL."""
    runtime = Runtime(host, conflist(version))
    host.container("other")
    runtime.add(reference, "other", [port(9090, 90)])
    before = left(host)
    host.container("c1")
    result = runtime.add(reference, "c1", PORTS)
    assert left(host) != before
    if kind == "own":
        main = {**runtime.conflist["plugins"][0], "type": "nftcni", "capabilities": {"portMappings": True}}
        runtime.conflist = {**runtime.conflist, "plugins": [{**main, "name": "bridge"}]}
    runtime.delete(ours(host), "c1", PORTS)
    assert left(host) == before
    assert host.place("c1").link("eth0") is None
    assert result["ips"][0]["address"].startswith("10.4.0.3/")


@references
def test_its_address_and_port_are_the_next_ones(host: Host, reference: str) -> None:
    """A rule of before would lead them astray."""
    runtime = Runtime(host, conflist())
    host.container("c1")
    lan = host.neighbour()
    first = runtime.add(reference, "c1", PORTS)
    folder = ours(host)
    runtime.delete(folder, "c1", PORTS)
    host.container("c2")
    address = first["ips"][0]["address"].partition("/")[0]
    second = runtime.add(folder, "c2", PORTS, args=f"IgnoreUnknown=1;IP={address}")
    assert second["ips"][0]["address"].partition("/")[0] == address
    with Server(host.place("c2"), 80):
        assert ask(lan, "198.51.100.1", 8080) == "c2 198.51.100.2"


@references
def test_rules_by_an_address_that_is_anothers_by_now_stay(host: Host, reference: str) -> None:
    """Its lease was lost and given to the next one, whose rules are the very same."""
    runtime = Runtime(host, conflist())
    for name in ("c1", "c2"):
        host.container(name)
    runtime.add(reference, "c1")
    shutil.rmtree(host.file(FOLDER))
    runtime.add(reference, "c2")
    before = host.run("iptables", "-S", "CNI-FORWARD")
    runtime.delete(ours(host), "c1")
    assert host.run("iptables", "-S", "CNI-FORWARD") == before
    assert "10.4.0.2" in left(host)["leases"]


def test_rules_of_the_older_iptables(host: Host) -> None:
    """nft does not see them."""
    if host.call("iptables-legacy", "-t", "nat", "-S").returncode:
        pytest.fail("this kernel has no ip_tables, or iptables-legacy is missing")
    tools = host.file("/run/cni/legacy")
    tools.mkdir()
    for name in ("iptables", "ip6tables"):
        (tools / name).symlink_to(f"/usr/sbin/{name}-legacy")
    host.env["PATH"] = "/run/cni/legacy:/usr/sbin:/usr/bin:/sbin:/bin"
    runtime = Runtime(host, nerdctl())
    host.container("c1")
    runtime.add(REFERENCES[0], "c1", PORTS)
    assert "10.4.0.2" in host.run("iptables-legacy", "-t", "nat", "-S")
    host.env["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    runtime.delete(ours(host), "c1", PORTS)
    for table in ("nat", "filter"):
        saved = host.run("iptables-legacy", "-t", table, "-S")
        assert "10.4.0.2" not in saved and "CNI-DN-" not in saved, saved


def test_without_a_program_for_them_it_is_said(host: Host) -> None:
    """With the command that shows them."""
    if host.call("iptables-legacy", "-t", "nat", "-S").returncode:
        pytest.fail("this kernel has no ip_tables, or iptables-legacy is missing")
    runtime = Runtime(host, nerdctl())
    host.container("c1")
    runtime.add(REFERENCES[0], "c1", PORTS)
    host.run("mount", "--bind", "/dev/null", "/usr/sbin/xtables-legacy-multi")
    said = runtime.delete(ours(host), "c1", PORTS)
    assert "iptables-legacy -w 5 -t nat" in said


def test_portmap_alone_behind_another_main_plugin(host: Host) -> None:
    """The main plugin takes its own away, afterwards."""
    runtime = Runtime(host, nerdctl())
    host.container("c1")
    runtime.add(REFERENCES[0], "c1", PORTS)
    folder = ours(host)
    for name in ("bridge", "firewall", "tuning", "host-local"):
        host.run("ln", "-sf", f"{REFERENCES[0]}/{name}", f"{folder}/{name}")
    runtime.delete(folder, "c1", PORTS, netns="/run/netns/c1")
    rules = host.run("iptables", "-t", "nat", "-S")
    assert "CNI-DN-" not in rules and "10.4.0" not in rules


def test_the_usual_del_looks_for_nothing(host: Host) -> None:
    """Neither the first, nor nerdctl's further ones with prevResult, nor the one before the first ADD."""
    runtime = Runtime(host, nerdctl(), cache=False)
    folder = ours(host)
    host.container("c1")
    result = runtime.add(folder, "c1", PORTS)
    for previous in ({"prevResult": result}, {"prevResult": result}, {}):
        for plugin in reversed(runtime.conflist["plugins"]):
            document = {**plugin, **previous, "cniVersion": "1.0.0", "name": "bridge"}
            document["runtimeConfig"] = {"portMappings": PORTS}
            variables = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_PATH": "/x"}
            words = ("/usr/bin/python3", "-X", "importtime", "-IS", f"{folder}/{plugin['type']}")
            done = host.call(*words, input=json.dumps(document), env={**variables, "PYTHONDONTWRITEBYTECODE": ""})
            assert done.returncode == 0, done.stdout
            assert "cni.predecessor" not in done.stderr, (plugin, previous)
