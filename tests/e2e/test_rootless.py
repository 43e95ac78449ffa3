"""Without root: nerdctl and containerd under RootlessKit, started by nerdctl's own script; and the plugin alone in a
user namespace, which is where rootless runtimes call it.

RootlessKit opens the published port on the real host and connects to it on 127.0.0.1 inside.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import programs
import pytest
import readme
from machine import Machine, browse, wait_for
from nerdctl import HERE, Nerdctl
from support.scratch import network

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
    machine.shell(readme.commands("Rootless", 0)[0])
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


# A user of the host, as the packages of RootlessKit and uidmap want one.
USER = """
mount -t tmpfs -o mode=755 net /dev/net
mknod -m 666 /dev/net/tun c 10 200
echo nobody:100000:65536 >/etc/subuid
echo nobody:100000:65536 >/etc/subgid
mount -t tmpfs home /home
mkdir -p /home/nobody/.config/containerd /run/user/65534
printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n' \
    >/home/nobody/.config/containerd/config.toml
chown -R nobody:nogroup /home/nobody /run/user/65534
"""
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env"]
AS_NOBODY += ["HOME=/home/nobody", "USER=nobody", "XDG_RUNTIME_DIR=/run/user/65534"]
STATE_DIR = "/run/user/65534/containerd-rootless"


class Rootless(Nerdctl):
    """nerdctl as the user nobody types it."""

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.machine.call(*AS_NOBODY, *words)

    def shell(self, line: str) -> None:
        """A line of the README, in the checkout, which may be in a folder that is closed to others."""
        copied = self.machine.shell("cat conf/net.d/nerdctl-bridge.conflist")
        self.machine.write("/var/lib/checkout/conf/net.d/nerdctl-bridge.conflist", copied)
        done = self.call("sh", "-ec", f"cd /var/lib/checkout; {line.replace('IMAGE', 'who')}")
        assert done.returncode == 0, done.stdout + done.stderr

    def within(self, *words: str) -> str:
        """A command in the namespaces of RootlessKit."""
        child = self.machine.file(f"{STATE_DIR}/child_pid").read_text().strip()
        enter = ["nsenter", "--user", "--preserve-credentials", "--net", "--mount", "--target", child]
        done = self.call(*enter, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def rootless(machine: Machine, archive: Path) -> Iterator[Rootless]:
    """containerd of an unprivileged user, on a host whose root has containers of this plugin, too."""
    programs.require("nerdctl", "containerd-rootless.sh", "rootlesskit", "slirp4netns", "newuidmap", "runc")
    programs.require("newest/containerd", "newest/containerd-shim-runc-v2")
    machine.shell(readme.commands("Rootless", 0)[0])
    machine.add(network("net0", "10.88.0.0/24"), "roots")
    machine.run("sh", "-ec", USER)
    path = machine.env["PATH"]
    machine.env["PATH"] = f"{programs.BIN}/newest:{path}"
    made = Rootless(machine)
    *prepare, start = readme.commands("Rootless", 1)
    for line in prepare:
        made.shell(line)
    machine.start("rootless", *AS_NOBODY, start)
    wait_for(lambda: made.call("nerdctl", "info").returncode == 0, "containerd under RootlessKit")
    machine.file("/home/nobody/who.tar").write_bytes(archive.read_bytes())
    machine.file("/home/nobody/who.tar").chmod(0o644)
    made("load -i /home/nobody/who.tar")
    yield made
    machine.stop("rootless")
    machine.env["PATH"] = path
    machine.delete(network("net0", "10.88.0.0/24"), "roots")


def test_the_commands_of_the_readme(rootless: Rootless) -> None:
    before = rootless.machine.state()
    for line in readme.commands("Rootless", 2):
        rootless.shell(line)
    wait_for(lambda: browse(rootless.machine.lan, HERE, 8080).endswith(" 10.4.0.1"), "the published port")
    rootless.clear()
    rootless.machine.check_unchanged(before)


def test_published_ports_under_rootlesskit(rootless: Rootless) -> None:
    machine, before = rootless.machine, rootless.machine.state()
    rootless.run("web", "-p 8080:80")
    assert browse(machine, "127.0.0.1", 8080).startswith("web ")
    assert browse(machine.lan, HERE, 8080).startswith("web "), "RootlessKit's builtin driver connects for the client"
    rootless.run("db")
    said = rootless(f"exec db wget -qO- http://{rootless.address('web')}/cgi-bin/who")
    assert said == f"web {rootless.address('db')}"
    rootless.fails("run -d --pull=never --name late -p 8080:80 who", "bind for :8080 failed: port is already allocated")
    rootless("restart web")
    rootless.ready("web")
    assert browse(machine.lan, HERE, 8080).startswith("web ")
    rootless("rm -f web db late")
    assert browse(machine, "127.0.0.1", 8080) == "refused"
    assert "8080" not in rootless.within("nft", "list", "ruleset")
    assert rootless.within("ip", "-o", "link").count("\n") == 2, "the loopback and RootlessKit's own"
    machine.check_unchanged(before)


def test_the_drop_in_names_under_rootlesskit(rootless: Rootless) -> None:
    """The user's nerdctl makes its networks as root's does."""
    machine, before = rootless.machine, rootless.machine.state()
    machine.shell("conf/install --drop-in --bin-dir /opt/nftcni/bin --conflist none")
    networks, settings = "/home/nobody/.config/cni/net.d", "/home/nobody/.config/nerdctl/nerdctl.toml"
    machine.run("mv", networks, "/home/nobody/kept")
    machine.write(settings, readme.settings("nerdctl network create"))
    try:
        rootless("network create --subnet 10.9.0.0/24 mine")
        rootless.run("web", "-p 8080:80")
        rootless.run("db", "--net mine -p 8081:80")
        assert browse(machine.lan, HERE, 8080).startswith("web ")
        assert browse(machine.lan, HERE, 8081).startswith("db ")
        said = browse(rootless.inside("db"), rootless.address("web"), 80)
        assert said in ("refused", "silence"), "another network is apart"
        rootless("rm -f web db")
        rootless("network rm mine")
        assert rootless.within("ip", "-o", "link").count("\n") == 2, "the loopback and RootlessKit's own"
    finally:
        rootless.clear()
        machine.run("rm", "-rf", networks, settings)
        machine.run("mv", "/home/nobody/kept", networks)
    machine.check_unchanged(before)
