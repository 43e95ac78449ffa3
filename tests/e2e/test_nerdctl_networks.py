"""nerdctl's own networks with the drop-in names: its generated default, `network create`, rm and prune, unchanged.

The CNI bin folder holds our executable only, under the names of the reference plugins.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import programs
import pytest
import readme
from machine import Machine, browse, wait_for
from nerdctl import HERE, HERE6, NEIGHBOUR, Nerdctl, composed
from support.traffic import Server, ask


@pytest.fixture(scope="module")
def nerdctl(containerd: Machine) -> Nerdctl:
    programs.require("nerdctl")
    containerd.shell(readme.commands("nerdctl network create")[0])
    containerd.write("/etc/nerdctl/nerdctl.toml", readme.settings("nerdctl network create"))
    return Nerdctl(containerd)


@pytest.fixture(autouse=True)
def unchanged(nerdctl: Nerdctl) -> Iterator[None]:
    before = nerdctl.machine.state()
    yield
    nerdctl.clear()
    nerdctl("network prune -f")
    nerdctl.machine.check_unchanged(before)


def test_there_is_no_iptables_and_no_reference_plugin(nerdctl: Nerdctl) -> None:
    assert nerdctl.machine.foreign() == []
    links = nerdctl.machine.run("find", "/opt/nftcni/bin", "-type", "l", "-printf", "%f %l\n")
    names = ("bandwidth", "bridge", "firewall", "host-local", "loopback", "portmap", "ptp", "static", "tuning")
    assert sorted(links.splitlines()) == [f"{name} nftcni" for name in names]


def test_the_generated_default_network(nerdctl: Nerdctl) -> None:
    nerdctl.run("web", "-p 8080:80")
    nerdctl.run("db")
    assert nerdctl.machine.link("nerdctl0"), "the name that nerdctl wrote into its network"
    assert nerdctl.ask("127.0.0.1", 8080).startswith("web ")
    assert nerdctl.ask_from_outside(HERE, 8080) == f"web {NEIGHBOUR}"
    assert nerdctl(f"exec db wget -qO- http://{nerdctl.address('web')}/cgi-bin/who") == f"web {nerdctl.address('db')}"
    assert nerdctl("exec db wget -qO- http://web/cgi-bin/who").startswith("web ")


def test_ports_of_both_families_on_a_network_of_one(nerdctl: Nerdctl) -> None:
    """The reference portmap passes over what the container has no address for, and so does its name here."""
    nerdctl.run("web", "-p 8080:80 -p '[::]:8080:80'")
    assert nerdctl.ask_from_outside(HERE, 8080) == f"web {NEIGHBOUR}"
    assert nerdctl.ask_from_outside(HERE6, 8080) == "refused"


def test_the_way_out(nerdctl: Nerdctl) -> None:
    """The LAN sees the host's address; an internal network has no gateway, whatever the container's routes."""
    nerdctl("network create --internal --subnet 10.9.0.0/24 inner")
    nerdctl.run("web")
    nerdctl.run("shut", "--net inner")
    nerdctl.machine.lan.run("ip", "route", "add", "10.9.0.0/24", "via", HERE)
    shut = nerdctl.inside("shut")
    with Server(nerdctl.machine.lan, 80):
        assert ask(nerdctl.inside("web"), NEIGHBOUR, 80) == f"lan {HERE}"
        assert ask(shut, NEIGHBOUR, 80) == "refused", "no route"
        shut.run("ip", "route", "add", "default", "via", "10.9.0.1")
        said = ask(shut, NEIGHBOUR, 80)
    nerdctl.machine.lan.run("ip", "route", "del", "10.9.0.0/24")
    assert said in ("refused", "silence")


def nerdctl_bridge(nerdctl: Nerdctl, network: str) -> str:
    """The bridge that nerdctl wrote into a network's file."""
    native = json.loads(nerdctl(f"network inspect --mode=native {network}"))[0]
    return str(native["CNI"]["plugins"][0]["bridge"])


def test_prune_takes_what_no_container_uses(nerdctl: Nerdctl) -> None:
    for number, name in enumerate(("used", "unused", "past")):
        nerdctl(f"network create --subnet 10.{11 + number}.0.0/24 {name}")
    nerdctl.run("web", "--net used -p 8080:80")
    nerdctl.run("gone", "--net past")
    nerdctl("rm -f gone")
    said = nerdctl("network prune -f").split()
    assert {"unused", "past"} <= set(said) and not {"used", "bridge"} & set(said)
    assert sorted(nerdctl("network ls --format '{{.Name}}'").split()) == ["bridge", "host", "none", "used"]
    assert nerdctl.ask_from_outside(HERE, 8080) == f"web {NEIGHBOUR}"
    nerdctl.run("again", "--net used")
    nerdctl("rm -f web again")
    nerdctl("network prune -f")
    assert "used" not in nerdctl("network ls --format '{{.Name}}'").split()


