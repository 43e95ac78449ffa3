"""`nftcni migrate`: running containers of the reference plugins, which are here themselves, become ours, and work on.

A held connection through a published port, new connections, and the kernel's rules are the oracle.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from support.frames import datagram, heard, mac
from support.libcni import REFERENCES, Runtime, nerdctl, ours, with_nftables
from support.machines import NETFILTER
from support.scratch import PLUGIN, Host, Json, Namespace, port
from support.traffic import Server, ask, open_socket

PORTS = [port(8080, 80), port(5353, 53, "udp")]
references = pytest.mark.parametrize("reference", REFERENCES)


class Echo:
    """A server whose connections live on: one line in, one line out."""

    def __init__(self, place: Namespace, number: int) -> None:
        self.listener = open_socket(place, socket.AF_INET, "tcp")
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("0.0.0.0", number))
        self.listener.listen(8)

    def hold(self, place: Namespace, address: str, number: int) -> tuple[socket.socket, socket.socket]:
        client = open_socket(place, socket.AF_INET, "tcp")
        client.settimeout(5)
        client.connect((address, number))
        served, _ = self.listener.accept()
        served.settimeout(5)
        return client, served


def speak(pair: tuple[socket.socket, socket.socket]) -> bool:
    client, served = pair
    client.sendall(b"ping")
    heard = served.recv(16)
    served.sendall(b"pong")
    return (heard, client.recv(16)) == (b"ping", b"pong")


def reference_rules(host: Host) -> list[str]:
    """Everything on the host that bears the reference plugins' names."""
    listing = host.run("nft", "-s", "list", "ruleset")
    return [line.strip() for line in listing.splitlines() if "CNI-" in line or "cni_" in line]


@pytest.fixture
def lan(host: Host) -> Iterator[Namespace]:
    yield host.neighbour()


def migrate(host: Host, *words: str, status: int = 0) -> str:
    done = host.command("migrate", *words)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@references
def test_they_go_on(host: Host, lan: Namespace, reference: str) -> None:
    """What was connected stays so, what connects is served, the next container gets another address."""
    runtime = Runtime(host, with_nftables(nerdctl()))
    for name in ("c1", "c2", "c3"):
        host.container(name)
    first = runtime.add(reference, "c1", PORTS)
    second = runtime.add(reference, "c2")
    echo = Echo(host.place("c1"), 80)
    held = echo.hold(lan, "198.51.100.1", 8080)
    out = Echo(lan, 9000).hold(host.place("c2"), "198.51.100.2", 9000)
    assert speak(held) and speak(out)
    before = reference_rules(host)
    said = migrate(host, "--dry-run")
    assert "would take over bridge/c1/eth0" in said and reference_rules(host) == before and host.elements() == {}
    said = migrate(host)
    assert "took over bridge/c1/eth0  10.4.0.2/24  0.0.0.0:8080/tcp->80" in said, said
    assert speak(held) and speak(out)
    assert reference_rules(host) == []
    folder = ours(host)
    assert runtime.check(folder, "c1", PORTS) == []
    echo.listener.close()
    with Server(host.place("c1"), 80), Server(host.place("c1"), 53, "udp"):
        assert ask(lan, "198.51.100.1", 8080) == "c1 198.51.100.2"
        assert ask(host, "127.0.0.1", 8080).startswith("c1")
        assert ask(lan, "198.51.100.1", 5353, "udp") == "c1 198.51.100.2"
        assert ask(host.place("c2"), "198.51.100.1", 8080).startswith("c1")
    third = runtime.add(folder, "c3")
    addresses = {item["ips"][0]["address"] for item in (first, second, third)}
    assert len(addresses) == 3
    assert speak(held) and speak(out)
    assert "0 taken over, 0 left alone" in migrate(host)
    assert host.command("repair", "--check").returncode == 0
    for name, ports in (("c1", PORTS), ("c2", []), ("c3", [])):
        runtime.delete(folder, name, ports)
    assert host.elements() == {} and host.state_files() == [] and host.link("nerdctl0") is None
    leases = [path.name for path in host.file("/var/lib/cni/networks/bridge").iterdir()]
    assert not any(name.startswith("10.") for name in leases)


