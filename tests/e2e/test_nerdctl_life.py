"""The life of containers under nerdctl with the packaged network: addresses, several networks, stop, start, restart.

Every test ends with all containers gone and the host as it was. Published ports in their forms are in
test_nerdctl_ports, the drop-in names in test_nerdctl_networks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import programs
import pytest
import readme
from machine import Machine, browse, start_containerd, wait_for
from nerdctl import HERE, HERE6, NEIGHBOUR, NEIGHBOUR6, Nerdctl, composed
from support.traffic import Server, ask

SECOND = {
    "cniVersion": "1.0.0",
    "name": "second",
    "plugins": [
        {
            "type": "nftcni",
            "bridge": "nftcni1",
            "capabilities": {"portMappings": True, "ips": True},
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.5.0.0/24"}]]},
        }
    ],
}


@pytest.fixture(scope="module")
def nerdctl(containerd: Machine) -> Nerdctl:
    programs.require("nerdctl")
    containerd.shell(readme.commands("nerdctl")[0])
    containerd.write("/etc/cni/net.d/second.conflist", json.dumps(SECOND))
    return Nerdctl(containerd)


@pytest.fixture(autouse=True)
def unchanged(nerdctl: Nerdctl) -> Iterator[None]:
    before = nerdctl.machine.state()
    yield
    nerdctl.clear()
    nerdctl.machine.check_unchanged(before)


def test_the_commands_of_the_readme(nerdctl: Nerdctl) -> None:
    for line in readme.commands("nerdctl")[1:]:
        nerdctl.machine.shell(line)
    wait_for(lambda: nerdctl.ask_from_outside(HERE, 8080).endswith(f" {NEIGHBOUR}"), "the published port")


def test_the_network_is_listed_and_inspected(nerdctl: Nerdctl) -> None:
    assert "bridge" in nerdctl("network ls").split()
    found = json.loads(nerdctl("network inspect bridge"))[0]
    assert [entry["Subnet"] for entry in found["IPAM"]["Config"]] == ["10.4.0.0/24", "fd6e:6674:636e:4::/64"]
    nerdctl.run("web")
    found = json.loads(nerdctl("network inspect bridge"))[0]
    assert [entry["Name"] for entry in found["Containers"].values()] == ["web"]


def test_nerdctl_takes_no_network_away_that_it_has_not_made(nerdctl: Nerdctl) -> None:
    before = nerdctl.machine.run("ls", "/etc/cni/net.d")
    nerdctl("network prune -f")
    nerdctl.fails("network rm bridge", "bridge")
    nerdctl.fails("network rm second", "managed outside nerdctl")
    assert nerdctl.machine.run("ls", "/etc/cni/net.d") == before
    assert {"bridge", "second"} <= set(nerdctl("network ls --format '{{.Name}}'").split())


def test_inspect_and_port_tell_what_the_kernel_has(nerdctl: Nerdctl) -> None:
    nerdctl.run("web", "-p 127.0.0.1:8080:80 -p 8443:443")
    settings = nerdctl.inspect("web")["NetworkSettings"]
    assert settings["IPAddress"] == nerdctl.address("web")
    assert settings["MacAddress"] == nerdctl.inside("web").link("eth0")["address"]
    assert settings["Ports"]["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "8080"}]
    assert sorted(nerdctl("port web").splitlines()) == ["443/tcp -> 0.0.0.0:8443", "80/tcp -> 127.0.0.1:8080"]


def test_an_address_of_the_users_choice(nerdctl: Nerdctl) -> None:
    nerdctl.run("web", "--ip 10.4.0.77")
    assert nerdctl.address("web") == "10.4.0.77"
    nerdctl.fails("run -d --pull=never --name second --ip 10.4.0.77 who", "10.4.0.77", "is taken by bridge/")
    nerdctl.fails("run -d --pull=never --name third --ip 192.0.2.9 who", "192.0.2.9", "outside the network's ranges")


def test_an_ipv6_address_of_the_users_choice(nerdctl: Nerdctl) -> None:
    nerdctl.run("web", "--ip6 fd6e:6674:636e:4::77")
    assert "fd6e:6674:636e:4::77/64" in nerdctl.inside("web").addresses("eth0")
    nerdctl.fails(
        "run -d --pull=never --name second --ip6 fd6e:6674:636e:5::77 who",
        "fd6e:6674:636e:5::77",
        "outside the network's ranges",
    )


def test_a_mac_address_needs_the_drop_in_names(nerdctl: Nerdctl) -> None:
    """nerdctl itself allows it for the types bridge and macvlan only, and says so before any plugin runs."""
    nerdctl.fails("run -d --pull=never --mac-address 02:42:0a:04:00:99 who", "is not supported for network mapping")


def test_siblings_reach_each_other_by_address_and_by_published_port(nerdctl: Nerdctl) -> None:
    nerdctl.run("web", "-p 8080:80")
    nerdctl.run("db")
    assert nerdctl(f"exec db wget -qO- http://{nerdctl.address('web')}/cgi-bin/who") == f"web {nerdctl.address('db')}"
    assert nerdctl(f"exec db wget -qO- http://{HERE}:8080/cgi-bin/who").startswith("web ")
    assert nerdctl("exec db wget -qO- http://web/cgi-bin/who").startswith("web "), "nerdctl writes /etc/hosts"
    assert browse(nerdctl.machine.lan, HERE, 8080) == f"web {NEIGHBOUR}"


def test_two_networks(nerdctl: Nerdctl) -> None:
    nerdctl.run("both", "--net bridge --net second -p 8080:80")
    nerdctl.run("other", "--net second")
    assert nerdctl.address("both", "eth0").startswith("10.4.0.")
    assert nerdctl.address("both", "eth1").startswith("10.5.0.")
    assert nerdctl.ask_from_outside(HERE, 8080) == f"both {NEIGHBOUR}"
    inner = nerdctl.address("both", "eth1")
    assert nerdctl(f"exec other wget -qO- http://{inner}/cgi-bin/who") == f"both {nerdctl.address('other')}"


def test_two_networks_of_which_one_has_no_ipv6(nerdctl: Nerdctl) -> None:
    """Every network is told all ports; the first one has to be able to serve them."""
    nerdctl.run("web", "--net bridge --net second -p '[::]:8080:80'")
    assert nerdctl.ask_from_outside(HERE6, 8080) == f"web {NEIGHBOUR6}"
    nerdctl.fails("run -d --pull=never --net second --net bridge -p '[::]:8081:80' who", "8081", "IPv6")
    assert nerdctl.ask_from_outside(HERE6, 8080) == f"web {NEIGHBOUR6}"
    assert nerdctl.ask_from_outside(HERE6, 8081) == "refused"


def test_the_way_out(nerdctl: Nerdctl) -> None:
    """The LAN sees the host's addresses."""
    nerdctl.run("web")
    nerdctl.run("other", "--net second")
    with Server(nerdctl.machine.lan, 80):
        for name, address, seen in (
            ("web", NEIGHBOUR, HERE),
            ("web", NEIGHBOUR6, HERE6),
            ("other", NEIGHBOUR, HERE),
        ):
            assert ask(nerdctl.inside(name), address, 80) == f"lan {seen}"


