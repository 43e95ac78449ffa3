"""Names that stand for every link of the host, or for its loopback: a container changes none of their sysctls.

`all` and `default` are folders of /proc/sys/net/ipv4/conf, and no links; a result or a configuration may name them.
"""

from __future__ import annotations

import pytest
from support.scratch import PLUGIN, Host, Json, network, port

PORTS = {"portMappings": [port(8080, 80)]}


def chained(role: str, *names: str) -> Json:
    interfaces = [{"name": name, "mac": "02:00:00:00:00:01"} for name in names]
    inside = {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/c1"}
    ips = [{"address": "10.88.0.2/24", "gateway": "10.88.0.1", "interface": len(names)}]
    previous = {"cniVersion": "1.0.0", "interfaces": [*interfaces, inside], "ips": ips}
    config = {"cniVersion": "1.0.0", "name": "net0", "type": role, "prevResult": previous}
    return {**config, "runtimeConfig": PORTS, "ingressPolicy": "same-bridge"}


@pytest.fixture
def drop_in(host: Host) -> Host:
    for name in ("portmap", "firewall"):
        host.file(f"/run/{name}").symlink_to(PLUGIN)
    host.container("c1")
    return host


@pytest.mark.parametrize("role", ["portmap", "firewall"])
@pytest.mark.parametrize("name", ["all", "default"])
def test_a_previous_result_that_names_every_link(drop_in: Host, role: str, name: str) -> None:
    before = drop_in.sysctls()
    answer = drop_in.refused("ADD", chained(role, name), plugin=f"/run/{role}")
    assert answer.code == 7 and "prevResult.interfaces" in answer.words and name in answer.words, answer.words
    assert drop_in.sysctls() == before


@pytest.mark.parametrize("role", ["portmap", "firewall"])
def test_the_loopback_is_no_way_to_a_container(drop_in: Host, role: str) -> None:
    """Where an earlier plugin lists it, the next link of the host is the way."""

    def its_sysctls() -> dict[str, str]:
        """Without its forwarding, which the kernel switches together with the host's."""
        return {key: value for key, value in drop_in.sysctls().items() if "/lo/" in key and "/forwarding" not in key}

    drop_in.run("ip", "link", "add", "br-x", "type", "bridge")
    before = its_sysctls()
    config = chained(role, "lo", "br-x")
    assert drop_in.cni("ADD", config, plugin=f"/run/{role}").words == ""
    assert its_sysctls() == before
    assert "lo" not in str(drop_in.elements().get("bridges"))
    drop_in.delete(config, plugin=f"/run/{role}")


@pytest.mark.parametrize("name", ["all", "default", "lo"])
def test_a_bridge_of_such_a_name(host: Host, name: str) -> None:
    host.container("c1")
    before = host.sysctls()
    answer = host.refused("ADD", network("net0", bridge=name))
    assert answer.code == 7 and "bridge" in answer.words and name in answer.words
    assert host.sysctls() == before


@pytest.mark.parametrize("name", ["all", "default"])
def test_an_interface_of_such_a_name(host: Host, name: str) -> None:
    host.container("c1")
    assert host.refused("ADD", network("net0"), ifname=name).code == 4