@NETFILTER
def test_who_was_taken_over_cannot_forge_its_source(host: Host, br_netfilter: str) -> None:
    """The bridge and its ports kept the reference plugins' MAC addresses, by which the table did not know them."""
    host.neighbour()
    host.bridge_netfilter(br_netfilter)
    runtime = Runtime(host, nerdctl())
    host.container("c1")
    runtime.add(REFERENCES[0], "c1")
    migrate(host)
    inside, gate = host.place("c1"), mac(host, "nerdctl0")
    (peer,) = [item["link_index"] for item in inside.json("ip", "-j", "link", "show", "dev", "eth0")]
    (ours_now,) = [item["address"] for item in host.json("ip", "-j", "link") if item["ifindex"] == peer]
    last = (inside, gate, [datagram("10.4.0.2", "198.51.100.1", 6000, b"last")])
    for to in (gate, bytes.fromhex(ours_now.replace(":", "")), b"\xff" * 6):
        forged = (inside, to, [datagram("203.0.113.9", "198.51.100.1", 6000, b"forged")])
        assert heard(host, 6000, forged, last) == {b"last"}, to.hex(":")


def test_its_network_may_be_converted_before_or_after(host: Host, lan: Namespace) -> None:
    folder, place = ours(host), host.file("/run/cni/net.d")
    place.mkdir()
    path = place / "nerdctl-bridge.conflist"
    path.write_text(json.dumps(nerdctl()))
    host.env["NETCONFPATH"] = "/run/cni/net.d"
    runtime = Runtime(host, nerdctl())
    for name in ("c1", "c2"):
        host.container(name)
    runtime.add(REFERENCES[0], "c1", PORTS)
    held = Echo(host.place("c1"), 80).hold(lan, "198.51.100.1", 8080)
    assert host.command("convert", "bridge").returncode == 0
    runtime.conflist = json.loads(path.read_text())
    runtime.add(folder, "c2", [port(8081, 80)])
    migrate(host)
    assert speak(held)
    assert runtime.check(folder, "c1", PORTS) == []
    with Server(host.place("c2"), 80):
        assert ask(lan, "198.51.100.1", 8081) == "c2 198.51.100.2"
        assert ask(host.place("c1"), "10.4.0.3", 80) == "c2 10.4.0.2"
    runtime.delete(folder, "c1", PORTS)
    runtime.delete(folder, "c2", [port(8081, 80)])
    assert host.elements() == {} and host.state_files() == []
    assert host.command("convert", "bridge", "--back").returncode == 0


