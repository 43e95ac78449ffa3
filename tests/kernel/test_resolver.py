"""conf/resolver on a scratch host whose /etc and /usr take changes without the machine seeing them.

dnsmasq is here itself, asked by containers, the host and a neighbour; of the others the files are looked at:
tests/hosts has them.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.scratch import CHECKOUT, Host, Json, Namespace
from support.traffic import open_socket

FRESH = """
mkdir /run/layers && mount -t tmpfs layers /run/layers
for folder in etc usr; do
    mkdir -p /run/layers/$folder /run/layers/$folder.work
    mount -t overlay -o lowerdir=/$folder,upperdir=/run/layers/$folder,workdir=/run/layers/$folder.work over /$folder
done
rm -rf /etc/cni /etc/dnsmasq.d /etc/dnsmasq.conf /etc/unbound /usr/local/lib/nftcni
mkdir -p /etc/cni/net.d /etc/dnsmasq.d /usr/local/lib/nftcni
rm -f /usr/bin/systemctl /bin/systemctl
"""
LAN = "listen-address=127.0.0.1\nno-resolv\nno-hosts\naddress=/x.test/192.0.2.9\nconf-dir=/etc/dnsmasq.d\n"
QUESTION = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x04test\x00\x00\x01\x00\x01"
CONFLIST: Json = {
    "cniVersion": "1.0.0",
    "name": "web",
    "plugins": [
        {
            "type": "nftcni",
            "bridge": "br-web",
            "ipam": {"ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd00:88::/64"}]]},
        }
    ],
}


@pytest.fixture
def fresh(host: Host) -> Iterator[Host]:
    host.run("sh", "-ec", FRESH)
    put(host, "/etc/cni/net.d/web.conflist", json.dumps(CONFLIST))
    yield host


def put(host: Host, path: str, text: str) -> None:
    host.run("mkdir", "-p", path.rpartition("/")[0])
    host.file(path).write_text(text)


def resolver(host: Host, action: str, status: int = 0) -> str:
    done = host.call(str(CHECKOUT / "conf" / "resolver"), action)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def tree(host: Host) -> dict[str, str]:
    paths = host.run("find", "/etc/cni", "/etc/dnsmasq.d", "/etc/systemd", "/usr/local/lib/nftcni", "-type", "f")
    return {path: host.file(path).read_text() for path in paths.split()}


def ask(place: Namespace, address: str) -> str:
    """The answer's address, "" for none in time."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with open_socket(place, family, "udp") as sock:
        sock.settimeout(1.3)
        try:
            sock.connect((address, 53))
            sock.send(QUESTION)
            return socket.inet_ntoa(sock.recv(512)[-4:])
        except OSError:
            return ""


@contextlib.contextmanager
def dnsmasq(host: Host) -> Iterator[None]:
    program = host.popen("dnsmasq", "--keep-in-foreground", "--pid-file=", "--user=root", "--log-facility=-")
    try:
        end = time.monotonic() + 20
        while not ask(host, "127.0.0.1") and time.monotonic() < end:
            time.sleep(0.05)
        yield
    finally:
        program.terminate()
        program.wait()


def delivered(host: Host) -> Any:
    document = json.loads(host.file("/etc/cni/net.d/web.conflist").read_text())
    return {**document["plugins"][0], "cniVersion": "1.0.0", "name": "web"}


def test_containers_are_answered_and_nobody_else(fresh: Host) -> None:
    put(fresh, "/etc/dnsmasq.conf", LAN)
    lan = fresh.neighbour()
    lan.run("ip", "route", "add", "10.88.0.0/24", "via", "198.51.100.1")
    lan.run("ip", "-6", "route", "add", "fd00:88::/64", "via", "2001:db8:100::1")
    before = tree(fresh)
    said = resolver(fresh, "install")
    assert "dnsmasq" in said and "10.88.0.1 fd00:88::1" in said
    with dnsmasq(fresh):
        result = fresh.add(delivered(fresh))
        assert result["dns"]["nameservers"] == ["10.88.0.1", "fd00:88::1"]
        for address in result["dns"]["nameservers"]:
            end = time.monotonic() + 10  # it hears of the bridge's address from the kernel
            while not ask(fresh.place("c1"), address) and time.monotonic() < end:
                time.sleep(0.05)
            assert ask(fresh.place("c1"), address) == ask(fresh, address) == "192.0.2.9"
            assert ask(lan, address) == ""
        assert ask(fresh, "127.0.0.1") == "192.0.2.9"
        resolver(fresh, "install")  # after a network was added, for example
        resolver(fresh, "remove")
    assert tree(fresh) == before
    assert "nftcni_resolver" not in fresh.run("nft", "list", "tables")


