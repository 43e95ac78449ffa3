"""nerdctl's own networks with the drop-in names: its generated default, `network create`, rm and prune, unchanged.

The CNI bin folder holds our executable only, under the names of the reference plugins.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import programs
import pytest
import readme
from machine import Machine, wait_for
from nerdctl import HERE, NEIGHBOUR, Nerdctl


@pytest.fixture(scope="module")
def nerdctl(containerd: Machine) -> Nerdctl:
    programs.require("nerdctl")
    containerd.shell(readme.commands("nerdctl network create")[0])
    containerd.write("/etc/nerdctl/nerdctl.toml", readme.settings("nerdctl network create"))
    nerdctl = Nerdctl(containerd)
    nerdctl("network ls")  # makes the default network
    return nerdctl


@pytest.fixture(autouse=True)
def unchanged(nerdctl: Nerdctl) -> Iterator[None]:
    before = nerdctl.machine.state()
    yield
    nerdctl.clear()
    nerdctl("network prune -f")
    nerdctl.machine.check_unchanged(before)


def test_the_generated_default_network(nerdctl: Nerdctl) -> None:
    nerdctl.run("web", "-p 8080:80")
    nerdctl.run("db")
    assert nerdctl.machine.link("nerdctl0"), "the name that nerdctl wrote into its network"
    assert nerdctl.ask("127.0.0.1", 8080).startswith("web ")
    assert nerdctl.ask_from_outside(HERE, 8080) == f"web {NEIGHBOUR}"
    assert nerdctl(f"exec db wget -qO- http://{nerdctl.address('web')}/cgi-bin/who") == f"web {nerdctl.address('db')}"
    assert nerdctl("exec db wget -qO- http://web/cgi-bin/who").startswith("web ")


def test_the_commands_of_the_readme(nerdctl: Nerdctl) -> None:
    for line in readme.commands("nerdctl network create")[1:]:
        nerdctl.machine.shell(line)
    wait_for(lambda: nerdctl.ask_from_outside(HERE, 8080).endswith(f" {NEIGHBOUR}"), "the published port")


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
    nerdctl.fails("run -d --pull=never --net mine --ip 192.0.2.2 who")
    assert "in use" in nerdctl.fails("network rm mine")
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
    nerdctl.fails("run -d --pull=never --net six --ip6 2001:db8:6::6 who")


def test_an_internal_network_has_no_way_out(nerdctl: Nerdctl) -> None:
    nerdctl("network create --internal --subnet 10.9.0.0/24 inner")
    nerdctl.run("web", "--net inner")
    nerdctl.run("db", "--net inner")
    assert nerdctl.inside("web").json("ip", "-j", "route", "show", "default") == []
    assert nerdctl(f"exec db wget -qO- http://{nerdctl.address('web')}/cgi-bin/who").startswith("web ")


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
    words = ("exec", "db", "wget", "-T", "1", "-qO-", f"http://{nerdctl.address('web')}/cgi-bin/who")
    assert nerdctl.machine.call("nerdctl", *words).returncode != 0
    assert nerdctl(f"exec db wget -qO- http://{HERE}:8080/cgi-bin/who").startswith("web ")


def test_two_networks_publish_one_port(nerdctl: Nerdctl) -> None:
    nerdctl("network create --subnet 10.9.0.0/24 second")
    nerdctl.run("web", "--net bridge --net second -p 8080:80")
    assert nerdctl.ask_from_outside(HERE, 8080) == f"web {NEIGHBOUR}"


def test_inspect_shows_the_containers(nerdctl: Nerdctl) -> None:
    nerdctl("network create --subnet 10.9.0.0/24 seen")
    nerdctl.run("web", "--net seen")
    found = json.loads(nerdctl("network inspect seen"))[0]
    assert [entry["Name"] for entry in found["Containers"].values()] == ["web"]
