"""Without root: the plugin in a user namespace of an unprivileged user, which is where rootless runtimes call it.

RootlessKit itself needs newuidmap and is not run here. What it adds is a way in from outside: it opens the port on the
real host and connects to it on 127.0.0.1 inside, which is what is asked here.
"""

from __future__ import annotations

import json
from typing import Any

from machine import Machine, browse

# As the user nobody: namespaces of a user, a network and mounts; then one container, as nerdctl would attach it.
SCRIPT = """
mount -t tmpfs run /run
mkdir /run/netns
ip link set lo up
ip netns add c1
export CNI_CONTAINERID=c1 CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin
id -u
CNI_COMMAND=ADD CNI_NETNS=/run/netns/c1 /opt/cni/bin/nftcni </var/lib/config >/dev/null
ip netns exec c1 python3 /var/lib/serve /run/ready &
while [ ! -e /run/ready ]; do sleep 0.05; done
for place in '"127.0.0.1", 8080' '"10.88.0.2", 80'; do
    python3 -c "import socket; print(socket.create_connection(($place), 2).recv(99).decode())"
done
CNI_COMMAND=DEL CNI_NETNS='' /opt/cni/bin/nftcni </var/lib/config
ip -o link show | grep -c .
nft -j list map inet nftcni dnat4 | grep -c 8080 || true
"""
SERVE = """
import pathlib, socket, sys
with socket.create_server(("", 80)) as server:
    pathlib.Path(sys.argv[1]).touch()
    for _ in range(2):
        connection, _ = server.accept()
        connection.sendall(b"served")
        connection.close()
"""
UNPRIVILEGED = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]


def test_the_plugin_works_in_a_user_namespace(machine: Machine) -> None:
    machine.install("--conflist", "none")
    config: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net0", "type": "nftcni", "bridge": "br0"}
    config["ipam"] = {"ranges": [[{"subnet": "10.88.0.0/24"}]]}
    config["runtimeConfig"] = {
        "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}]
    }
    machine.write("/var/lib/config", json.dumps(config))
    machine.write("/var/lib/serve", SERVE)
    machine.write("/var/lib/script", SCRIPT)
    before = machine.state()
    words = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    said = machine.run(*UNPRIVILEGED, *words, "sh", "-eu", "/var/lib/script").split()
    # Root of its own namespace; served over the published port and directly; only loopback and no port afterwards.
    assert said == ["0", "served", "served", "1", "0"]
    machine.check_unchanged(before)
    assert browse(machine, "127.0.0.1", 8080) == "refused", "the real host has seen nothing of it"
