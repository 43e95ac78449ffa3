"""Sends one real packet from a temporary namespace through a veth pair to this host, and traces it through the rules.

It comes in by its own link (nftcni-probe), so rules for the uplink's name do not match it; it meets everything else as
a neighbour's packet would. The link goes with its namespace, so also if this is killed; a kill leaves the trace's
table, which traces nothing then, and which the next run removes.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator

from cni.kernel.netns import Inside
from cni.model.ports import PortMapping
from cni.operate.screen import CannotLook
from cni.operate.walk.kernel import pyroute2
from cni.operate.walk.ruleset import program
from cni.operate.walk.step import Step, note, ok, stop
from cni.operate.walk.world import World
from cni.operate.ways import Way, parse_port

LINK, FAR = "nftcni-probe", "nftcni-far"
ADDRESSES = {4: ("192.0.2.1", "192.0.2.2", 30), 6: ("2001:db8:ffff::1", "2001:db8:ffff::2", 64)}  # RFC 5737, RFC 3849
TABLE = "nftcni_trace"
SECONDS = 1.5
TRACE = f"""table inet {TABLE} {{
    chain pre {{ type filter hook prerouting priority -350; iifname "{LINK}" PACKET meta nftrace set 1; }}
}}"""


def probe(world: World, words: str) -> list[Way]:
    """Probes each published port that the words name."""
    port, protocol = parse_port(words)
    items = world.items if port else list(world.of_container(words))
    return [
        Way(f"live: {mapping} for {item.ident}, asked from {LINK}", _one(mapping))
        for item in items
        for mapping in item.mappings
        if not port or (mapping.host_port == port and protocol in ("", mapping.protocol))
    ]


def _one(mapping: PortMapping) -> list[Step]:
    assert mapping.host_ip is not None, "records hold concrete host addresses only"
    version = mapping.host_ip.version
    target = ADDRESSES[version][0] if mapping.host_ip.is_unspecified else str(mapping.host_ip)
    if mapping.host_ip.is_loopback:
        return [note("live", f"{mapping} is for the host only: a probe from outside would be dropped")]
    try:
        with scratch_namespace(version) as netns, tracing(f"{mapping.protocol} dport {mapping.host_port}") as lines:
            said = _ask(netns, mapping.protocol, version, target, mapping.host_port)
            time.sleep(0.2)
        traced = trace_steps(lines)
    except (OSError, CannotLook) as error:
        return [note("live", f"no probe could be sent: {error}")]
    ended = [step for step in traced if step.is_finding]
    if said == "answered":
        return [*traced, ok("live", f"{target}:{mapping.host_port} answered")]
    silent = stop("live", f"{target}:{mapping.host_port}: {said}", "the trace shows no drop")
    return traced if ended else [*traced, silent]


@contextlib.contextmanager
def scratch_namespace(version: int) -> Iterator[int]:
    """A descriptor of a namespace with a veth pair to this host; both go with its only process."""
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo; read wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdin is not None
    try:
        if not holder.stdout.readline():
            raise CannotLook("unshare --net: not allowed here")
        netns = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY)
        try:
            _cable(netns, version)
            yield netns
        finally:
            with contextlib.suppress(CannotLook):
                program("ip", "link", "del", LINK)
            os.close(netns)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
        holder.stdin.close()


def _cable(netns: int, version: int) -> None:
    here, there, length = ADDRESSES[version]
    with Inside(netns):
        far = pyroute2().IPRoute()
    with contextlib.closing(far), contextlib.closing(pyroute2().IPRoute()) as route:
        route.link("add", ifname=LINK, kind="veth", peer={"ifname": FAR, "net_ns_fd": netns})
        for one, name, address in ((route, LINK, here), (far, FAR, there)):
            index = one.link_lookup(ifname=name)[0]
            one.addr("add", index=index, address=address, prefixlen=length, flags=2 if version == 6 else 0)  # nodad
            one.link("set", index=index, state="up")
        gateway = {"dst": "default", "gateway": here, "family": socket.AF_INET if version == 4 else socket.AF_INET6}
        far.route("add", **gateway)


@contextlib.contextmanager
def tracing(packet: str) -> Iterator[list[str]]:
    """Traces matching packets. The list holds the lines of `nft monitor trace`, complete when the block is left."""
    lines: list[str] = []
    monitor = subprocess.Popen(
        ["nft", "monitor", "trace"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert monitor.stdout is not None
    try:
        subprocess.run(
            ["nft", "-f", "-"], input=TRACE.replace("PACKET", packet), text=True, check=False, capture_output=True
        )
        time.sleep(0.1)  # nft does not say when it has begun to listen
        yield lines
    finally:
        subprocess.run(["nft", "delete", "table", "inet", TABLE], check=False, capture_output=True)
        monitor.terminate()
        lines += monitor.stdout.read().splitlines()
        monitor.wait()
        monitor.stdout.close()


def _ask(netns: int, protocol: str, version: int, target: str, port: int) -> str:
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    number = 132 if protocol == "sctp" else 0
    with Inside(netns):
        sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind, number)
    with sock:
        sock.settimeout(SECONDS)
        try:
            sock.connect((target, port))
            if protocol == "udp":
                sock.send(b"?")
                sock.recv(1)
            return "answered"
        except (TimeoutError, socket.timeout):
            return "silence (for UDP that may be its program's answer)" if protocol == "udp" else "silence"
        except OSError as error:
            return error.strerror or str(error)


def trace_steps(lines: list[str]) -> list[Step]:
    """The steps of the first packet: one for each rule and policy with a verdict."""
    number, steps = "", []
    for line in lines:
        found = re.match(r"trace id (\w+) (\S+) (\S+) (\S+) (rule|policy|verdict) ?(.*)", line)
        if not found or f" {TABLE} " in line:
            continue
        number = number or found[1]
        if found[1] != number:
            continue
        where, said = f"{found[2]} {found[3]} {found[4]}", found[6]
        verdict = re.search(r"\(verdict (\w+)", said)
        word = verdict[1] if verdict else said.split()[0] if said else found[5]
        text = f"{where}: {found[5]} {said}".strip()
        if word == "drop" or " reject" in f" {said}":
            steps.append(stop("live-drop", text, "the kernel's own trace of the packet"))
        elif found[5] != "verdict":
            steps.append(ok("trace", text))
    return steps
