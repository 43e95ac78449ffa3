"""The host's loopback is the host's alone: neighbours and containers that route 127/8 to the host, with sockets.

Hand-made SYN frames to 127.0.0.1 are `test_loopback_guard`; here are whole programs on machines set up to send such
packets (route_localnet and a route), over tcp and udp, and packets that claim to come from 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scratch import CHECKOUT, Host, Json, Namespace, network, port
from support.traffic import Server, ask, ask_on, open_socket, serving

HOST4 = "198.51.100.1"
GATE = {"lan": HOST4, "c1": "10.88.0.1", "c2": "10.88.0.1", "o1": "10.89.0.1"}
OWN = {"lan": "198.51.100.2", "c1": "10.88.0.2", "c2": "10.88.0.3", "o1": "10.89.0.2"}
BOTH = ("tcp", "udp")
PORTS = [port(number, 80, protocol, ip) for number, ip in ((8080, ""), (8081, "127.0.0.1")) for protocol in BOTH]


def send_loopback_to(namespace: Namespace, gateway: str) -> None:
    """127.0.0.0/8 leaves by eth0: the machine's own loopback addresses are gone meanwhile."""
    namespace.set_sysctl("ipv4/conf/all/route_localnet", "1")
    namespace.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    namespace.run("ip", "route", "add", "127.0.0.0/8", "via", gateway)


@pytest.fixture(scope="module", params=["0", "1"], ids=["br_netfilter=0", "br_netfilter=1"])
def scene(request: pytest.FixtureRequest) -> Iterator[Host]:
    host = Host()
    with contextlib.closing(host), contextlib.ExitStack() as stack:
        host.neighbour()
        host.bridge_netfilter(request.param)
        # The worst case: somebody opened the way for all links already, and the kernel's own guards are down.
        for key in ("route_localnet", "accept_local"):
            host.set_sysctl(f"ipv4/conf/all/{key}", "1")
        for name, net in (("c1", "net0"), ("c2", "net0"), ("o1", "net1")):
            subnet = "10.88.0.0/24" if net == "net0" else "10.89.0.0/24"
            host.add(network(net, subnet, ports=PORTS if name == "c1" else ()), name)
        servers = [Server(host.place("c1"), 80, protocol) for protocol in BOTH]
        servers += [Server(host, 9999, protocol, name=f"host-{protocol}") for protocol in BOTH]
        stack.enter_context(serving(*servers))
        for name, gateway in GATE.items():
            send_loopback_to(host.place(name), gateway)
        yield host


@pytest.mark.parametrize("asker", list(GATE))
@pytest.mark.parametrize("number", [8080, 8081, 9999], ids=["published", "published-on-127.0.0.1", "hosts-service"])
@pytest.mark.parametrize("protocol", BOTH)
def test_nothing_of_127_is_reached_from_outside(scene: Host, asker: str, number: int, protocol: str) -> None:
    with open_socket(scene.place(asker), socket.AF_INET, protocol) as sock:
        sock.bind((OWN[asker], 0))
        assert ask_on(sock, "127.0.0.1", number) == "silence"
    # The same ways are open where they should be: the silence is the guard's.
    assert ask(scene, "127.0.0.1", number, protocol).split()[0] in ("c1", f"host-{protocol}")
    if number != 8081:
        assert ask(scene.place(asker), GATE[asker], number, protocol).split()[0] in ("c1", f"host-{protocol}")


@pytest.mark.parametrize("sender", ["lan", "c2", "o1"])
@pytest.mark.parametrize("number", [8080, 9999], ids=["published", "hosts-service"])
def test_nobody_outside_can_pass_for_the_hosts_loopback(scene: Host, sender: str, number: int) -> None:
    """Services that trust 127.0.0.1 must not hear it from the wire. The receiver is a socket of the service's own."""
    target = scene.place("c1") if number == 8080 else scene
    with raw(target, socket.IPPROTO_UDP) as ear, raw(scene.place(sender), socket.IPPROTO_RAW) as mouth:
        for source, expected in (("127.0.0.1", False), (OWN[sender], True)):
            mouth.sendto(datagram(source, GATE[sender], 9 if expected else 7, number), (GATE[sender], 0))
            assert heard(ear, b"spoof" + bytes([9 if expected else 7])) is expected


def raw(namespace: Namespace, protocol: int) -> socket.socket:
    with namespace.entered():
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)


