"""`fastPath`: flows pass by a flowtable; they are judged, counted, translated and ended as all others are.

`web` and `sibling` are on one network that asks for it, `other` is on another one, `plain` on one that does not ask.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import re
import socket
import statistics
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from kernels.scenarios import kills
from kernels.scenarios.scene import HOST4, HOST6, LAN4, LAN6, PATIENCE, PORTS, WEB4, WEB6
from support.scratch import Host, Json, Namespace, network
from support.traffic import Server, ask, open_socket, serving

NETS = {"web": 88, "sibling": 88, "other": 89, "plain": 90}
WAYS = [("lan", "web", HOST4, 8080), ("lan", "web", HOST6, 8080), ("web", "lan", LAN4, 80), ("web", "lan", LAN6, 80)]
EXCHANGES = 9
# Without any table that asks for it the tracker sees nothing.
KEEPER = "table inet keeper {\n chain forward { type filter hook forward priority 0; ct state new accept; }\n}\n"
ETH_P_ALL, PACKET_OUTGOING, SO_TIMESTAMP, SO_RCVBUFFORCE = 3, 4, 29, 33


def config(name: str) -> Json:
    number = NETS[name]
    subnets = f"10.{number}.0.0/24", f"fd00:{number}::/64"
    keys = {} if name == "plain" else {"fastPath": True}
    return network(f"net{number - 88}", *subnets, ports=PORTS[:2] if name == "web" else (), **keys)


def build(host: Host, *names: str, br_netfilter: str = "0") -> None:
    host.bridge_netfilter(br_netfilter)
    host.neighbour()
    lead_out(host, LAN4, LAN6)
    host.set_sysctl("netfilter/nf_conntrack_acct", "1")
    for name in names:
        host.add(config(name), name)


def lead_out(host: Host, *gateways: str) -> None:
    for gateway in gateways:
        host.run("ip", "route", "replace", "default", "via", gateway)


def tracked(host: Host, number: int) -> list[str]:
    """The tracker's lines of the flows that began from this port."""
    lines = [host.run("conntrack", "-L", "-f", family, "-o", "extended") for family in ("ipv4", "ipv6")]
    return [line for line in "".join(lines).splitlines() if re.search(rf"\bsport={number} ", line.split(" src=")[1])]


def listening(host: Host) -> set[str]:
    """The links that the flowtable listens on, by nft's own words."""
    said = host.run("nft", "list", "flowtables", "inet")
    found = re.search(r"devices = \{([^}]*)\}", said)
    return set(found[1].replace('"', "").replace(",", " ").split()) if found else set()


class Talk:
    """A socket that says whom it reached, and goes on over the same flow."""

    def __init__(self, asker: Namespace, server: Namespace, address: str, number: int, protocol: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = open_socket(server, family, protocol)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            self.listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.listener.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 80))
        self.near, self.far = open_socket(asker, family, protocol), self.listener
        self.near.settimeout(PATIENCE)
        self.listener.settimeout(PATIENCE)
        if protocol == "tcp":
            self.listener.listen()
        self.near.connect((address, number))
        if protocol == "tcp":
            self.far, peer = self.listener.accept()
            self.far.settimeout(PATIENCE)
        else:
            self.near.send(b"hello")
            _, peer = self.far.recvfrom(100)
            self.far.connect(peer)
            self.far.send(b"hello")
            self.near.recv(100)
        self.seen = peer[0]
        self.number = self.near.getsockname()[1]

    def exchange(self, count: int = EXCHANGES) -> None:
        for index in range(count):
            for one, other in ((self.near, self.far), (self.far, self.near)):
                text = b"%d" % index
                one.send(text)
                assert other.recv(100) == text

    def close(self) -> None:
        for sock in {self.near, self.far, self.listener}:
            sock.close()

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def talk(host: Host, asker: str, server: str, address: str, number: int, protocol: str) -> Talk:
    return Talk(host.place(asker), host.place(server), address, number, protocol)


@pytest.fixture(scope="module", params=["0", "1"], ids=["br_netfilter=0", "br_netfilter=1"])
def built(request: pytest.FixtureRequest) -> Iterator[Host]:
    host = Host()
    try:
        build(host, *NETS, br_netfilter=request.param)
        yield host
    finally:
        host.close()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(("asker", "server", "address", "number"), WAYS)
