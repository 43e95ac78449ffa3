"""What the commands print: JSON by its schema, columns in a pipe and on a terminal, names from the runtimes' state."""

from __future__ import annotations

import json
import os
import pty
from collections.abc import Iterator

import jsonschema
import pytest
from support.broken import Scene
from support.scratch import CHECKOUT, PLUGIN, Host, Json, network


@pytest.fixture
def scene(host: Host) -> Iterator[Scene]:
    made = Scene(host)
    yield made
    made.close()


def valid(scene: Scene, schema: str, *words: str) -> Json:
    done = scene.host.command(*words)
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(done.stdout)
    text = (CHECKOUT / "conf" / "schemas" / f"{schema}.json").read_text()
    jsonschema.Draft202012Validator.check_schema(json.loads(text))
    jsonschema.validate(document, json.loads(text), cls=jsonschema.Draft202012Validator)
    return document


def test_json_is_what_its_schema_says(scene: Scene) -> None:
    config = json.dumps({"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "nftcni", "mtu": "x"}]})
    scene.host.file("/run/net.d/x.conflist").write_text(config)
    for broken in (False, True):
        assert valid(scene, "doctor", "doctor", "--json")["attachments"] == 2
        assert len(valid(scene, "explain", "explain", "8080", "--json")["ways"]) >= 3
        assert [one["network"] for one in valid(scene, "list", "list", "--json")] == ["net0", "net0"]
        assert {one["hostPort"] for one in valid(scene, "ports", "ports", "--json")["ports"]} == {8080, 5353}
        assert len(valid(scene, "top", "top", "--json")["containers"]) == 2
        assert not valid(scene, "check", "check", "--json")["valid"]
        if not broken:
            scene.sh("sysctl -qw net.ipv4.ip_forward=0")


def terminal(scene: Scene, *words: str, **env: str) -> str:
    """What a person sees."""
    here, there = pty.openpty()
    with scene.host.popen(PLUGIN, *words, stdout=there, env={"TERM": "xterm", "LANG": "C.UTF-8", **env}) as process:
        os.close(there)
        text = b""
        while True:
            try:
                chunk = os.read(here, 4096)
            except OSError:
                break
            if not chunk:
                break
            text += chunk
    os.close(here)
    assert process.returncode in (0, 1)
    return text.decode().replace("\r\n", "\n")


def test_a_terminal_gets_a_header_and_a_pipe_does_not(scene: Scene) -> None:
    text = terminal(scene, "list")
    assert text.startswith("\033[1mNAME") and "8080->80/tcp" in text
    assert "\033" not in terminal(scene, "list", NO_COLOR="1")
    assert scene.host.command("list").stdout.startswith("net0/peer/eth0  veth")
    line = scene.host.command("ports").stdout.splitlines()[0].split("  ")
    assert line == ["udp", "0.0.0.0", "5353", "10.88.0.2", "53", "net0/web/eth0", "-"]
    assert "8080/tcp" in terminal(scene, "ports", NO_COLOR="1")


def test_names_of_the_runtimes(scene: Scene) -> None:
    """nerdctl's name store, podman's list, and what libcni noted of a pod."""
    host = scene.host
    host.run("mount", "-t", "tmpfs", "none", "/var/lib")
    long = "0123456789abcdef" * 4
    config = network("net1", "10.99.0.0/24")
    for container in (f"default-{long}", "f" * 64, "sandbox"):
        host.run("ip", "netns", "add", container[:20])
        host.add(config, container, netns=f"/run/netns/{container[:20]}")
    store = host.file("/var/lib/nerdctl/1935db59/names/default")
    store.mkdir(parents=True)
    store.joinpath("shop").write_text(long)
    podman = host.file("/var/lib/containers/storage/overlay-containers")
    podman.mkdir(parents=True)
    podman.joinpath("containers.json").write_text(json.dumps([{"id": "f" * 64, "names": ["bank"]}]))
    results = host.file("/var/lib/cni/results")
    results.mkdir(parents=True)
    arguments = [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "prod"], ["K8S_POD_NAME", "api-0"]]
    results.joinpath("net1-sandbox-eth0").write_text(json.dumps({"containerId": "sandbox", "cniArgs": arguments}))
    results.joinpath("net1-broken-eth0").write_text("{")
    text = terminal(scene, "list", NO_COLOR="1")
    assert [line.split()[:2] for line in text.splitlines()[1:] if "net1" in line] == [
        ["shop", long[:12]],
        ["bank", "f" * 12],
        ["prod/api-0", "sandbox"],
    ]
    for pattern, count in (("shop", 1), ("net1", 3), ("10.99.0.*", 3), ("nothing", 0)):
        assert len(host.command("list", pattern).stdout.splitlines()) == count, pattern
    assert len(host.command("list", "--port", "8080").stdout.splitlines()) == 1
    assert "shop" in json.loads(host.command("list", "shop", "--json").stdout)[0]["runtimeName"]
    assert "net1/default" in host.command("explain", "shop").stdout


def packets_in(look: Json) -> int:
    return sum(one["packetsIn"] for one in look["containers"] if "web" in one["attachment"])


def test_traffic_is_counted(scene: Scene) -> None:
    scene.sh("sysctl -qw net.netfilter.nf_conntrack_acct=1")
    before = valid(scene, "top", "top", "--json")
    for _ in range(3):
        assert scene.lives("lan")
    after = valid(scene, "top", "top", "--json")
    assert after["source"] == "conntrack"
    ports = {(one["attachment"], one["port"]): one for one in after["ports"]}
    assert ports[("net0/web/eth0", "0.0.0.0:8080/tcp")]["connections"] == 3
    assert ports[("net0/web/eth0", "0.0.0.0:8080/tcp")]["bytesIn"] > 0
    assert packets_in(after) > packets_in(before)
    text = scene.host.command("metrics").stdout
    assert 'nftcni_port_connections{attachment="net0/web/eth0",port="0.0.0.0:8080/tcp"} 3' in text
    assert "nftcni_table_present 1" in text
    for line in text.splitlines():
        assert line.startswith("# ") or len(line.rsplit(" ", 1)) == 2 and float(line.rsplit(" ", 1)[1]) >= 0
    scene.sh("nftcni metrics --output /run/nftcni.prom")
    assert "nftcni_attachments" in scene.host.file("/run/nftcni.prom").read_text()
    head, _, body = scene.host.command("metrics", "--http").stdout.partition("\n\n")  # newlines as Python reads them
    assert f"Content-Length: {len(body.encode())}" in head


def test_a_picture_of_the_networks(scene: Scene) -> None:
    text = scene.host.command("graph").stdout
    assert "net0/web  10.88.0.2 fd00:88::2  [8080->80/tcp 5353->53/udp]" in text and "✗" not in text
    scene.sh("ip -n web link set eth0 down")
    assert "✗ eth0 of net0/web/eth0 is down" in scene.host.command("graph").stdout
    dot = scene.host.command("graph", "--dot").stdout
    assert '"link br0" -> "net0/web/eth0"' in dot and dot.count("penwidth=2") == 2 and dot.count("#ffebee") == 1
    if scene.host.call("sh", "-c", "command -v dot").returncode == 0:
        assert "<svg" in scene.host.command("graph", "--svg").stdout
    else:
        assert "graphviz" in scene.host.command("graph", "--svg").stderr


def test_a_tree_of_several_bridges_has_one_last_twig(scene: Scene) -> None:
    scene.host.add(network("net1", "10.99.0.0/24"), "other")
    lines = [line.rstrip() for line in scene.host.command("graph").stdout.splitlines()]
    twigs = [line.split()[0] for line in lines if line.split()[1:2] in (["br-net1"], ["br0"])]
    assert twigs == ["├─", "└─"], lines
    assert "│  └─ net1/other  10.99.0.2" in lines and "   └─ net0/web" in "\n".join(lines), lines


def test_live(scene: Scene) -> None:
    """One packet, traced; nothing is left of it."""
    before = scene.host.links(), scene.host.run("nft", "list", "tables")
    done = scene.host.command("explain", "8080/tcp", "--live")
    assert done.returncode == 0 and "192.0.2.1:8080 answered" in done.stdout, done.stdout
    scene.host.nft("table inet fw { chain fc { type filter hook forward priority 0; policy drop; }; }")
    done = scene.host.command("explain", "8080/tcp", "--live")
    assert "inet fw fc: policy drop" in done.stdout and "the kernel's own trace" in done.stdout, done.stdout
    scene.host.nft("delete table inet fw")
    assert (scene.host.links(), scene.host.run("nft", "list", "tables")) == before


def test_repair_of_one_container(scene: Scene) -> None:
    """The inside is put right only where it is asked for by name."""
    scene.sh("ip -n web addr flush dev eth0")
    assert scene.host.command("repair").stdout == "nothing to repair\n"
    assert scene.host.command("repair", "net0/web", "--check").returncode == 1
    assert not scene.lives("lan", 0.4)
    done = scene.host.command("repair", "net0/web")
    assert done.returncode == 0 and "restored net0/web/eth0" in done.stdout
    assert scene.lives("lan") and scene.lives("lan6")
    assert scene.host.command("repair", "net0/nobody").returncode == 1


def test_check_knows_the_other_files_and_the_host(scene: Scene) -> None:
    """A subnet that the LAN has, a bridge and a name that another file has."""

    def write(file: str, **keys: Json) -> str:
        plugin = {"type": "nftcni", "bridge": keys["bridge"], "capabilities": {"portMappings": True}}
        plugin["ipam"] = {"ranges": [[{"subnet": keys["subnet"]}]]}
        text = json.dumps({"cniVersion": "1.0.0", "name": keys["name"], "plugins": [plugin]}, indent=1)
        scene.host.file(f"/run/net.d/{file}").write_text(text)
        return f"/run/net.d/{file}"

    good = write("10-a.conflist", name="a", bridge="br7", subnet="10.7.0.0/24")
    done = scene.host.command("check")
    assert (done.returncode, done.stdout) == (0, f"{good}: valid\n")
    other = write("20-b.conflist", name="a", bridge="br8", subnet="10.7.0.128/25")
    text = scene.host.command("check", other).stdout
    assert f'{good} is called "a" too' in text and "10.7.0.128/25 overlaps 10.7.0.0/24" in text
    lan = write("20-b.conflist", name="b", bridge="br7", subnet="198.51.100.0/24")
    done = scene.host.command("check", lan)
    assert done.returncode == 0, "warnings are no mistakes"
    assert f"{good} is on the bridge br7 too" in done.stdout and f"{lan}:15:18: warning: " in done.stdout, done.stdout
    assert "overlaps the host's route to 198.51.100.0/24 by to-lan" in done.stdout
    write("20-b.conflist", name="b", bridge="br8", subnet="10.8.0.0/33")
    assert scene.host.command("check").returncode == 1


@pytest.mark.parametrize("words", ["list", "ports", "metrics", "doctor", "top --json", "explain 8080"])
def test_an_answer_that_got_lost_is_no_success(scene: Scene, words: str) -> None:
    """A full disk left half a file for Prometheus, with exit status 0. A reader who has enough hears nothing of it."""
    done = scene.host.call("sh", "-c", f"{PLUGIN} {words} >/dev/full")
    assert done.returncode in (1, 2) and "No space left" in done.stderr and "Traceback" not in done.stderr
    done = scene.host.call("bash", "-c", f"{PLUGIN} {words} | :; echo ${{PIPESTATUS[0]}}")
    assert (done.stdout, done.stderr) in (("0\n", ""), ("1\n", "")), "with :, the writer may be first"
