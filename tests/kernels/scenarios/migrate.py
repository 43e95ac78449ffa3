"""`nftcni migrate` renames the host's end of a pair that is up: before Linux 6.2 it has to go down for that, and a held
connection must not notice. What the reference bridge would have made is made by hand; libcni's cache says so.
"""

from __future__ import annotations

import base64
import json
import socket

from kernels.scenarios.scene import PATIENCE
from support.libcni import CACHE, nerdctl
from support.scratch import Host
from support.traffic import open_socket


def attached_by_hand(host: Host) -> None:
    container = host.container("c1")
    for words in (
        "link add nerdctl0 type bridge",
        "addr add 10.4.0.1/24 dev nerdctl0",
        "link set nerdctl0 up",
        "link add veth0ld type veth peer name eth0 netns c1",
        "link set veth0ld master nerdctl0 up",
    ):
        host.run("ip", *words.split())
    for words in ("addr add 10.4.0.2/24 dev eth0", "link set eth0 up", "route add default via 10.4.0.1"):
        container.run("ip", *words.split())
    outer, inner = host.link("veth0ld")["address"], container.link("eth0")["address"]
    result = {
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "nerdctl0", "mac": host.link("nerdctl0")["address"]},
            {"name": "veth0ld", "mac": outer},
            {"name": "eth0", "mac": inner, "sandbox": "/run/netns/c1"},
        ],
        "ips": [{"address": "10.4.0.2/24", "gateway": "10.4.0.1", "interface": 2}],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    document = {
        "kind": "cniCacheV1",
        "containerId": "c1",
        "config": base64.b64encode(json.dumps(nerdctl()).encode()).decode(),
        "ifName": "eth0",
        "networkName": "bridge",
        "result": result,
    }
    host.file(CACHE).mkdir(parents=True)
    (host.file(CACHE) / "bridge-c1-eth0").write_text(json.dumps(document))


def test_a_held_connection_goes_on(host: Host) -> None:
    attached_by_hand(host)
    listener = open_socket(host.place("c1"), socket.AF_INET, "tcp")
    listener.bind(("10.4.0.2", 80))
    listener.listen(1)
    client = open_socket(host, socket.AF_INET, "tcp")
    client.settimeout(PATIENCE)
    client.connect(("10.4.0.2", 80))
    served, _ = listener.accept()
    served.settimeout(PATIENCE)
    done = host.command("migrate")
    assert done.returncode == 0 and "took over bridge/c1/eth0" in done.stdout, done.stdout + done.stderr
    assert host.link("veth0ld") is None and host.command("repair", "--check").returncode == 0
    client.sendall(b"ping")
    assert served.recv(16) == b"ping"
    served.sendall(b"pong")
    assert client.recv(16) == b"pong"
