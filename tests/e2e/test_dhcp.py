"""`ipam.type: dhcp` with the reference plugin's daemon and a real DHCP server, a router on a LAN bridge."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import programs
import pytest
from support.scratch import CHECKOUT, Host, Json
from support.traffic import Server, ask

PATIENCE = 20.0
SOCKET = "/run/cni/dhcp.sock"  # where the plugin asks its daemon
ROUTER = "10.77.0.1"
SERVER = (
    *("dnsmasq", "--keep-in-foreground", "--pid-file=", "--user=root", "--log-facility=-", "--port=0", "--no-ping"),
    *("--conf-file=/dev/null", "--dhcp-range=10.77.0.100,10.77.0.120,1h", "--dhcp-leasefile=/run/leases"),
)


@pytest.fixture
def lan() -> Iterator[Host]:
    """The host is one of several machines on the bridge; its router hands out addresses."""
    programs.require("dnsmasq", "reference/dhcp")
    host = Host()
    host.run("ip", "link", "add", "br-lan", "type", "bridge")
    host.run("ip", "link", "set", "br-lan", "up")
    router = host.container("router")
    host.run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "eth0", "netns", "router")
    host.run("ip", "link", "set", "cable", "master", "br-lan", "up")
    router.run("ip", "addr", "add", f"{ROUTER}/24", "dev", "eth0")
    router.run("ip", "link", "set", "eth0", "up")
    host.run("ip", "addr", "add", "10.77.0.2/24", "dev", "br-lan")
    host.run("ip", "route", "add", "default", "via", ROUTER)
    host.run("mkdir", "-p", "/run/cni")
    serving = host.popen("ip", "netns", "exec", "router", *SERVER)
    daemon = host.popen(str(programs.BIN / "reference" / "dhcp"), "daemon")
    try:
        end = time.monotonic() + PATIENCE
        while not host.file(SOCKET).exists():
            assert time.monotonic() < end, "the daemon makes no socket"
            time.sleep(0.01)
        yield host
    finally:
        for process in (daemon, serving):
            process.terminate()
            process.wait()
        host.close()


def leases(host: Host) -> list[str]:
    """The addresses that the server has handed out."""
    return [line.split()[2] for line in host.run("cat", "/run/leases").splitlines()]


CONFIGS: dict[str, Json] = {
    "nftcni": {"type": "nftcni"},
    "bridge": {"type": "bridge", "isDefaultGateway": False},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_container_is_a_machine_of_the_lan(lan: Host, tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(CHECKOUT / "conf" / "nftcni")
    (tmp_path / "dhcp").symlink_to(programs.BIN / "reference" / "dhcp")
    config = {"cniVersion": "1.0.0", "name": "lan", "bridge": "br-lan", "ipam": {"type": "dhcp"}, **CONFIGS[name]}
    how = {"plugin": str(tmp_path / name), "env": {"CNI_PATH": str(tmp_path)}}
    lan.container("c1")
    before = lan.snapshot()
    result = lan.add(config, **how)
    address = result["ips"][0]["address"].partition("/")[0]
    assert leases(lan) == [address]
    assert lan.place("c1").addresses("eth0") == {f"{address}/24"}
    assert {"dst": "0.0.0.0/0", "gw": ROUTER} in result["routes"]
    with Server(lan.place("c1"), 80), Server(lan.place("router"), 80):
        assert ask(lan.place("router"), address, 80, timeout=PATIENCE) == f"c1 {ROUTER}"
        assert ask(lan.place("c1"), ROUTER, 80, timeout=PATIENCE) == f"router {address}"
    assert lan.cni("CHECK", {**config, "prevResult": result}, **how).status == 0
    lan.delete(config, **how)
    assert leases(lan) == []  # given back to the server at once
    assert lan.snapshot() == before


def test_without_its_daemon_nothing_is_left(lan: Host, tmp_path: Path) -> None:
    (tmp_path / "dhcp").symlink_to(programs.BIN / "reference" / "dhcp")
    lan.run("rm", SOCKET)
    lan.container("c1")
    before = lan.snapshot()
    config = {"cniVersion": "1.0.0", "name": "lan", "type": "nftcni", "bridge": "br-lan", "ipam": {"type": "dhcp"}}
    answer = lan.cni("ADD", config, env={"CNI_PATH": str(tmp_path)})
    assert answer.status != 0 and "dhcp.sock" in answer.words
    assert lan.snapshot() == before


def test_del_without_the_daemon_ends_the_rest(lan: Host, tmp_path: Path) -> None:
    (tmp_path / "dhcp").symlink_to(programs.BIN / "reference" / "dhcp")
    config = {"cniVersion": "1.0.0", "name": "lan", "type": "nftcni", "bridge": "br-lan", "ipam": {"type": "dhcp"}}
    how = {"env": {"CNI_PATH": str(tmp_path)}}
    lan.container("c1")
    before = lan.snapshot()
    lan.add(config, **how)
    lan.run("rm", SOCKET)
    answer = lan.cni("DEL", config, **how)
    assert answer.status != 0 and "dhcp.sock" in answer.words
    assert lan.snapshot() == before
