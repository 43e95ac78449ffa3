"""Broken inside a container, or between containers: found from the host, mended as printed."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.broken import PATIENT, PORTS, Case, Scene, examine
from support.scratch import Host, network, port
from support.traffic import Server

IN = "ip netns exec web "

CASES = [
    Case("no default route", "ip -n web route del default", ("no route to 198.51.100.2",), "nftcni repair net0/web"),
    Case(
        "another gateway",
        "ip -n web route replace default via 10.88.0.77 dev eth0 onlink",
        ("10.88.0.77", "10.88.0.1"),
        "route replace default via 10.88.0.1",
    ),
    Case(
        "by another interface",
        "ip -n web link add tun0 type veth peer name tun1; ip -n web link set tun0 up; ip -n web link set tun1 up;"
        "ip -n web route add 198.51.100.0/25 dev tun0",
        ("198.51.100.2", "tun0"),
        "route replace 198.51.100.2 via 10.88.0.1",
    ),
    Case(
        "no address", "ip -n web addr flush dev eth0", ("lacks the address", "10.88.0.2/24"), "nftcni repair net0/web"
    ),
    Case(
        "no IPv6 address", "ip -n web -6 addr del fd00:88::2/64 dev eth0", ("fd00:88::2/64",), "nftcni repair", "lan6"
    ),
    Case(
        "a route that drops",
        "ip -n web route add blackhole 198.51.100.0/24",
        ("blackhole 198.51.100.0/24",),
        "route del blackhole",
    ),
    Case(
        "a default route that drops",
        "ip -n web route replace blackhole default",
        ("blackhole default",),
        "nftcni repair net0/web",
    ),
    Case("a rule that drops", "ip -n web rule add from 10.88.0.2 prohibit", ("prohibit",), "ip rule del priority"),
    Case(
        "a VPN inside",
        "ip -n web link add tun0 type veth peer name tun1; ip -n web link set tun0 up; ip -n web link set tun1 up;"
        "ip -n web route add default dev tun0 table 77; ip -n web rule add not fwmark 77 lookup 77",
        ("198.51.100.2", "tun0"),
        "lookup main priority",
    ),
    Case(
        "a wrong entry for the gateway",
        "ip -n web neigh replace 10.88.0.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        ("02:00:00:00:00:99", "10.88.0.1"),
        "ip neigh del 10.88.0.1",
    ),
    Case(
        "a wrong entry for the gateway of IPv6",
        "ip -n web neigh replace fd00:88::1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        ("02:00:00:00:00:99", "fd00:88::1"),
        "ip neigh del fd00:88::1",
        "lan6",
    ),
    Case("no ARP", "ip -n web link set eth0 arp off; ip neigh flush all", ("eth0", "ARP"), "arp on"),
    Case(
        "ARP is not answered",
        IN + "sysctl -qw net.ipv4.conf.eth0.arp_ignore=8; ip neigh flush all",
        ("arp_ignore",),
        "arp_ignore=0",
    ),
    Case(
        "its own firewall for IPv6",
        IN + "nft 'add table ip6 own; add chain ip6 own in { type filter hook input priority 0; policy drop; }'",
        ("inside net0/web/eth0", "ip6 own"),
        "nd-neighbor-solicit",
        "lan6",
    ),
    Case("link down", "ip -n web link set eth0 down", ("eth0", "is down"), "ip link set eth0 up"),
    Case(
        "link renamed",
        "ip -n web link set eth0 down; ip -n web link set eth0 name old0",
        ("eth0", "missing"),
        "nftcni repair net0/web",
    ),
    Case("link deleted", "ip -n web link del eth0", ("is missing",), "nftcni repair net0/web"),
    Case(
        "its own firewall",
        IN + "nft 'add table inet own; add chain inet own in { type filter hook input priority 0; policy drop; }'",
        ("inside net0/web/eth0", "inet own"),
        "insert rule inet own in",
    ),
    Case(
        "its own firewall, outward",
        IN + "nft 'add table inet own; add chain inet own out { type filter hook output priority 0; policy drop; }'",
        ("inside net0/web/eth0", "inet own"),
        "insert rule inet own out",
    ),
    Case(
        "its own iptables",
        IN + "iptables-nft -A INPUT -p tcp --dport 80 -j DROP",
        ("inside net0/web/eth0", "INPUT"),
        "iptables",
    ),
    Case(
        "a port of a bridge of its own",
        "ip -n web link add inner type bridge; ip -n web link set inner up; ip -n web link set eth0 master inner",
        ("eth0 of net0/web/eth0 is a port of inner",),
        "ip link set eth0 nomaster",
    ),
    Case(
        "its own IPsec, inward",
        "ip -n web xfrm policy add src 0.0.0.0/0 dst 10.88.0.2 dir in action block",
        ("inside net0/web/eth0", "IPsec", "dir in"),
        "ip xfrm policy delete dir in",
    ),
    Case(
        "its own IPsec, outward",
        "ip -n web xfrm policy add src 10.88.0.2 dst 0.0.0.0/0 dir out action block",
        ("inside net0/web/eth0", "IPsec", "dir out"),
        "ip xfrm policy delete dir out",
    ),
    Case(
        "led to a port where nobody listens",
        IN + "nft 'add table inet own; add chain inet own pre { type nat hook prerouting priority -100; };"
        " add rule inet own pre tcp dport 80 redirect to :15001'",
        ("inside net0/web/eth0", "inet own", "15001", "nobody listens"),
        "nft delete rule inet own pre",
    ),
    Case(
        "led to a port where nobody listens, by iptables",
        IN + "iptables-nft -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.88.0.2:81",
        ("inside net0/web/eth0", "10.88.0.2:81", "nobody listens"),
        "-t nat -D PREROUTING",
    ),
]
# What a program has to do itself: no command of ours can.
PROGRAMS: dict[str, tuple[Callable[[Scene], Server | None], tuple[str, ...]]] = {
    "nobody listens": (lambda scene: None, ("nobody", "10.88.0.2:80/tcp")),
    "on 127.0.0.1 alone": (lambda scene: Server(scene.web, 80, address="127.0.0.1"), ("127.0.0.1:80 only",)),
    "on IPv6 alone": (lambda scene: Server(scene.web, 80, address="::"), ("[::]:80 only", "10.88.0.2")),
    "on another port": (lambda scene: Server(scene.web, 8000), ("nobody", "8000")),
    "on the other protocol": (lambda scene: Server(scene.web, 80, "udp"), ("nobody", "80/tcp")),
}


@pytest.fixture
def scene(host: Host) -> Iterator[Scene]:
    made = Scene(host)
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_inside(scene: Scene, case: Case) -> None:
    if "xfrm" in case.script and scene.host.call("ip", "xfrm", "policy", "list").returncode:
        pytest.skip("NOT RUN: this kernel has no IPsec (CONFIG_XFRM_USER)")
    examine(scene, case)


@pytest.mark.parametrize("name", PROGRAMS)
def test_who_listens(scene: Scene, name: str) -> None:
    start, names = PROGRAMS[name]
    scene.web.run("ip", "link", "set", "lo", "up")
    scene.servers.pop(0).close()
    server = start(scene)
    try:
        assert not scene.lives("lan")
        texts = [f"{step['what']} {step['because']}" for step in scene.findings("explain 8080/tcp")]
        assert any(all(word in text for word in names) for text in texts), texts
        assert [step["kind"] for step in scene.findings("doctor")], "doctor says it, too"
    finally:
        if server is not None:
            server.close()
    scene.servers.insert(0, Server(scene.web, 80))
    assert scene.lives("lan") and scene.findings("doctor") == []


def test_a_sibling_with_the_same_address(scene: Scene) -> None:
    scene.sh("ip -n peer addr add 10.88.0.2/24 dev eth0; ip neigh flush all; ip -n web link set eth0 arp off")
    scene.host.run("ping", "-c1", "-W1", "10.88.0.2", check=False)
    scene.servers[3].close()
    assert scene.reach("lan") in ("silence", "refused", "peer 198.51.100.2")
    scene.sh("ip -n web link set eth0 arp on")
    found = [step for step in scene.findings("doctor") if step["kind"] == "duplicate"]
    assert found and "net0/peer/eth0" in found[0]["what"] and "10.88.0.2" in found[0]["what"]
    scene.sh("\n".join(command for step in found for command in step["remedy"]))
    assert scene.lives("lan") and scene.findings("doctor") == []
    scene.servers[3] = Server(scene.lan, 82)


def test_frames_that_are_too_long(scene: Scene) -> None:
    """UDP from a container whose MTU was raised: the other end of the pair drops it without a word."""
    scene.sh("ip -n web link set eth0 mtu 9000")
    question = b"x" * 4000

    def echo() -> bool:
        import socket

        with scene.web.entered():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            sock.settimeout(0.4)
            sock.sendto(question, ("10.88.0.1", 5000))
            try:
                return sock.recv(100).startswith(b"host")
            except socket.timeout:
                return False

    assert not echo()
    (found,) = scene.findings("doctor")
    assert found["kind"] == "mtu" and "9000" in found["what"]
    scene.sh("\n".join(found["remedy"]))
    assert echo() and scene.findings("doctor") == []


def test_the_mtu_of_one_container(scene: Scene) -> None:
    """The remedy is for that one: it used to make the bridge as small, and with it every other container."""
    scene.sh("ip -n web link set eth0 mtu 1000")
    commands = [command for step in scene.findings("doctor") for command in step["remedy"]]
    assert commands and not any(word in command for command in commands for word in ("br0", scene.link, "peer"))
    scene.sh("\n".join(dict.fromkeys(commands)))
    assert scene.findings("doctor") == [] and scene.lives("lan6", PATIENT)


def test_ended_without_del(scene: Scene) -> None:
    """Its port and its address are held until somebody forgets it; never while it lives."""
    done = scene.host.command("forget", "net0/web")
    assert done.returncode == 1 and "lives" in done.stderr
    assert scene.host.command("gc").stdout == "0 of 2 attachments had ended without DEL\n"
    for server in scene.servers[:3]:
        server.close()
    del scene.servers[:3]
    scene.host.end("web")
    assert not scene.lives("lan", 0.4)
    config = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=PORTS, bridge="br0", version="1.0.0")
    scene.host.container("next")
    assert scene.host.cni("ADD", config, "next").code == 100
    found = scene.findings("explain 8080/tcp")
    assert {step["kind"] for step in found} == {"ended"} and found[0]["remedy"] == ["nftcni forget net0/web"]
    assert [step["kind"] for step in scene.findings("doctor")] == ["ended"]
    scene.sh("nftcni gc --dry-run; nftcni forget net0/web")
    scene.host.add(config, "next", netns="/run/netns/next")
    scene.servers.append(Server(scene.host.place("next"), 80))
    assert scene.reach("lan") == "next 198.51.100.2"


def test_gc_frees_all_that_have_ended(scene: Scene) -> None:
    for name in ("one", "two"):
        scene.host.add(
            network("net1", "10.99.0.0/24", ports=[port(9000 + len(name), 80)] if name == "one" else []), name
        )
        scene.host.end(name)
    done = scene.host.command("gc")
    assert "2 of 4 attachments" in done.stdout and "net1/one/eth0" in done.stdout
    assert scene.findings("doctor") == [] and scene.lives("lan")
    assert not [item for item in scene.host.state_files() if "net1" in item]


HANGING = """import socket, time
held = socket.socket(socket.AF_INET6)
held.bind(("::", 80))
held.listen(9)
print("ready", flush=True)
time.sleep(600)"""


@pytest.mark.parametrize("stopped", [False, True], ids=["hangs", "stopped"])
def test_a_program_that_takes_no_connection(scene: Scene, stopped: bool) -> None:
    """It listens, so doctor was content: what waits at its socket tells."""
    scene.servers.pop(0).close()
    with scene.host.popen(
        "nsenter", "--net=/run/netns/web", "/usr/bin/python3", "-c", HANGING, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            assert scene.findings("doctor") == [], "nobody has asked yet"
            if stopped:
                process.send_signal(signal.SIGSTOP)
            assert scene.reach("lan") == "silence"
            (found,) = scene.findings("doctor")
            assert found["kind"] == ("stopped" if stopped else "hangs") and "in net0/web/eth0" in found["what"]
            assert "python3" in found["because"] and "connections wait" in found["because"]
            assert found["remedy"] == ([f"kill -CONT {process.pid}"] if stopped else found["remedy"])
            scene.sh("\n".join(found["remedy"]))
            assert "T (stopped)" not in Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.kill()
    scene.servers.insert(0, Server(scene.web, 80))
    assert scene.lives("lan") and scene.findings("doctor") == []


def test_a_container_that_leads_its_port_on(scene: Scene) -> None:
    """A host of containers itself (kind, Docker in Docker): nobody in it listens on the port, and doctor said so."""
    pod = scene.host.container("pod")
    scene.sh(
        "ip -n web link add down0 type veth peer name eth0 netns pod; ip -n web link set down0 up;"
        "ip -n web addr add 10.244.0.1/24 dev down0; ip -n pod addr add 10.244.0.2/24 dev eth0;"
        "ip -n pod link set eth0 up; ip -n pod route add default via 10.244.0.1;"
        "ip netns exec web sysctl -qw net.ipv4.ip_forward=1;"
        f"{IN}nft 'add table ip own; add chain ip own pre {{ type nat hook prerouting priority -100; }};"
        " add rule ip own pre tcp dport 80 dnat to 10.244.0.2:8000'"
    )
    scene.servers.pop(0).close()
    scene.servers += [Server(pod, 8000), Server(scene.web, 80, address="::")]
    assert scene.reach("lan").startswith("pod ") and scene.lives("lan6")
    assert scene.findings("doctor") == [] and scene.findings("explain 8080") == []