def test_one_that_listens_everywhere_needs_no_address(fresh: Host) -> None:
    """An address would take everywhere else away."""
    put(fresh, "/etc/dnsmasq.conf", "no-resolv\n")
    resolver(fresh, "install")
    assert "listen-address" not in tree(fresh)["/etc/dnsmasq.d/nftcni.conf"]


def test_a_configuration_that_it_does_not_take_is_taken_back(fresh: Host) -> None:
    put(fresh, "/etc/dnsmasq.conf", "conf-dir=/etc/dnsmasq.d\nno-such-word\n")
    before = tree(fresh)
    assert "dnsmasq does not take" in resolver(fresh, "install", status=1)
    assert tree(fresh) == before


def test_systemd_resolved(fresh: Host) -> None:
    """One line for each gateway; the table is loaded before it starts."""
    put(fresh, "/run/systemd/resolve/stub-resolv.conf", "")
    put(fresh, "/usr/bin/systemctl", '#!/bin/sh\necho "$@" >>/run/asked\n')
    fresh.run("chmod", "755", "/usr/bin/systemctl")
    before = tree(fresh)
    resolver(fresh, "install")
    files = tree(fresh)
    written = files["/etc/systemd/resolved.conf.d/nftcni.conf"]
    assert written == "[Resolve]\nDNSStubListenerExtra=10.88.0.1\nDNSStubListenerExtra=fd00:88::1\n"
    assert "resolver.nft" in files["/etc/systemd/system/systemd-resolved.service.d/nftcni.conf"]
    assert "try-restart systemd-resolved" in fresh.file("/run/asked").read_text()
    resolver(fresh, "remove")
    assert tree(fresh) == before


def test_unbound(fresh: Host) -> None:
    fresh.run("rm", "-r", "/etc/dnsmasq.d")
    put(fresh, "/etc/unbound/unbound.conf.d/own.conf", "server:\n    verbosity: 1\n")
    put(fresh, "/usr/sbin/unbound", "#!/bin/sh\n")
    fresh.run("chmod", "755", "/usr/sbin/unbound")
    resolver(fresh, "install")
    written = fresh.file("/etc/unbound/unbound.conf.d/nftcni.conf").read_text().split("\n    ")
    assert {"interface: 127.0.0.1", "interface: 10.88.0.1", "access-control: 10.88.0.0/24 allow"} <= set(written)


def test_networks_that_say_otherwise_stay(fresh: Host) -> None:
    """One with a nameserver of its own, one whose gateway is another machine, one of somebody else's."""
    put(fresh, "/etc/dnsmasq.conf", LAN)
    cases: dict[str, Json] = {
        "own": {"dns": {"nameservers": ["192.0.2.53"]}},
        "guest": {"isGateway": False},
        "other": {"type": "macvlan"},
    }
    for name, keys in cases.items():
        document = {**CONFLIST, "name": name, "plugins": [{**CONFLIST["plugins"][0], **keys}]}
        put(fresh, f"/etc/cni/net.d/{name}.conflist", json.dumps(document))
    before = tree(fresh)
    resolver(fresh, "install")
    after = tree(fresh)
    for name in ("own", "guest", "other"):
        path = f"/etc/cni/net.d/{name}.conflist"
        assert after[path] == before[path]


def test_an_edited_network_is_left_and_named(fresh: Host) -> None:
    put(fresh, "/etc/dnsmasq.conf", LAN)
    resolver(fresh, "install")
    path = "/etc/cni/net.d/web.conflist"
    put(fresh, path, fresh.file(path).read_text().replace("br-web", "br-new"))
    assert path in resolver(fresh, "remove") and "br-new" in fresh.file(path).read_text()


def test_without_a_resolver_or_a_network_it_refuses(fresh: Host) -> None:
    fresh.run("rm", "-r", "/etc/dnsmasq.d")
    assert "neither" in resolver(fresh, "install", status=1)
    fresh.run("rm", "/etc/cni/net.d/web.conflist")
    assert "no network" in resolver(fresh, "install", status=1)


def test_conf_install_does_and_undoes_it(fresh: Host) -> None:
    put(fresh, "/etc/dnsmasq.conf", LAN)
    fresh.run("rm", "-r", "/usr/local/lib/nftcni", "/etc/cni/net.d/web.conflist")
    fresh.run("mount", "-t", "tmpfs", "empty", "/opt")
    script = str(CHECKOUT / "conf" / "install")
    fresh.run(script, "--conflist", "nerdctl-bridge", "--resolver")
    path = "/etc/cni/net.d/nerdctl-bridge.conflist"
    assert '"nameservers"' in fresh.file(path).read_text()
    fresh.run(script, "--uninstall")
    left = fresh.run("find", "/etc/cni/net.d", "/etc/dnsmasq.d", "/usr/local/lib", "-name", "*n*ft*cni*").split()
    assert left == [] and not fresh.file(path).exists()