def test_stop_start_restart_kill(nerdctl: Nerdctl) -> None:
    machine = nerdctl.machine
    empty = machine.snapshot()
    nerdctl.run("web", "-p 127.0.0.1:8080:80")
    for end, begin in (("stop", "start"), ("kill", "start"), ("", "restart")):
        assert nerdctl.ask("127.0.0.1", 8080).startswith("web ")
        if end:
            nerdctl(f"{end} web")
            wait_for(lambda: machine.snapshot() == empty, f"nothing left after {end}")
            # Silence, for nerdctl's own socket on the port stays until the stopped task is deleted.
            assert nerdctl.ask("127.0.0.1", 8080) in ("refused", "silence")
        nerdctl(f"{begin} web")
        nerdctl.ready("web")
    assert nerdctl.ask("127.0.0.1", 8080).startswith("web ")
    nerdctl("rm -f web")
    assert machine.snapshot() == empty


def test_a_container_that_ends_by_itself(nerdctl: Nerdctl) -> None:
    assert nerdctl("run --rm --pull=never -p 8080:80 who echo done") == "done"
    assert nerdctl.ask("127.0.0.1", 8080) == "refused"


def test_a_failed_start_leaves_nothing(nerdctl: Nerdctl) -> None:
    empty = nerdctl.machine.snapshot()
    nerdctl.fails(
        "run -d --pull=never --name web -p 8080:80 who /no/such/program",
        "/no/such/program",
        "no such file or directory",
    )
    assert nerdctl.machine.snapshot() == empty


def test_restart_always_over_a_restart_of_containerd(nerdctl: Nerdctl) -> None:
    machine = nerdctl.machine
    nerdctl.run("web", "--restart always -p 8080:80")
    machine.stop("containerd")
    assert nerdctl.ask_from_outside(HERE, 8080) == f"web {NEIGHBOUR}", "a container needs no daemon"
    number = str(next(path for path in machine.file("/proc").glob("[0-9]*") if _is(path, "httpd")).name)
    machine.run("kill", "-9", number)
    start_containerd(machine)
    wait_for(lambda: nerdctl.ask_from_outside(HERE, 8080) == f"web {NEIGHBOUR}", "the restarted container")


def _is(process: object, name: str) -> bool:
    with open(f"{process}/comm") as file:
        return file.read().strip() == name


def test_compose_in_the_network_that_is_there(nerdctl: Nerdctl) -> None:
    with composed(nerdctl, readme.settings("nerdctl compose", "yaml")) as (_, db):
        assert nerdctl.address(db).startswith("10.4.0.")
