"""Unprivileged containers as hosts: systemd-nspawn and LXC with users of their own, whose /proc/sys is read-only but
for /proc/sys/net. What they run is this machine's root in a layer of memory, with a network of its own.

kind and whatever else starts such hosts by Docker or podman cannot be had here.
"""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from support.scratch import CHECKOUT, network, port

CONFIG = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)])
# root's files belong to nobody in there, who may read them.
IDS = (524288, 65536)
ROOT = """
mount --make-rprivate /
mount -t tmpfs -o mode=755 layer /mnt
mkdir /mnt/upper /mnt/work /mnt/root /mnt/lxc
chown {first} /mnt/upper
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
mkdir -p /mnt/root/srv/nftcni
cp -r {checkout}/cni {checkout}/nft {checkout}/conf /mnt/root/srv/nftcni
"""
NSPAWN = (
    *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--link-journal=no", "--private-network", "--pipe"),
    *("--private-users={first}:{number}", "--private-users-ownership=off", "--directory=/mnt/root"),
)
LXC = """
echo root:{first}:{number} >/mnt/ids
mount --bind /mnt/ids /etc/subuid
mount --bind /mnt/ids /etc/subgid
cat >/mnt/config <<END
lxc.rootfs.path = dir:/mnt/root
lxc.idmap = u 0 {first} {number}
lxc.idmap = g 0 {first} {number}
lxc.mount.auto = proc:mixed sys:mixed
lxc.net.0.type = empty
lxc.apparmor.profile = unconfined
END
exec lxc-execute -P /mnt/lxc -n host -f /mnt/config --
"""
WAYS = {
    "systemd-nspawn": "exec " + " ".join(NSPAWN),
    "lxc-execute": LXC.strip(),
}
# Facts, one a line; the kernel says what is left. The server tells that it listens before anybody asks.
INSIDE = r"""
exec 2>&1
set -eu
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/netns /run/cni
ip link set lo up
ip netns add c1
cat /proc/self/uid_map | tr -s ' '
touch /proc/sys/kernel/hostname 2>/dev/null && ! true >/proc/sys/kernel/hostname || echo '/proc/sys is read-only'
export CNI_CONTAINERID=c1 CNI_NETNS=/run/netns/c1 CNI_IFNAME=eth0 CNI_PATH=/nonexistent
echo '@CONFIG@' >/run/config
for verb in STATUS ADD; do
    CNI_COMMAND=$verb @PLUGIN@ </run/config >/run/$verb || cat /run/$verb
done
mkfifo /run/listens
nsenter --net=/run/netns/c1 /usr/bin/python3 -c '
import socket
listener = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
open("/run/listens", "w").write("yes")
for number in range(3):
    client, peer = listener.accept()
    client.sendall(b"c1 sees " + peer[0].encode())
    client.close()' &
read -r listens </run/listens || true
ask() {
    /usr/bin/python3 -c '
import socket, sys
print("answer:", socket.create_connection((sys.argv[1], int(sys.argv[2])), 20).recv(100).decode())' "$@"
}
ask 127.0.0.1 8080
nft flush ruleset
@PLUGIN@ repair >/run/repair
@PLUGIN@ repair --check
ask 127.0.0.1 8080
ask fd00:88::2 80
CNI_COMMAND=DEL @PLUGIN@ </run/config
echo "left: $(ip -o link | grep -c br-net0) $(nft list ruleset | grep -c 10.88) $(@PLUGIN@ list)"
"""


@pytest.mark.parametrize("program", WAYS)
def test_it_serves_a_container_is_repaired_and_leaves_nothing(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"NOT RUN: a host in a container of that kind needs {program}")
    first, number = IDS
    script = INSIDE.replace("@CONFIG@", json.dumps(CONFIG)).replace("@PLUGIN@", "/srv/nftcni/conf/nftcni")
    start = (ROOT + WAYS[program]).format(first=first, number=number, checkout=CHECKOUT) + ' /bin/sh -c "$1"'
    words = ["unshare", "--mount", "--net", "sh", "-ec", start, "sh", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=100)
    said = [line.strip() for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"0 {first} {number}" in said and "/proc/sys is read-only" in said
    answers = [line for line in said if line.startswith("answer:")]
    assert answers == [
        "answer: c1 sees ::ffff:10.88.0.1",
        "answer: c1 sees ::ffff:10.88.0.1",
        "answer: c1 sees fd00:88::1",
    ]
    assert "nothing to repair" in said
    assert said[-1] == "left: 0 0", done.stdout