def test_offloaded(built: Host, asker: str, server: str, address: str, number: int, protocol: str) -> None:
    """Both directions say what they said, the right address is seen, and each packet is counted once."""
    with talk(built, asker, server, address, number, protocol) as flow:
        host = {LAN4: HOST4, LAN6: HOST6, HOST4: LAN4, HOST6: LAN6}
        assert flow.seen == host[address]
        flow.exchange()
        (line,) = tracked(built, flow.number)
        assert "[OFFLOAD]" in line
        if protocol == "udp":
            assert re.findall(r"packets=(\d+)", line) == [str(EXCHANGES + 1)] * 2, line


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("asker", "server", "address", "number"),
    [
        ("plain", "lan", LAN4, 80),
        ("plain", "lan", LAN6, 80),
        ("sibling", "web", HOST4, 8080),
        ("sibling", "web", HOST6, 8080),
        ("host", "web", HOST4, 8080),
    ],
)
def test_not_offloaded(built: Host, asker: str, server: str, address: str, number: int, protocol: str) -> None:
    """A network that has not asked; what stays on the bridge; the host itself."""
    with talk(built, asker, server, address, number, protocol) as flow:
        flow.exchange()
        lines = tracked(built, flow.number)
        assert lines and not any("[OFFLOAD]" in line for line in lines)


def test_what_the_flowtable_listens_on(built: Host) -> None:
    """Not on the bridges where the tracker sees the frames already."""
    seen = built.sysctl("bridge/bridge-nf-call-iptables") == "1"
    assert listening(built) == {"to-lan"} | (set() if seen else {"br-net0", "br-net1"})


@pytest.mark.parametrize("address", [WEB4, WEB6])
def test_networks_are_isolated(built: Host, address: str) -> None:
    for asker in ("other", "plain", "lan"):
        assert ask(built.place(asker), address, 80) in ("silence", "refused")


@pytest.mark.parametrize("asker", ["other", "plain"])
@pytest.mark.parametrize("address", [HOST4, HOST6])
def test_between_networks(built: Host, asker: str, address: str) -> None:
    """One that asks is enough."""
    with talk(built, asker, "web", address, 8080, "udp") as flow:
        flow.exchange()
        (line,) = tracked(built, flow.number)
        assert "[OFFLOAD]" in line
        assert re.findall(r"packets=(\d+)", line) == [str(EXCHANGES + 1)] * 2, line


def test_a_flow_of_the_gap_does_not_get_in(host: Host) -> None:
    """It began while the table was missing. Its answers pass, and must not take it along."""
    build(host, "web", "other")
    host.nft("flush ruleset\n" + KEEPER)
    with talk(host, "other", "web", WEB4, 80, "udp") as flow:
        flow.exchange()
        assert host.command("repair").returncode == 0
        for index in range(EXCHANGES):
            flow.far.send(b"answer %d" % index)
            assert flow.near.recv(100) == b"answer %d" % index
        (line,) = tracked(host, flow.number)
        assert "[OFFLOAD]" not in line
        flow.near.send(b"again")
        flow.far.settimeout(2)
        with pytest.raises(TimeoutError):
            flow.far.recv(100)


def test_flush_and_repair(host: Host) -> None:
    build(host, "web", "sibling")
    before = host.snapshot()
    with talk(host, "lan", "web", HOST4, 8080, "tcp") as old, talk(host, "web", "lan", LAN6, 80, "tcp") as out:
        old.exchange()
        host.nft("flush ruleset")
        assert host.cni("CHECK", {**config("web"), "prevResult": {}}, "web").status != 0
        assert host.command("repair").returncode == 0
        assert host.command("repair", "--check").stdout == "nothing to repair\n"
        assert listening(host) == {"br-net0", "to-lan"}
        old.exchange()
        out.exchange()
        assert all("[OFFLOAD]" in line for flow in (old, out) for line in tracked(host, flow.number))
    assert host.elements() == before["elements"]
    host.nft("delete chain inet nftcni fast_path\ndelete flowtable inet nftcni fast_path")
    assert "flowtable" in host.command("repair", "--check").stdout
    assert host.command("repair").returncode == 0
    assert host.command("repair", "--check").stdout == "nothing to repair\n"


# Links that come and go