def test_the_commands_of_the_readme(nerdctl: Nerdctl) -> None:
    for line in readme.commands("nerdctl network create")[1:]:
        nerdctl.machine.shell(line)
    wait_for(lambda: nerdctl.ask_from_outside(HERE, 8080).endswith(f" {NEIGHBOUR}"), "the published port")


def test_compose_makes_a_network_for_the_project(nerdctl: Nerdctl) -> None:
    """And takes it away, with its bridge."""
    with composed(nerdctl) as (web, db):
        assert "project_default" in nerdctl("network ls --format '{{.Name}}'").split()
        bridge = nerdctl_bridge(nerdctl, "project_default")
        assert nerdctl.machine.link(bridge)
        nerdctl.run("stranger")
        assert nerdctl.ask(nerdctl.address(db), 80).startswith("db ")
        said = browse(nerdctl.inside("stranger"), nerdctl.address(db), 80)
        assert said in ("refused", "silence"), "another project's network is apart"
        nerdctl("rm -f stranger")
    assert not nerdctl.machine.link(bridge)


def test_a_mac_address_of_the_users_choice(nerdctl: Nerdctl) -> None:
    nerdctl.run("web", "--mac-address 02:42:0a:04:00:99")
    assert nerdctl.inside("web").link("eth0")["address"] == "02:42:0a:04:00:99"


def test_a_network_with_a_subnet_a_gateway_and_a_range(nerdctl: Nerdctl) -> None:
    nerdctl("network create --subnet 10.9.0.0/16 --gateway 10.9.0.5 --ip-range 10.9.3.0/24 mine")
    nerdctl.run("web", "--net mine -p 8080:80")
    assert nerdctl.address("web").startswith("10.9.3.")
    assert nerdctl.inside("web").json("ip", "-j", "route", "show", "default")[0]["gateway"] == "10.9.0.5"
    assert nerdctl.ask_from_outside(HERE, 8080) == f"web {NEIGHBOUR}"
    nerdctl.run("chosen", "--net mine --ip 10.9.3.77")
    assert nerdctl.address("chosen") == "10.9.3.77"
    nerdctl.fails("run -d --pull=never --net mine --ip 192.0.2.2 who", "192.0.2.2", "outside the network's ranges")
    nerdctl.fails("network rm mine", "in use")
    nerdctl("rm -f web chosen")
    nerdctl("network rm mine")
    assert "mine" not in nerdctl("network ls").split()


def test_a_network_with_ipv6(nerdctl: Nerdctl) -> None:
    nerdctl("network create --ipv6 --subnet 10.9.0.0/24 --subnet 2001:db8:5::/64 six")
    nerdctl.run("web", "--net six --ip6 2001:db8:5::6")
    assert "2001:db8:5::6/64" in nerdctl.inside("web").addresses("eth0")
    # From outside it cannot answer: nerdctl writes no IPv6 default route into its networks.
    assert nerdctl.ask("2001:db8:5::6", 80).startswith("web ")
    nerdctl.run("db", "--net six")
    assert nerdctl("exec db wget -qO- http://[2001:db8:5::6]/cgi-bin/who").startswith("web 2001:db8:5::")
    nerdctl.fails(
        "run -d --pull=never --net six --ip6 2001:db8:6::6 who", "2001:db8:6::6", "outside the network's ranges"
    )


def test_an_internal_network_has_no_way_out(nerdctl: Nerdctl) -> None:
    nerdctl("network create --internal --subnet 10.9.0.0/24 inner")
    nerdctl.run("web", "--net inner")
    nerdctl.run("db", "--net inner")
    assert nerdctl.inside("web").json("ip", "-j", "route", "show", "default") == []
    assert nerdctl(f"exec db wget -qO- http://{nerdctl.address('web')}/cgi-bin/who").startswith("web ")


def test_without_masquerade_the_lan_sees_the_container(nerdctl: Nerdctl) -> None:
    nerdctl("network create --subnet 10.9.0.0/24 --opt com.docker.network.bridge.enable_ip_masquerade=false open")
    nerdctl.run("web", "--net open")
    nerdctl.machine.lan.run("ip", "route", "add", "10.9.0.0/24", "via", HERE)
    with Server(nerdctl.machine.lan, 80):
        said = ask(nerdctl.inside("web"), NEIGHBOUR, 80)
    nerdctl.machine.lan.run("ip", "route", "del", "10.9.0.0/24")
    assert said == f"lan {nerdctl.address('web')}"


