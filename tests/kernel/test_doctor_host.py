"""What concerns the host as a whole: listeners, addresses, leftovers of other plugins, CNI's folders."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.broken import SHORT, SUBNETS, Case, Scene, examine
from support.libcni import REFERENCES, Runtime, nerdctl, ours
from support.scratch import Host, network, port
from support.traffic import Server, ask, serving

CASES = [
    Case(
        "left by the reference plugin",
        "nft -f - <<'END'\ntable ip nat {\n chain CNI-DN-0123 { tcp dport 8080 dnat to 10.88.0.9:80; }\n"
        " chain PREROUTING { type nat hook prerouting priority -101;\n tcp dport 8080 jump CNI-DN-0123\n }\n}\nEND",
        ("CNI-DN-0123", "10.88.0.9"),
        "CNI-DN-0123",
        see="doctor",
    ),
    Case(
        "the host in the containers' network",
        "ip link add d0 type veth peer name d1; ip link set d1 up; ip link set d0 up; ip addr add 10.88.0.77/25 dev d0",
        ("d0", "10.88.0.77/25"),
        "ip addr del 10.88.0.77/25 dev d0",
        see="doctor",
    ),
]


@pytest.fixture
def scene(host: Host) -> Iterator[Scene]:
    made = Scene(host)
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_host(scene: Scene, case: Case) -> None:
    examine(scene, case)


def test_an_address_that_the_host_has_no_more(scene: Scene) -> None:
    scene.sh("ip addr add 198.51.100.7/24 dev to-lan")
    scene.host.add(network("net2", "10.77.0.0/24", ports=[port(8088, 80, ip="198.51.100.7")], bridge="br2"), "bound")
    with Server(scene.host.place("bound"), 80):
        assert ask(scene.lan, "198.51.100.7", 8088) == "bound 198.51.100.2"
        scene.sh("ip addr del 198.51.100.7/24 dev to-lan")
        scene.lan.run("ip", "neigh", "flush", "all")
        assert ask(scene.lan, "198.51.100.7", 8088, timeout=SHORT) == "silence"
        found = scene.findings("explain 8088")
        assert {step["kind"] for step in found} == {"host-ip"} and "198.51.100.7" in found[0]["what"]
        scene.sh("\n".join(found[0]["remedy"]))
        scene.lan.run("ip", "neigh", "flush", "all")
        assert ask(scene.lan, "198.51.100.7", 8088) == "bound 198.51.100.2"
        assert scene.findings("doctor") == []


LISTEN = (
    "import socket,time;s=socket.socket();s.bind(('0.0.0.0',8080));s.listen();print('ready',flush=True);time.sleep(60)"
)


def test_a_listener_on_a_published_port(scene: Scene) -> None:
    """Its clients get the container. A reserver of nerdctl holds the same socket on purpose."""
    with scene.host.popen("/usr/bin/python3", "-c", LISTEN, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            (found,) = scene.findings("doctor")
            assert found["kind"] == "listener" and "8080" in found["what"] and "python3" in found["what"]
            scene.sh("\n".join(found["remedy"]))
            assert process.wait(5) != 0
        finally:
            process.kill()
    assert scene.findings("doctor") == []


def test_a_listener_that_the_network_allows(scene: Scene) -> None:
    """The operator has written allowBoundPorts: the container is to have the port's clients. Doctor said: kill it."""
    plugin = {**GOOD["plugins"][0], "bridge": "br9", "ipam": {"ranges": [[{"subnet": "10.99.0.0/24"}]]}}
    plugin["allowBoundPorts"] = True
    text = json.dumps({"cniVersion": "1.0.0", "name": "shared", "plugins": [plugin]})
    scene.host.env["CNI_PATH"] = "/run/bin"
    scene.host.file("/run/net.d/10-shared.conflist").write_text(text)
    with serving(Server(scene.host, 8099)):
        config = network("shared", "10.99.0.0/24", bridge="br9", version="1.0.0", ports=[port(8099, 80)])
        scene.host.add({**config, "allowBoundPorts": True}, "c9")
        scene.servers.append(Server(scene.host.place("c9"), 80))
        assert ask(scene.lan, "198.51.100.1", 8099).startswith("c9 ") and scene.findings("doctor") == []
        scene.host.file("/run/net.d/10-shared.conflist").write_text(text.replace('Ports": true', 'Ports": false'))
        assert [step["kind"] for step in scene.findings("doctor")] == ["listener"]