def test_a_network_that_cannot_be_ours_stays_with_its_rules(host: Host, lan: Namespace) -> None:
    """Its containers are named with the key, and go on; the shared chains are theirs."""
    other = nerdctl("other", "br-other", "10.5.0.0/24")
    other["plugins"][3] = {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"}}
    both = Runtime(host, nerdctl()), Runtime(host, other)
    for name in ("c1", "c2"):
        host.container(name)
    both[0].add(REFERENCES[0], "c1", PORTS)
    both[1].add(REFERENCES[0], "c2", [port(8081, 80)])
    said = migrate(host, status=1)
    assert "left alone other/c2/eth0" in said and "sysctl" in said
    with Server(host.place("c2"), 80), Server(host.place("c1"), 80):
        assert ask(lan, "198.51.100.1", 8081) == "c2 198.51.100.2"
        assert ask(lan, "198.51.100.1", 8080) == "c1 198.51.100.2"
    rules = "\n".join(reference_rules(host))
    assert "CNI-HOSTPORT-DNAT" in rules
    assert "10.4.0.2" not in host.run("nft", "list", "table", "ip", "nat")


def test_rules_of_containers_that_are_gone(host: Host) -> None:
    """A kill left them; nobody needs them, nor the chains for all."""
    runtime = Runtime(host, nerdctl())
    host.container("c1")
    runtime.add(REFERENCES[0], "c1", PORTS)
    host.run("ip", "netns", "del", "c1")
    links = [item["ifname"] for item in host.json("ip", "-j", "link") if item["ifname"].startswith("veth")]
    for link in links:
        host.run("ip", "link", "del", link)
    said = migrate(host)
    assert "1 are gone" in said and reference_rules(host) == []


def test_where_others_drop_what_is_forwarded_their_exceptions_stay(host: Host, lan: Namespace) -> None:
    """Docker's policy: an accept of ours does not overrule it, the reference firewall's rules in that chain do."""
    runtime = Runtime(host, nerdctl())
    host.container("c1")
    runtime.add(REFERENCES[0], "c1", PORTS)
    host.run("iptables", "-P", "FORWARD", "DROP")
    said = migrate(host)
    assert "CNI-FORWARD" in said and "policy" in said
    with Server(lan, 9000):
        assert ask(host.place("c1"), "198.51.100.2", 9000).startswith("lan")


def test_rules_of_the_administrators_stay(host: Host) -> None:
    runtime = Runtime(host, nerdctl())
    host.container("c1")
    runtime.add(REFERENCES[0], "c1")
    host.run("iptables", "-A", "CNI-ADMIN", "-s", "10.4.0.0/24", "-d", "192.0.2.7", "-j", "DROP")
    said = migrate(host)
    assert "CNI-ADMIN" in said and "192.0.2.7" in host.run("iptables", "-S", "CNI-ADMIN")


def test_one_that_failed_is_as_before(host: Host, lan: Namespace) -> None:
    """Its port is published by one of ours, which cannot be there twice."""
    host.add(
        {
            "cniVersion": "1.0.0",
            "name": "mine",
            "type": "nftcni",
            "bridge": "br-mine",
            "ipam": {"ranges": [[{"subnet": "10.6.0.0/24"}]]},
            "runtimeConfig": {"portMappings": [port(8080, 80)]},
        },
        "mine",
    )
    runtime = Runtime(host, nerdctl())
    host.container("c1")
    result = runtime.add(REFERENCES[0], "c1", PORTS)
    links = host.links()
    said = migrate(host, status=1)
    assert "left alone bridge/c1/eth0" in said and "8080" in said
    assert host.links() == links and "10.4.0.2" in host.run("nft", "list", "table", "ip", "nat")
    assert result["interfaces"][1]["name"] in [item["ifname"] for item in links]


def other_cases() -> list[Json]:
    return [{"kind": "cniCacheV1"}, {"config": "!"}, [], "x"]


@pytest.mark.parametrize("document", other_cases(), ids=str)
def test_what_is_no_attachment_is_passed_over(host: Host, document: Json) -> None:
    place = host.file("/var/lib/cni/results")
    place.mkdir(parents=True)
    (place / "odd").write_text(json.dumps(document))
    (place / "folder").mkdir()
    assert "0 taken over" in migrate(host)


@pytest.mark.parametrize(("call", "points"), [("sendto", range(1, 40, 3)), ("rename", range(1, 4))])
def test_a_kill_leaves_something_to_go_on_from(host: Host, lan: Namespace, call: str, points: range) -> None:
    """At any point: the container is served all the while, and the next run ends what was begun."""
    runtime, folder = Runtime(host, nerdctl()), ours(host)
    killed = 0
    for number, when in enumerate(points):
        name = f"c{number}"
        host.container(name)
        runtime.add(REFERENCES[0], name, PORTS)
        echo = Echo(host.place(name), 80)
        held = echo.hold(lan, "198.51.100.1", 8080)
        inject = f"inject={call}:signal=KILL:when={when}"
        done = host.call("strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject, PLUGIN, "migrate")
        killed += done.returncode != 0
        assert speak(held), when
        assert "0 left alone" in migrate(host), when
        assert speak(held), when
        assert reference_rules(host) == [] and runtime.check(folder, name, PORTS) == [], when
        assert host.command("repair", "--check").returncode == 0, when
        for one in (echo.listener, *held):
            one.close()
        runtime.delete(folder, name, PORTS)
        assert host.elements() == {} and host.state_files() == [], when
    assert killed > 1