def test_mtu(nerdctl: Nerdctl) -> None:
    nerdctl("network create --subnet 10.9.0.0/24 --opt com.docker.network.driver.mtu=9216 jumbo")
    nerdctl.run("web", "--net jumbo")
    assert nerdctl.inside("web").link("eth0")["mtu"] == 9216


@pytest.mark.parametrize(("flag", "heard"), [("", True), ("--opt com.docker.network.bridge.enable_icc=false", False)])
def test_containers_that_may_not_talk(nerdctl: Nerdctl, flag: str, heard: bool) -> None:
    nerdctl(f"network create --subnet 10.9.0.0/24 {flag} icc")
    for name in ("one", "two"):
        nerdctl.run(name, "--net icc")
    words = ("exec", "one", "ping", "-c", "1", "-W", "1", nerdctl.address("two"))
    assert (nerdctl.machine.call("nerdctl", *words).returncode == 0) is heard


def test_networks_are_apart_but_for_published_ports(nerdctl: Nerdctl) -> None:
    nerdctl("network create --subnet 10.9.0.0/24 far")
    nerdctl.run("web", "--net far -p 8080:80")
    nerdctl.run("db")
    assert browse(nerdctl.inside("db"), nerdctl.address("web"), 80) in ("refused", "silence")
    assert nerdctl(f"exec db wget -qO- http://{HERE}:8080/cgi-bin/who").startswith("web ")


def test_two_networks_publish_one_port(nerdctl: Nerdctl) -> None:
    nerdctl("network create --subnet 10.9.0.0/24 second")
    nerdctl.run("web", "--net bridge --net second -p 8080:80")
    assert nerdctl.ask_from_outside(HERE, 8080) == f"web {NEIGHBOUR}"


def test_stop_start_restart_kill(nerdctl: Nerdctl) -> None:
    """The chain is taken down by every way to stop, and put up again with the same port."""
    machine = nerdctl.machine
    empty = machine.snapshot()
    nerdctl.run("web", "-p 8080:80")
    for end, begin in (("stop", "start"), ("kill", "start"), ("", "restart")):
        assert nerdctl.ask_from_outside(HERE, 8080) == f"web {NEIGHBOUR}"
        if end:
            nerdctl(f"{end} web")
            wait_for(lambda: machine.snapshot() == empty, f"nothing left after {end}")
        nerdctl(f"{begin} web")
        nerdctl.ready("web")
    assert nerdctl.ask_from_outside(HERE, 8080) == f"web {NEIGHBOUR}"
    nerdctl("rm -f web")
    assert machine.snapshot() == empty


def test_networks_whose_subnets_nerdctl_chooses(nerdctl: Nerdctl) -> None:
    """They are found by name, by ID and by a part of it."""
    subnets = set()
    for name in ("one", "two"):
        nerdctl(f"network create {name}")
        found = json.loads(nerdctl(f"network inspect {name}"))[0]
        subnets.add(found["IPAM"]["Config"][0]["Subnet"])
    ways = (name, found["Id"], found["Id"][:12])
    for number, way in enumerate(ways):
        nerdctl.run(f"c{number}", f"--net {way}")
    assert len(subnets) == 2
    addresses = [nerdctl.address(f"c{number}") for number in range(len(ways))]
    assert len({address.rsplit(".", 1)[0] for address in addresses}) == 1 and len(set(addresses)) == 3


def test_a_port_that_a_container_of_another_network_has(nerdctl: Nerdctl) -> None:
    nerdctl("network create --subnet 10.9.0.0/24 mine")
    nerdctl.run("web", "--net mine -p '[::]:8080:80' -p 7000:70/sctp -p 8081:80")
    nerdctl.fails("run -d --pull=never -p 8081:80 who", "bind for :8081 failed: port is already allocated")
    nerdctl.fails("run -d --pull=never -p 7000:70/sctp who", "bind for :7000 failed: port is already allocated")
    assert nerdctl.ask_from_outside(HERE, 8081) == f"web {NEIGHBOUR}"


def test_inspect_shows_the_containers(nerdctl: Nerdctl) -> None:
    nerdctl("network create --subnet 10.9.0.0/24 seen")
    nerdctl.run("web", "--net seen")
    found = json.loads(nerdctl("network inspect seen"))[0]
    assert [entry["Name"] for entry in found["Containers"].values()] == ["web"]