def datagram(source: str, target: str, mark: int, number: int) -> bytes:
    """IPv4 and UDP by hand; the kernel fills in the header's checksum, and UDP's may be left out."""
    payload = b"spoof" + bytes([mark])
    head = b"\x45\x00" + (28 + len(payload)).to_bytes(2, "big") + bytes(4) + b"\x40\x11" + bytes(2)
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    udp = (40000 + mark).to_bytes(2, "big") + number.to_bytes(2, "big") + (8 + len(payload)).to_bytes(2, "big")
    return head + addresses + udp + bytes(2) + payload


def heard(ear: socket.socket, payload: bytes) -> bool:
    while select.select([ear], [], [], 0.3)[0]:
        if ear.recv(2048).endswith(payload):
            return True
    return False


@pytest.mark.parametrize("mode", ["bridge", "ptp"])
@pytest.mark.parametrize("br_netfilter", ["0", "1"])
@pytest.mark.parametrize("limited", [False, True])
def test_the_hosts_loopback_is_guarded_while_the_table_is_missing(
    host: Host, mode: str, br_netfilter: str, limited: bool
) -> None:
    """route_localnet is on then all the same. c1 was there before a port needed it, c3 has come since."""
    host.bridge_netfilter(br_netfilter)
    rates = dict.fromkeys(("egressRate", "egressBurst", "ingressRate", "ingressBurst"), 80_000_000) if limited else {}
    keys: Json = {"mode": mode, "bridge": None if mode == "ptp" else "br-net0", **rates}
    plain, published = network("net0", **keys), network("net0", ports=[port(8080, 80)], **keys)
    results = {name: host.add(published if name == "c2" else plain, name) for name in ("c1", "c2", "c3")}
    own = {name: result["ips"][0]["address"].partition("/")[0] for name, result in results.items()}
    web = Server(host.place("c2"), 80)
    with serving(web, *(Server(host, 9999, protocol, name="host") for protocol in BOTH)):
        assert ask(host, "127.0.0.1", 8080).startswith("c2 ")
        for name in results:
            send_loopback_to(host.place(name), GATE["c1"])
        for missing in (False, True):
            if missing:
                host.nft("flush ruleset")
            for name, protocol in ((name, protocol) for name in results for protocol in BOTH):
                with open_socket(host.place(name), socket.AF_INET, protocol) as sock:
                    sock.bind((own[name], 0))
                    assert ask_on(sock, "127.0.0.1", 9999, timeout=0.3) == "silence", (name, protocol)
                assert ask(host.place(name), GATE["c1"], 9999, protocol).startswith("host ")
        with raw(host, socket.IPPROTO_UDP) as ear, raw(host.place("c1"), socket.IPPROTO_RAW) as mouth:
            for source, expected in (("127.0.0.1", False), (own["c1"], True)):
                mouth.sendto(datagram(source, GATE["c1"], 9 if expected else 7, 9999), (GATE["c1"], 0))
                assert heard(ear, b"spoof" + bytes([9 if expected else 7])) is expected
        assert host.command("repair").returncode == 0
        assert ask(host, "127.0.0.1", 8080).startswith("c2 ")
    assert host.cni("CHECK", {**published, "prevResult": results["c2"]}, "c2").status == 0


def test_the_guard_survives_the_name_bandwidth(host: Host, tmp_path: Path) -> None:
    """Its ADD makes the port's queue anew, and its DEL takes that away."""
    for name in ("bridge", "portmap", "bandwidth"):
        (tmp_path / name).symlink_to(CHECKOUT / "conf" / "nftcni")

    def call(verb: str, kind: str, previous: Json, **keys: Json) -> Json:
        config = {"cniVersion": "1.0.0", "name": "chain", "type": kind, **keys, "prevResult": previous}
        answer = host.cni(verb, config, plugin=str(tmp_path / kind))
        assert answer.status == 0, answer.stdout
        return answer.document or previous

    host.container("c1")
    ipam = {"type": "host-local", "subnet": "10.88.0.0/24"}
    result = call("ADD", "bridge", None, bridge="br-net0", isGateway=True, ipam=ipam)
    result = call("ADD", "portmap", result, runtimeConfig={"portMappings": [port(8080, 80)]})
    rates = dict.fromkeys(("egressRate", "egressBurst"), 80_000_000)
    result = call("ADD", "bandwidth", result, **rates)
    link = result["interfaces"][1]["name"]
    kinds = [item["kind"] for item in host.json("tc", "-j", "filter", "show", "dev", link, "ingress")]
    assert list(dict.fromkeys(kinds)) == ["bpf", "u32"]
    call("DEL", "bandwidth", result, **rates)
    kinds = [item["kind"] for item in host.json("tc", "-j", "filter", "show", "dev", link, "ingress")]
    assert set(kinds) == {"bpf"}