def test_another_way_out(host: Host) -> None:
    """The uplink disappears while it is listened on; the next one is told of, and listened on after `repair`."""
    build(host, "web", "sibling")
    assert listening(host) == {"br-net0", "to-lan"}
    host.run("ip", "link", "del", "to-lan")
    assert listening(host) == {"br-net0"}
    second = host.neighbour("wan", 2)
    lead_out(host, "198.51.101.2", "2001:db8:101::2")
    with serving(Server(second, 80)):
        assert ask(host.place("web"), "198.51.101.2", 80, timeout=PATIENCE) == "wan 198.51.101.1"
        findings = json.loads(host.command("doctor", "--json").stdout)["findings"]
        assert [one["remedy"] for one in findings if one["kind"] == "fast-path"] == [["nftcni repair"]]
        assert host.command("repair").returncode == 0
        assert listening(host) == {"br-net0", "to-wan"}
    host.run("ip", "link", "del", "to-wan")
    host.delete(config("sibling"), "sibling")
    host.add(config("sibling"), "sibling")
    assert listening(host) == {"br-net0"}


@pytest.mark.parametrize("address", [LAN4, LAN6])
def test_a_smaller_mtu(host: Host, address: str) -> None:
    """What is too long for the way out is no flowtable's affair: the sender hears of it, as without."""
    build(host, "web")
    host.run("ip", "link", "set", "to-lan", "mtu", "1300")
    with talk(host, "web", "lan", address, 80, "udp") as flow:
        flow.exchange()
        flow.far.settimeout(0.5)
        arrived = b""
        for _ in range(20):
            with contextlib.suppress(OSError):
                flow.near.send(b"x" * 1400)
                arrived = flow.far.recv(2000)
                break
        assert arrived == b"x" * 1400
        flow.far.settimeout(PATIENCE)
        flow.exchange()


# The end


@contextlib.contextmanager
def pumping(send: Callable[[bytes], object]) -> Iterator[None]:
    """Datagrams, without a pause that would let a flow end by itself."""
    over = threading.Event()

    def pump() -> None:
        while not over.wait(0.002):
            with contextlib.suppress(OSError):
                send(b"still there")

    thread = threading.Thread(target=pump)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("verb", ["DEL", "GC"])
@pytest.mark.parametrize("address", [HOST4, HOST6])
def test_the_end_of_a_container_ends_its_flows(host: Host, address: str, verb: str) -> None:
    """By the time that the tracker forgets the flow, no packet of it leaves by the bridge any more. A sibling's flows
    go on as they were."""
    build(host, "web", "sibling")
    inside = WEB6 if ":" in address else WEB4
    with (
        forgetting(host) as forgotten,
        talk(host, "lan", "web", address, 8080, "udp") as flow,
        talk(host, "sibling", "lan", LAN4, 80, "tcp") as others,
        host.entered(),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as tap,
    ):
        tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        tap.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
        tap.bind(("br-net0", ETH_P_ALL))
        flow.exchange()
        others.exchange()
        with pumping(flow.near.send):
            time.sleep(1)
            if verb == "DEL":
                host.delete(config("web"), "web")
            else:
                valid = [{"containerID": "sibling", "ifname": "eth0"}]
                answer = host.cni("GC", {**config("web"), "cni.dev/valid-attachments": valid})
                assert answer.status == 0, answer.stdout
            time.sleep(2)
        times = sent(tap)
        assert len(times) > 100 and times[-1] < forgotten(flow.number, inside)
        others.exchange()
        (line,) = tracked(host, others.number)
        assert "[OFFLOAD]" in line


