"""conf/resolver with a real systemd-resolved and a real unbound: containers are answered at their gateways by both
families, and a LAN that knows the way is not. dnsmasq is in tests/kernel."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from support.debian import Unavailable
from support.scratch import CHECKOUT, Host, Json, Namespace
from support.traffic import open_socket
from system import SUBNETS, System, with_lan

PATIENCE = 20.0
QUESTION = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x04test\x00\x00\x01\x00\x01"  # A of x.test
ANSWER = bytes([192, 0, 2, 9])
CONFLIST: Json = {
    "cniVersion": "1.0.0",
    "name": "web",
    "plugins": [{"type": "nftcni", "bridge": "br-web", "ipam": {"ranges": [[{"subnet": one}] for one in SUBNETS]}}],
}


class Resolver(NamedTuple):
    """`folder` of /etc is its system's, `name` the file there that it knows x.test from."""

    folder: str
    name: str
    text: str
    command: tuple[str, ...]


RESOLVERS = {
    "systemd-resolved": Resolver("systemd", "hosts", "192.0.2.9 x.test\n", ("/lib/systemd/systemd-resolved",)),
    "unbound": Resolver(
        *("unbound", "unbound/unbound.conf.d/own.conf", 'server:\n    local-data: "x.test. A 192.0.2.9"\n'),
        command=("unbound", "-d"),
    ),
}


@pytest.fixture(params=RESOLVERS)
def system(request: pytest.FixtureRequest) -> Iterator[tuple[System, Resolver]]:
    """The resolver's configuration is the host's own, and it is found as one that runs, or is installed."""
    resolver, host = RESOLVERS[request.param], Host()
    try:
        system = System(host, "named", ["unbound", "unbound-checkconf"] if request.param == "unbound" else [])
    except Unavailable as problem:
        host.close()
        pytest.fail(f"{request.param} cannot be had: {problem}")
    host.run("mkdir", "/run/named.upper/over", "/run/named.upper/etcwork")
    layers = "lowerdir=/etc,upperdir=/run/named.upper/over,workdir=/run/named.upper/etcwork"
    host.run("mount", "-t", "overlay", "-o", layers, "etc", "/etc")
    host.run("sh", "-c", f"rm -rf /etc/cni /etc/dnsmasq.d; mkdir -p /etc/cni/net.d /etc/{resolver.folder} /run/lib")
    host.run("rm", "-f", f"{system.root}/etc/unbound/unbound.conf.d/root-auto-trust-anchor-file.conf")  # of DNSSEC
    host.run("mount", "--bind", f"{system.root}/etc/{resolver.folder}", f"/etc/{resolver.folder}")
    host.file(f"{system.root}/etc/{resolver.name}").write_text(resolver.text)
    host.file("/etc/cni/net.d/web.conflist").write_text(json.dumps(CONFLIST))
    if request.param == "systemd-resolved":
        host.run("mkdir", "-p", "/run/systemd/resolve", f"{system.root}/run/systemd")
        host.file("/run/systemd/resolve/stub-resolv.conf").write_text("")
    yield system, resolver
    host.close()


def is_answered(place: Namespace, address: str, patience: float = PATIENCE) -> bool:
    end = time.monotonic() + patience
    while True:
        with open_socket(place, socket.AF_INET6 if ":" in address else socket.AF_INET, "udp") as sock:
            sock.settimeout(0.5)
            try:
                sock.connect((address, 53))
                sock.send(QUESTION)
                if ANSWER in sock.recv(512):
                    return True
            except OSError:
                time.sleep(0.05)  # refused at once
        if time.monotonic() > end:
            return False


def test_containers_are_answered_and_nobody_else(system: tuple[System, Resolver]) -> None:
    (system_, resolver), host = system, system[0].host
    lan = with_lan(host)
    words = (str(CHECKOUT / "conf" / "resolver"), "install", "--lib-dir", "/run/lib")
    said = host.run(*words)
    assert "10.88.0.1 fd00:88::1" in said
    daemon = system_.start(*resolver.command)
    try:
        document = json.loads(host.file("/etc/cni/net.d/web.conflist").read_text())
        result = host.add({**document["plugins"][0], "cniVersion": "1.0.0", "name": "web"})
        assert result["dns"]["nameservers"] == ["10.88.0.1", "fd00:88::1"]
        for address in result["dns"]["nameservers"]:
            assert is_answered(host.place("c1"), address), system_.log.read_text()
            assert is_answered(host, address)
            assert not is_answered(lan, address, patience=1)
            host.run("nft", "delete", "table", "inet", "nftcni_resolver")  # that is what keeps the LAN away
            if resolver.folder != "unbound":  # which asks who may, as well
                assert is_answered(lan, address)
            host.run("nft", "-f", "/run/lib/resolver.nft")
    finally:
        daemon.terminate()
        daemon.wait()
    host.run(words[0], "remove", *words[2:])
    assert host.run("find", "/etc/cni/net.d", f"/etc/{resolver.folder}", "-name", "*nftcni*") == ""