def test_the_reserver_of_nerdctl(scene: Scene) -> None:
    """`sleep infinity` that inherited the socket, as nerdctl starts it."""
    code = LISTEN.replace("time.sleep(60)", "s.set_inheritable(True);import os;os.execvp('sleep',['sleep','infinity'])")
    with scene.host.popen("/usr/bin/python3", "-c", code, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            assert scene.findings("doctor") == []
        finally:
            process.kill()


@pytest.mark.parametrize("told_by", ["lease", "neighbour"])
def test_rules_of_a_living_container_beside_ours_are_no_leftovers(host: Host, told_by: str) -> None:
    """What the remedy would flush is its published port. Once it is gone, they are."""
    lan = host.neighbour()
    runtime = Runtime(host, nerdctl())
    host.container("c1")
    first = runtime.add(REFERENCES[0], "c1", [port(8080, 80)])
    host.container("c2")
    runtime.add(ours(host), "c2", [port(8081, 80)])
    with serving(Server(host.place("c1"), 80), Server(host.place("c2"), 80)):
        assert ask(lan, "198.51.100.1", 8080).startswith("c1 ")
        lease = host.file("/var/lib/cni/networks/bridge/10.4.0.2")
        if told_by == "lease":
            host.run("ip", "neigh", "flush", "all")
        else:
            lease.unlink()
            assert ask(host, "10.4.0.2", 80).startswith("c1 ")
        done = host.command("doctor")
        assert (done.returncode, done.stdout) == (0, "1 attachments, all well\n")
    lease.unlink(missing_ok=True)
    host.run("ip", "link", "del", first["interfaces"][1]["name"])
    host.run("ip", "neigh", "flush", "all")  # what time does
    done = host.command("doctor")
    assert done.returncode == 1 and "CNI-DN-" in done.stdout and "10.4.0.2, an address of ours" in done.stdout


def test_overlays_of_a_node_are_no_alarm(scene: Scene) -> None:
    """flannel.1 and cilium_host have an address of the pods' range, without a route."""
    scene.sh("for n in flannel.1 cilium_host; do ip link add $n type veth peer name p$n; ip link set $n up; done")
    scene.sh("ip addr add 10.88.0.0/32 dev flannel.1; ip addr add 10.88.0.200/32 dev cilium_host")
    assert scene.findings("doctor") == []


def test_nobody_publishes_it(scene: Scene) -> None:
    found = scene.findings("explain 9999")
    assert found[0]["kind"] == "not-published" and "net0/web/eth0 listens on 9999" in found[0]["because"]


GOOD = {
    "cniVersion": "1.0.0",
    "name": "net0",
    "plugins": [
        {
            "type": "nftcni",
            "bridge": "br0",
            "capabilities": {"portMappings": True},
            "ipam": {"ranges": [[{"subnet": "10.88.0.0/24"}]]},
        }
    ],
}
BAD: dict[str, tuple[str, str, str]] = {  # file: (name, content, what is said)
    "no JSON": ("10-a.conflist", json.dumps(GOOD)[:-1] + ",}", "no JSON"),
    "type misspelt": ("10-a.conflist", json.dumps(GOOD).replace('"nftcni"', '"nfcni"'), 'type "nfcni"'),
    "no capability": ("10-a.conflist", json.dumps(GOOD).replace("portMappings", "ips"), "portMappings"),
    "another suffix": ("10-a.conf", json.dumps(GOOD), "not called *.conflist"),
    "the wrong place": ("../10-a.conflist", json.dumps(GOOD), "no runtime looks"),
    "a value that ADD refuses": ("10-a.conflist", json.dumps(GOOD).replace("10.88.0.0/24", "10.88.0.0/33"), "subnet"),
}


@pytest.mark.parametrize("name", BAD)
def test_cni_folders(scene: Scene, name: str) -> None:
    folder = scene.host.file("/run/net.d")
    folder.joinpath("00-good.conflist").write_text(
        json.dumps({**GOOD, "name": "other", "plugins": [{"type": "bridge"}]})
    )
    scene.sh("mkdir -p /run/opt; ln -s /run/bin/nftcni /run/opt/nftcni")
    scene.host.env["CNI_PATH"] = "/run/opt"
    assert scene.findings("doctor") == []
    path, content, said = BAD[name]
    folder.joinpath(path).write_text(content)
    found = scene.findings("doctor")
    assert any(said in step["what"] for step in found), found
    folder.joinpath(path).unlink()
    folder.joinpath("10-a.conflist").write_text(json.dumps(GOOD))
    assert scene.findings("doctor") == []


def test_two_networks(scene: Scene) -> None:
    folder = scene.host.file("/run/net.d")
    scene.host.env["CNI_PATH"] = "/run/bin"
    folder.joinpath("10-a.conflist").write_text(json.dumps(GOOD))
    folder.joinpath("20-b.conflist").write_text(json.dumps({**GOOD, "name": "net1"}))
    kinds = {step["kind"] for step in scene.findings("doctor")}
    assert kinds == {"same-bridge"}
    elsewhere = {**GOOD["plugins"][0], "bridge": "br7"}
    folder.joinpath("20-b.conflist").write_text(json.dumps({**GOOD, "name": "net1", "plugins": [elsewhere]}))
    assert {step["kind"] for step in scene.findings("doctor")} == {"same-subnet", "subnet-in-use"}
    folder.joinpath("20-b.conflist").write_text(json.dumps(GOOD))
    assert "same-name" in {step["kind"] for step in scene.findings("doctor")}


TWO = {
    "both without isolation": ({"isolation": False}, {"isolation": False}),
    "two VLANs": ({"vlan": 7, "isGateway": False}, {"vlan": 8, "isGateway": False}),
    "point to point": ({"mode": "ptp"}, {"mode": "ptp"}),
    "one point to point": ({}, {"mode": "ptp"}),
}


@pytest.mark.parametrize("name", TWO)
def test_two_networks_that_add_takes_are_no_finding(scene: Scene, name: str) -> None:
    """Networks of mode ptp counted as on the default bridge, and VLANs as one network: doctor found a healthy host
    ill."""
    scene.host.env["CNI_PATH"] = "/run/bin"
    for number, keys in enumerate(TWO[name]):
        plugin = {"type": "nftcni", "capabilities": {"portMappings": True}, **keys}
        plugin["ipam"] = {"ranges": [[{"subnet": f"10.8{number}.0.0/24"}]]}
        network = {"cniVersion": "1.1.0", "name": f"net{number}", "plugins": [plugin]}
        scene.host.file(f"/run/net.d/{number}0.conflist").write_text(json.dumps(network))
        scene.host.container(f"c{number}")
    assert scene.findings("doctor") == []
    assert "valid" in scene.host.command("check").stdout and "warning" not in scene.host.command("check").stdout


def test_before_the_first_container(host: Host) -> None:
    """A policy that would keep the first container from being served is found before it comes."""
    host.neighbour()
    host.env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NETCONFPATH": "/run/net.d", "CNI_PATH": "/run/bin"}
    Path(host.file("/run/net.d")).mkdir()
    done = host.command("doctor")
    assert (done.returncode, done.stdout) == (0, "0 attachments, all well\n")
    host.nft("table inet filter { chain forward { type filter hook forward priority 0; policy drop; }; }")
    done = host.command("doctor")
    assert done.returncode == 1 and 'oifname "nftcni0" ct status dnat accept' in done.stdout


def test_what_cannot_be_looked_at(host: Host) -> None:
    """2 is neither well nor wrong."""
    host.env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NETCONFPATH": "/run/net.d"}
    host.run("mkdir", "/run/nftcni")
    host.run("mount", "-t", "tmpfs", "-o", "ro", "none", "/run/nftcni")
    done = host.command("doctor")
    assert done.returncode == 2 and "/run/nftcni" in done.stderr


def test_a_network_without_a_free_address(scene: Scene) -> None:
    """Living containers have all, or one that ended without DEL: STATUS said so, and doctor did not."""
    plugin = {**GOOD["plugins"][0], "bridge": "br9", "ipam": {"ranges": [[{"subnet": "10.99.0.0/30"}]]}}
    tiny = {"cniVersion": "1.0.0", "name": "tiny", "plugins": [plugin]}
    scene.host.file("/run/net.d/10-tiny.conflist").write_text(json.dumps(tiny))
    scene.host.env["CNI_PATH"] = "/run/bin"
    assert scene.findings("doctor") == []
    config = network("tiny", "10.99.0.0/30", bridge="br9", version="1.0.0")
    scene.host.add(config, "one")
    (found,) = scene.findings("doctor")
    assert found["kind"] == "pool" and "tiny" in found["what"] and "of 10.99.0.0/30 are leased" in found["what"]
    assert "nftcni list" in found["because"]
    scene.host.end("one")
    found = {step["kind"]: step for step in scene.findings("doctor")}["pool"]
    assert "1 of its containers have ended" in found["because"] and found["remedy"] == ["nftcni gc"]
    scene.sh("nftcni gc")
    scene.host.add(config, "two")
    scene.host.delete(config, "two")
    only = [{"subnet": "10.99.0.0/24", "rangeStart": "10.99.0.9", "rangeEnd": "10.99.0.9"}]
    plugin["ipam"] = {"ranges": [only]}
    scene.host.file("/run/net.d/10-tiny.conflist").write_text(json.dumps(tiny))
    scene.host.add({**config, "ipam": plugin["ipam"]}, "three")  # a network that was made for one container
    assert scene.findings("doctor") == []


def test_a_network_on_the_subnet_of_the_lan(scene: Scene) -> None:
    """ADD refuses it: only `check` said so. A wider route is in nobody's way, nor is one to a single address."""
    plugin = {**GOOD["plugins"][0], "bridge": "br9", "ipam": {"ranges": [[{"subnet": "198.51.100.0/24"}]]}}
    place = scene.host.file("/run/net.d/10-lan.conflist")
    place.write_text(json.dumps({"cniVersion": "1.0.0", "name": "lan", "plugins": [plugin]}))
    scene.host.env["CNI_PATH"] = "/run/bin"
    (found,) = scene.findings("doctor")
    assert found["kind"] == "subnet-in-use" and "198.51.100.0/24 by to-lan" in found["what"]
    config = network("lan", "198.51.100.0/24", bridge="br9", version="1.0.0")
    scene.host.container("c9")
    assert "in use there already" in scene.host.refused("ADD", config, "c9").words
    place.write_text(place.read_text().replace("198.51.100.0/24", "198.18.9.0/24"))
    scene.sh("ip route add 198.18.0.0/15 via 198.51.100.2; ip route add 198.18.9.7 via 198.51.100.2")
    assert scene.findings("doctor") == []
    scene.host.add(network("lan", "198.18.9.0/24", bridge="br9", version="1.0.0"), "c9")


def test_two_containers_with_one_mac_address(scene: Scene) -> None:
    """The bridge sends to whoever spoke last."""
    config = network("net0", *SUBNETS, bridge="br0", version="1.0.0", mac="02:00:00:00:00:07")
    for name in ("c8", "c9"):
        scene.host.add(config, name)
    found = [step for step in scene.findings("doctor") if step["kind"] == "duplicate-mac"]
    assert len(found) == 1 and all(word in found[0]["what"] for word in ("net0/c8", "net0/c9", "02:00:00:00:00:07"))
    scene.host.delete(config, "c9")
    assert scene.findings("doctor") == []
