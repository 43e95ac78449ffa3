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
from support import frames
from support.scratch import CHECKOUT, Host, Json, Namespace, network, port
from support.traffic import Server, ask, ask_on, open_socket, serving

from cni.kernel.links import get_link
from cni.kernel.loopback_guard import MOST, PRIORITY, answers_of, guard, is_guarded
from nft.addresses import Address
from nft.netlink import Netlink

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


# Bridges of others


@pytest.fixture
def lan_bridge(host: Host) -> Namespace:
    """br0 with another machine on it, and the host as its router. Returns the machine."""
    host.run("ip", "link", "add", "br0", "type", "bridge")
    host.run("ip", "addr", "add", "10.88.0.1/24", "dev", "br0")
    host.run("ip", "link", "set", "br0", "up")
    machine = host.container("machine")
    host.run("ip", "link", "add", "port0", "type", "veth", "peer", "name", "eth0", "netns", "machine")
    host.run("ip", "link", "set", "port0", "master", "br0", "up")
    for words in (("link", "set", "lo", "up"), ("addr", "add", "10.88.0.99/24", "dev", "eth0")):
        machine.run("ip", *words)
    machine.run("ip", "link", "set", "eth0", "up")
    return machine


def queues(host: Host, link: str) -> list[Json]:
    """The link's queues for what comes in, and their filters."""
    found = [
        item for item in host.json("tc", "-j", "qdisc", "show", "dev", link) if item["kind"] in ("clsact", "ingress")
    ]
    filters = [item for item in host.json("tc", "-j", "filter", "show", "dev", link, "ingress") if "options" in item]
    return [*(item["kind"] for item in found), *((item["kind"], item["pref"]) for item in filters)]


def reached(host: Host, sender: Namespace, *packets: bytes) -> bool:
    """Whether a service at the host's 127.0.0.1:9999 hears one of these, which are sent to the bridge's MAC address."""
    with host.entered():
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with ear:
        ear.bind(("127.0.0.1", 9999))
        frames.send(sender, frames.mac(host, "br0"), *packets)
        return bool(select.select([ear], [], [], 0.3)[0])


LOCAL_PORTS = [port(8080, 80), port(8081, 80, "tcp", "127.0.0.1"), port(8080, 80, "udp")]


@pytest.mark.parametrize("br_netfilter", ["0", "1"])
@pytest.mark.parametrize("uplink", [False, True], ids=["host-is-router", "uplink"])
def test_machines_on_an_adopted_bridge_do_not_reach_the_loopback_without_the_table(
    host: Host, lan_bridge: Namespace, br_netfilter: str, uplink: bool
) -> None:
    """Nor do containers there; the host's own questions to 127.0.0.1 are answered as long as the table is there."""
    host.bridge_netfilter(br_netfilter)
    keys: Json = {"bridge": "br0"}
    if uplink:
        host.run("ip", "route", "add", "default", "via", "10.88.0.99")
        keys["ipam"] = {"ranges": [[{"subnet": "10.88.0.0/24", "gateway": "10.88.0.99", "rangeStart": "10.88.0.2"}]]}
    published = network("net0", ports=LOCAL_PORTS, **keys)
    result = host.add(published, "c1")
    host.add(network("net0", **keys), "c2")
    more = {**published, "runtimeConfig": {"portMappings": [port(9090, 80, "udp", "127.0.0.1")]}}
    host.add(more, "c3")
    servers = [Server(host.place(name), 80, protocol) for name in ("c1", "c3") for protocol in BOTH]
    with serving(*servers, Server(host, 9998, name="host")):
        asked = [(8080, "tcp", "c1"), (8081, "tcp", "c1"), (8080, "udp", "c1"), (9090, "udp", "c3")]
        for number, protocol, name in asked:
            assert ask(host, "127.0.0.1", number, protocol).split()[0] == name
        host.delete(more, "c3")
        assert ask(host, "127.0.0.1", 8080, "udp").split()[0] == "c1"
        for name in ("machine", "c2"):
            send_loopback_to(host.place(name), "10.88.0.1")
        host.nft("flush ruleset")
        for name, own in (("machine", "10.88.0.99"), ("c2", "10.88.0.3")):
            sender = host.place(name)
            with open_socket(sender, socket.AF_INET, "tcp") as sock:
                sock.bind((own, 0))
                assert ask_on(sock, "127.0.0.1", 9998, timeout=0.5) == "silence", name
            assert ask(sender, "10.88.0.1", 9998).startswith("host ")
            for source, target in ((own, "127.0.0.1"), ("127.0.0.1", "10.88.0.1"), ("127.0.0.1", "127.0.0.1")):
                assert not reached(host, sender, frames.datagram(source, target, 9999, b"evil")), (name, source)
            # With the one address that may answer: no connection begins.
            host.run("ip", "neigh", "replace", "10.88.0.2", "lladdr", sender.link("eth0")["address"], "dev", "br0")
            sender.run("ip", "addr", "add", "10.88.0.2/32", "dev", "eth0")
            with open_socket(sender, socket.AF_INET, "tcp") as sock:
                sock.bind(("10.88.0.2", 0))
                assert ask_on(sock, "127.0.0.1", 9998, timeout=0.5) == "silence", name
            sender.run("ip", "addr", "del", "10.88.0.2/32", "dev", "eth0")
        host.run("ip", "neigh", "del", "10.88.0.2", "dev", "br0")
        assert host.command("repair").returncode == 0
        assert ask(host, "127.0.0.1", 8080).startswith("c1 ")
        assert ask(host, "127.0.0.1", 8080, "udp").startswith("c1 ")
    assert host.cni("CHECK", {**published, "prevResult": result}, "c1").words == ""


