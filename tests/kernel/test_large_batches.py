"""What does not fit one message of a netlink socket: thousands of ports in one transaction, listings in many parts."""

from __future__ import annotations

import json
import subprocess

import pytest
from support.scratch import PLUGIN, Host, network, port

COUNT = 4500  # elements of 56 bytes; a socket takes 208 KiB (net.core.wmem_default)
PORTS = [port(10000 + number, 80) for number in range(COUNT)]
CONFIG = network("net0", "10.88.0.0/24", ports=PORTS)
# A host in a user namespace, as rootless runtimes have it. The first ADD makes the table, by nft's own text; what the
# second one adds goes by our own batch.
SCRIPT = """
mount -t tmpfs scratch /run
unshare --net sleep 60 &
until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
export CNI_CONTAINERID=c1 CNI_NETNS=/proc/$!/ns/net CNI_PATH=/x
echo "$FIRST" | CNI_IFNAME=eth9 CNI_COMMAND=ADD "$PLUGIN" >/run/first
cat >/run/conf
CNI_IFNAME=eth0 CNI_COMMAND=ADD "$PLUGIN" </run/conf >/run/result || { cat /run/result; exit 1; }
nft -j list map inet nftcni dnat4
CNI_IFNAME=eth0 CNI_COMMAND=DEL "$PLUGIN" </run/conf
nft -j list map inet nftcni dnat4
kill $!
"""


def elements(line: str) -> int:
    (found,) = [item["map"] for item in json.loads(line)["nftables"] if "map" in item]
    return len(found.get("elem", []))


def test_thousands_of_ports_in_one_transaction(host: Host) -> None:
    host.add(network("net9", "10.99.0.0/24"), "keeper")
    result = host.add(CONFIG)
    assert len(host.elements()["dnat4"]) == COUNT
    assert host.cni("CHECK", {**CONFIG, "prevResult": result}).words == ""
    host.delete(CONFIG)
    assert "dnat4" not in host.elements()


DROPPING = "type filter hook forward priority 0; policy drop"


@pytest.mark.parametrize("ask", ["STATUS", "doctor"])
def test_beside_foreign_tables_with_thousands_of_rules(host: Host, ask: str) -> None:
    """Each drops what is forwarded and names the bridge at its beginning, so that the rest of it need not be read."""
    config = network("net0", "10.88.0.0/24")
    host.add(config)
    rules = "\n".join(f"ip daddr 192.0.2.1 tcp dport {number} accept" for number in range(1, 2001))
    for table in ("one", "two"):
        bridge = "iifname br-net0 accept\noifname br-net0 accept"
        host.nft(f"table ip {table} {{\nchain c {{\n{DROPPING}\n{bridge}\n{rules}\n}}\n}}")
    if ask == "STATUS":
        assert host.cni("STATUS", config).words == ""
    else:
        done = host.command("doctor")
        assert done.returncode == 0, done.stdout + done.stderr


def test_thousands_of_ports_where_no_buffer_is_enlarged_by_force() -> None:
    """Only the initial user namespace may; everywhere else the system's limit counts, which is twice the default."""
    unshare = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("NOT RUN: this machine allows no user namespaces")
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PLUGIN": PLUGIN,
        "FIRST": json.dumps(network("net9", "10.99.0.0/24")),
    }
    words = [*unshare, "--kill-child", "sh", "-ec", SCRIPT]
    done = subprocess.run(words, input=json.dumps(CONFIG), env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[:1000] + done.stderr
    assert [elements(line) for line in done.stdout.splitlines()] == [COUNT, 0]
