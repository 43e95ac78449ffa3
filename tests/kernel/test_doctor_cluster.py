"""What doctor says of a cluster: flannel's lease, exceptions from the masquerade, nodes that are silent."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from support.scratch import Host, Json, Namespace, network
from support.traffic import Server, ask

FILE = "/run/flannel/subnet.env"
LEASE = "FLANNEL_NETWORK={network}\nFLANNEL_SUBNET={subnet}\nFLANNEL_MTU={mtu}\nFLANNEL_IPMASQ=false\n"
SAID: dict[str, object] = {"network": "10.245.0.0/16", "subnet": "10.245.14.1/24", "mtu": 1450}
FLANNEL = network(ipam={"type": "flannel"})
THERE, HERE = "10.244.2.1", "10.244.1.2"


def findings(host: Host) -> list[Json]:
    done = host.command("doctor", "--json")
    assert "Traceback" not in done.stderr and done.returncode in (0, 1), done.stderr
    found: list[Json] = json.loads(done.stdout)["findings"]
    assert bool(found) == bool(done.returncode)
    return found


def of_kind(host: Host, kind: str) -> str:
    found = [step for step in findings(host) if step["kind"] == kind]
    assert len(found) == 1, found
    return f"{found[0]['what']} {found[0]['because']} {' '.join(found[0]['remedy'])}"


@pytest.fixture
def flannel(host: Host, tmp_path: Path) -> Host:
    """A host whose one network is flannel's, with its file among the runtime's, and an executable for it."""
    host.env.update(NETCONFPATH=str(tmp_path), CNI_PATH=str(tmp_path))
    keys = {key: value for key, value in FLANNEL.items() if key not in ("name", "cniVersion")}
    whole = {"cniVersion": "1.0.0", "name": "net0", "plugins": [{**keys, "capabilities": {"portMappings": True}}]}
    (tmp_path / "10-flannel.conflist").write_text(json.dumps(whole))
    (tmp_path / "nftcni").symlink_to("/bin/true")
    return host


def lease(host: Host, **changed: object) -> None:
    host.file(FILE).parent.mkdir(exist_ok=True)
    host.file(FILE).write_text(LEASE.format(**{**SAID, **changed}))


def test_a_host_without_a_lease(flannel: Host) -> None:
    flannel.container("c1")
    assert flannel.cni("ADD", FLANNEL).code == 11
    assert "systemctl start flanneld" in of_kind(flannel, "lease")
    lease(flannel, mtu="much")
    assert "FLANNEL_MTU=much" in of_kind(flannel, "lease")
    lease(flannel)
    flannel.add(FLANNEL)
    assert findings(flannel) == []


@pytest.mark.parametrize(
    ("kind", "changed", "words"),
    [
        ("old-lease", {"subnet": "10.245.77.1/24"}, ("10.245.14.2", "10.245.77.0/24")),
        ("mtu", {"mtu": 1370}, ("1450", "1370")),
        ("exceptions", {"network": "10.245.0.0/16,10.99.0.0/16"}, ("10.99.0.0/16", "nonMasqueradeCIDRs")),
    ],
)
def test_a_lease_that_has_changed_since(
    flannel: Host, kind: str, changed: dict[str, object], words: tuple[str, ...]
) -> None:
    lease(flannel)
    flannel.add(FLANNEL)
    assert findings(flannel) == []
    lease(flannel, **changed)
    said = of_kind(flannel, kind)
    assert all(word in said for word in words), said
    flannel.delete(FLANNEL)
    flannel.add(FLANNEL)
    assert findings(flannel) == [], "started again, as printed"


def test_an_overlay_that_is_down(flannel: Host) -> None:
    lease(flannel)
    flannel.add(FLANNEL)
    flannel.run("ip", "link", "add", "flannel.1", "type", "veth", "peer", "name", "other")
    said = of_kind(flannel, "overlay")
    assert "flannel.1 is down" in said and "ip link set flannel.1 up" in said
    flannel.run("sh", "-c", "ip link set other up; ip link set flannel.1 up")
    assert findings(flannel) == []


@pytest.fixture
def node(host: Host) -> Namespace:
    """Another node with pods of its own, each knowing the way to the other's."""
    other = host.neighbour()
    other.run("ip", "addr", "add", f"{THERE}/24", "dev", "lo")
    other.run("ip", "route", "add", "10.244.1.0/24", "via", "198.51.100.1")
    host.run("ip", "route", "add", "10.244.2.0/24", "via", "198.51.100.2")
    return other


def test_pods_of_other_nodes_that_are_masqueraded(host: Host, node: Namespace) -> None:
    config = network("net0", "10.244.1.0/24", gatewayMode="open")
    mended = {**config, "nonMasqueradeCIDRs": ["10.244.0.0/16"]}
    host.add(config)
    with Server(node, 80):
        assert ask(host.place("c1"), THERE, 80) == "lan 198.51.100.1"
        said = of_kind(host, "exceptions")
        assert "10.244.2.0/24" in said and "198.51.100.2" in said and "nonMasqueradeCIDRs" in said
        host.delete(config)
        (address,) = host.add(mended)["ips"]
        assert ask(host.place("c1"), THERE, 80) == f"lan {address['address'].partition('/')[0]}"
        assert findings(host) == []


def test_a_node_that_does_not_answer(host: Host, node: Namespace) -> None:
    config = network("net0", "10.244.1.0/24", gatewayMode="open", nonMasqueradeCIDRs=["10.244.0.0/16"])
    host.add(config)
    host.run("ip", "route", "replace", "10.244.2.0/24", "via", "198.51.100.77")
    with Server(node, 80):
        assert ask(host.place("c1"), THERE, 80) in ("silence", "unreachable")
        for _ in range(100):  # until the kernel has given up asking, three times a second
            if host.json("ip", "-j", "neigh", "show", "to", "198.51.100.77")[0]["state"] == ["FAILED"]:
                break
            time.sleep(0.1)
        said = of_kind(host, "node")
        assert "198.51.100.77" in said and "10.244.2.0/24" in said
        host.run("ip", "route", "replace", "10.244.2.0/24", "via", "198.51.100.2")
        assert ask(host.place("c1"), THERE, 80) == f"lan {HERE}"
        assert findings(host) == []


def test_routes_that_are_no_nodes_are_no_alarm(host: Host, node: Namespace) -> None:
    """A VPN's, a default route by a prefix of the pods' size far away, one of a network that is closed."""
    host.run("ip", "route", "add", "10.8.0.0/16", "via", "198.51.100.2")
    host.run("ip", "route", "add", "172.20.2.0/24", "via", "198.51.100.2")
    host.add(network("net0", "10.88.0.0/24", gatewayMode="open"))
    host.add(network("net1", "10.244.1.0/24"), "c2")
    assert findings(host) == []