@pytest.mark.parametrize("tags", frames.PRIORITY_TAGS.values(), ids=frames.PRIORITY_TAGS)
@pytest.mark.parametrize("sender", ["machine", "c1"])
def test_tags_of_vlan_0_are_no_way_past_the_guard(host: Host, lan_bridge: Namespace, sender: str, tags: bytes) -> None:
    """The kernel takes them off behind it. Those of a VLAN are for whoever has a device for it."""
    host.add(network("net0", bridge="br0", ports=LOCAL_PORTS), "c1")
    host.nft("flush ruleset")
    own = {"machine": "10.88.0.99", "c1": "10.88.0.2"}[sender]
    assert not reached(host, host.place(sender), tags + frames.datagram(own, "127.0.0.1", 9999, b"evil"))
    with host.entered():
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))  # behind the filters
    with ear:
        ear.settimeout(3)
        ear.bind(("br0", 0x0800))
        packet = frames.datagram("10.7.0.9", "10.7.0.1", 9999, b"of 7")
        for vlan in (b"\x81\0\0\x07", b"\x88\xa8\0\x07"):
            frames.send(host.place(sender), frames.mac(host, "br0"), vlan + packet)
            while not ear.recv(100).endswith(b"of 7"):
                pass


@pytest.mark.parametrize("queue", ["", "ingress", "clsact"])
@pytest.mark.parametrize("way", ["DEL", "GC", "lost"])
def test_the_bridges_guard_goes_with_the_last_port(host: Host, lan_bridge: Namespace, queue: str, way: str) -> None:
    """Somebody else's queue and filter stay as they were."""
    if queue:
        host.run("tc", "qdisc", "add", "dev", "br0", *([queue] if queue == "clsact" else ["handle", "ffff:", queue]))
        words = ("u32", "match", "ip", "dst", "203.0.113.7/32", "flowid", "1:1")
        host.run("tc", "filter", "add", "dev", "br0", "ingress", "pref", "7", "protocol", "ip", *words)
    before = queues(host, "br0"), host.sysctl("ipv4/conf/br0/route_localnet")
    published, plain = network("net0", bridge="br0", ports=LOCAL_PORTS), network("net0", bridge="br0")
    host.add(plain, "c1")
    assert (queues(host, "br0"), host.sysctl("ipv4/conf/br0/route_localnet")) == before
    host.add(published, "c2")
    assert ("bpf", PRIORITY) in queues(host, "br0") and set(before[0]) <= set(queues(host, "br0"))
    if way == "lost":
        host.run("rm", "-rf", "/run/nftcni")
        assert host.command("repair").returncode == 0
        third = {**published, "runtimeConfig": {"portMappings": [port(9090, 80, "udp", "127.0.0.1")]}}
        host.bridge_netfilter("1")
        host.add(third, "c3")
        with Server(host.place("c3"), 80, "udp"):
            assert ask(host, "127.0.0.1", 9090, "udp").startswith("c3 "), "its answers are let through"
        host.delete(third, "c3")
    if way == "GC":
        valid = [{"containerID": "c1", "ifname": "eth0"}]
        assert host.cni("GC", {**published, "cni.dev/valid-attachments": valid}).status == 0
    else:
        host.delete(published, "c2")
    after = queues(host, "br0"), host.sysctl("ipv4/conf/br0/route_localnet")
    assert after == (before if way != "lost" or queue else (["clsact"], "0")), "whose an empty queue was is not known"
    host.delete(plain, "c1")
    assert host.state_files() == []