@contextlib.contextmanager
def forgetting(host: Host) -> Iterator[Callable[[int, str], float]]:
    """When the tracker has forgotten the flow from a port to an address, by its own event. It tells of flows alone that
    begin while somebody listens."""
    words = ("conntrack", "-E", "-e", "DESTROY", "-p", "udp", "-o", "timestamp")
    with host.popen(*words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            time.sleep(1)  # it does not say when it listens

            def when(number: int, inside: str) -> float:
                assert process.stdout is not None
                for line in process.stdout:
                    found = re.match(rf"\[([\d.]+)\s*\].*? sport={number} .* src={inside} ", line)
                    if found:
                        return float(found[1])
                raise AssertionError("it never was")

            yield when
        finally:
            process.kill()


def sent(tap: socket.socket) -> list[float]:
    """When the datagrams left the host by the link."""
    found = []
    tap.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            frame, ancillary, _flags, address = tap.recvmsg(2000, 100)
            if address[2] == PACKET_OUTGOING and frame.endswith(b"still there"):
                seconds, micros = struct.unpack("@qq", ancillary[0][2])
                found.append(seconds + micros / 1e6)
    return found


def test_nothing_is_left_of_the_last_one(host: Host) -> None:
    build(host, "plain")
    before, plain = host.snapshot(), host.run("nft", "list", "table", "inet", "nftcni")
    for name in ("web", "sibling", "other"):
        host.add(config(name), name)
    for name in ("web", "sibling"):
        host.delete(config(name), name)
    assert listening(host) == {"br-net1", "to-lan"}
    host.delete(config("other"), "other")
    assert host.run("nft", "list", "table", "inet", "nftcni") == plain
    assert host.snapshot() == before
    assert host.command("repair", "--check").stdout == "nothing to repair\n"


def test_what_somebody_changed_is_told_and_in_nobodys_way(host: Host) -> None:
    """A rule of ours that is gone stays told while the fast path comes and goes; its own chain may be gone."""
    host.add(config("plain"), "plain")
    host.nft("flush chain inet nftcni genuine")
    host.add(config("web"), "web")
    assert "rules" in host.command("repair", "--check").stdout
    host.nft("flush chain inet nftcni fast_path\ndelete chain inet nftcni fast_path")
    host.add(config("sibling"), "sibling")
    for name in ("web", "sibling"):
        host.delete(config(name), name)
    assert "fast_path" not in host.run("nft", "list", "ruleset")
    assert "rules" in host.command("repair", "--check").stdout


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_killed(host: Host, verb: str) -> None:
    """The first container of the network, so that the flowtable comes and goes with it."""
    host.add(config("plain"), "plain")
    assert kills.problems(host, verb, config("web")) == []
    assert "fast_path" not in host.run("nft", "list", "ruleset")


# How fast


ROUNDS, SECONDS = 7, 1.0
SIOCETHTOOL, ETHTOOL_STSO, ETHTOOL_SGSO = 0x8946, 0x1F, 0x24


@pytest.mark.parametrize("segments", [False, True], ids=["as it is", "segment by segment"])
def test_throughput(host: Host, segments: bool, record_property: Callable[[str, object], None]) -> None:
    """For the eye: an emulated machine's figures depend on what else the real one does. Between two pairs of veth the
    kernel carries 64 KiB at once; what comes from a wire, or goes there, is packets."""
    build(host, "web", "plain")
    for name in ("web", "plain", "lan") if segments else ():
        segment(host.place(name))
    figures: dict[str, list[float]] = {"plain": [], "web": []}
    for name in [*figures] * ROUNDS:
        with Talk(host.place(name), host.place("lan"), LAN4, 80, "tcp") as flow:
            figures[name].append(bulk(flow))
    usual, fast = (statistics.median(figures[name]) for name in ("plain", "web"))
    told = f"{fast / usual:.2f} times the usual way's ({usual:.0f} and {fast:.0f} Mbit/s, medians of {ROUNDS} rounds)"
    kind = "segment by segment" if segments else "64 KiB at once"
    record_property(f"bulk throughput by the fast path, {kind}", told)


def segment(place: Namespace) -> None:
    """The container's TCP makes its segments itself (`ethtool -K eth0 tso off gso off`)."""
    with open_socket(place, socket.AF_INET, "udp") as sock:
        for command in (ETHTOOL_STSO, ETHTOOL_SGSO):
            value = ctypes.create_string_buffer(struct.pack("=II", command, 0))
            fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("@16sP", b"eth0", ctypes.addressof(value)))


def bulk(flow: Talk) -> float:
    """Mbit/s from the container."""
    counted = 0

    def read() -> None:
        nonlocal counted
        while True:
            got = len(flow.far.recv(1 << 18))
            counted += got
            if not got:
                return

    reader = threading.Thread(target=read)
    reader.start()
    start, data = time.monotonic(), bytes(1 << 16)
    while time.monotonic() - start < SECONDS:
        flow.near.sendall(data)
    flow.near.shutdown(socket.SHUT_WR)
    reader.join()
    return counted * 8 / 1e6 / (time.monotonic() - start)