@pytest.mark.parametrize(("bridge", "subnet"), [("br-net0", "10.66.0.0/24"), ("br0", "10.88.0.0/24")])
def test_the_last_port_leaves_no_note_of_the_bridge_beside_a_sibling(
    host: Host, lan_bridge: Namespace, bridge: str, subnet: str
) -> None:
    """Or the end of the sibling would take back what the bridge's owner has set meanwhile."""
    host.add(network("net0", subnet, bridge=bridge), "c1")
    before = [path for path in host.state_files() if "/bridges/" in path]
    published = network("net0", subnet, bridge=bridge, ports=LOCAL_PORTS)
    host.add(published, "c2")
    host.delete(published, "c2")
    assert [path for path in host.state_files() if "/bridges/" in path] == before
    if bridge == "br0":
        host.set_sysctl("ipv4/conf/br0/route_localnet", "1")
        host.delete(network("net0", subnet, bridge=bridge), "c1")
        assert host.sysctl("ipv4/conf/br0/route_localnet") == "1"


def test_a_bridge_whose_owner_wants_route_localnet_is_not_guarded(host: Host, lan_bridge: Namespace) -> None:
    """Others may answer to 127.0.0.1 there whom nobody but its owner knows."""
    host.set_sysctl("ipv4/conf/br0/route_localnet", "1")
    host.add(network("net0", bridge="br0", ports=LOCAL_PORTS))
    assert queues(host, "br0") == []
    host.delete(network("net0", bridge="br0"))
    assert host.sysctl("ipv4/conf/br0/route_localnet") == "1"


@pytest.mark.parametrize("link", ["br0", "of c1", "of c2"])
@pytest.mark.parametrize("harm", ["queue", "filter", "other"])
def test_a_guard_that_is_missing_is_found_and_put_back(host: Host, lan_bridge: Namespace, link: str, harm: str) -> None:
    published, plain = network("net0", bridge="br0", ports=LOCAL_PORTS), network("net0", bridge="br0")
    results = {"c1": host.add(published, "c1"), "c2": host.add(plain, "c2")}
    of = {name: result["interfaces"][1]["name"] for name, result in results.items()}
    device = {"br0": "br0", "of c1": of["c1"], "of c2": of["c2"]}[link]
    before = queues(host, device)
    assert before == ["clsact", ("bpf", PRIORITY)]
    if harm == "queue":
        host.run("tc", "qdisc", "del", "dev", device, "clsact")
    else:
        host.run("tc", "filter", "del", "dev", device, "ingress", "pref", str(PRIORITY))
    if harm == "other":
        code = ("bpf", "da", "bytecode", "1,6 0 0 4294967295")
        host.run(
            "tc",
            "filter",
            "add",
            "dev",
            device,
            "ingress",
            "pref",
            str(PRIORITY),
            "protocol",
            "all",
            "handle",
            "1",
            *code,
        )
    config = {"c1": published, "c2": plain}
    asked = "c2" if link == "of c2" else "c1"
    answer = host.cni("CHECK", {**config[asked], "prevResult": results[asked]}, asked)
    assert answer.code == 104 and f"the filter of {device}" in answer.words
    done = host.command("repair")
    assert done.returncode == 0 and f"the filter of {device}" in done.stdout, done.stdout
    assert queues(host, device) == before
    assert host.cni("CHECK", {**config[asked], "prevResult": results[asked]}, asked).words == ""
    assert host.command("repair").stdout == "nothing to repair\n"


@pytest.mark.parametrize("number", [0, 1, MOST, MOST + 1])
def test_the_kernel_takes_as_many_addresses_as_may_answer(host: Host, number: int) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    program = answers_of(Address(4, 0x0A000000 + count) for count in range(number))
    with host.entered(), contextlib.closing(Netlink()) as rtnl:
        assert guard(rtnl, "br0", program)
        link = get_link(rtnl, "br0")
        assert link is not None and is_guarded(rtnl, link, program) and not is_guarded(rtnl, link)
