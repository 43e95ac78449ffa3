"""What an attachment is made of, as `ip` and /proc show it: bridge, pair, addresses, routes, MAC addresses, sysctls."""

from __future__ import annotations

import threading

import pytest
from support.scratch import Host, Namespace, network, port
from support.traffic import Server, ask

DUAL = ("10.88.0.0/24", "fd00:88::/64")
MAC = "02:42:ac:11:00:0{}"


def attach(host: Host, name: str = "c1", *subnets: str, **keys: object) -> Namespace:
    host.add(network("net0", *(subnets or DUAL), **keys), name)
    return next(item for item in host.namespaces if item.name == name)


def host_end(host: Host) -> dict[str, object]:
    """The one port of the bridge."""
    (found,) = [item for item in host.json("ip", "-j", "-d", "link") if item.get("master") == "br-net0"]
    assert isinstance(found, dict)
    return found


def test_bridge_and_pair(host: Host) -> None:
    container = attach(host)
    bridge, port_link, inside = host.link("br-net0"), host_end(host), container.link("eth0")
    assert bridge["linkinfo"]["info_kind"] == "bridge" and "UP" in bridge["flags"]
    assert host.addresses("br-net0") == {"10.88.0.1/24", "fd00:88::1/64"}
    assert str(port_link["ifname"]).startswith("veth") and "UP" in port_link["flags"]
    assert inside["link_index"] == port_link["ifindex"] and inside["ifindex"] == port_link["link_index"]
    assert container.addresses("eth0") == {"10.88.0.2/24", "fd00:88::2/64"}
    assert {"UP", "LOWER_UP"} <= set(inside["flags"])


def test_the_result_tells_what_the_kernel_has(host: Host) -> None:
    result = host.add(network("net0", *DUAL))
    container = host.namespaces[-1]
    names = [item["name"] for item in result["interfaces"]]
    assert names == ["br-net0", host_end(host)["ifname"], "eth0"]
    macs = [host.link("br-net0")["address"], host_end(host)["address"], container.link("eth0")["address"]]
    assert [item["mac"] for item in result["interfaces"]] == macs
    assert [item.get("sandbox") for item in result["interfaces"]] == [None, None, "/run/netns/c1"]
    assert {item["address"] for item in result["ips"]} == container.addresses("eth0")
    assert {item["interface"] for item in result["ips"]} == {2}


def test_macs_are_the_same_after_a_restart_and_differ_between_containers(host: Host) -> None:
    config = network("net0", *DUAL)
    first = host.add(config)["interfaces"]
    other = host.add(config, "c2")["interfaces"]
    host.delete(config)
    again = host.add(config)["interfaces"]
    assert [item["mac"] for item in first] == [item["mac"] for item in again]
    assert len({item["mac"] for item in first + other}) == 5  # they share the bridge


def test_the_bridge_keeps_its_mac_when_ports_come(host: Host) -> None:
    attach(host)
    before = host.link("br-net0")["address"]
    host.run("ip", "link", "add", "low", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "low2")
    host.run("ip", "link", "set", "low", "master", "br-net0")
    assert host.link("br-net0")["address"] == before


@pytest.mark.parametrize("adopted_address", [None, "10.88.0.1/24", "192.0.2.1/24"])
def test_an_adopted_bridge_is_left_as_it_was(host: Host, adopted_address: str | None) -> None:
    host.run("ip", "link", "add", "br-net0", "type", "bridge")
    if adopted_address:
        host.run("ip", "addr", "add", adopted_address, "dev", "br-net0")
    host.run("ip", "link", "set", "br-net0", "up")
    before = host.snapshot()
    config = network("net0", "10.88.0.0/24")
    host.add(config)
    assert "10.88.0.1/24" in host.addresses("br-net0")
    host.delete(config)
    assert host.snapshot() == before


def test_an_adopted_bridge_keeps_our_address_until_the_last_container_goes(host: Host) -> None:
    host.run("ip", "link", "add", "br-net0", "up", "type", "bridge")
    config = network("net0", *DUAL)
    for name in ("c1", "c2"):
        host.add(config, name)
    host.delete(config, "c1")
    assert host.addresses("br-net0") == {"10.88.0.1/24", "fd00:88::1/64"}
    host.delete(config, "c2")
    assert host.addresses("br-net0") == set() and host.link("br-net0") is not None


def test_an_adopted_bridge_lends_its_mac_and_keeps_it(host: Host) -> None:
    host.run("ip", "link", "add", "br-net0", "address", MAC.format(9), "up", "type", "bridge")
    result = host.add(network("net0"))
    assert result["interfaces"][0]["mac"] == host.link("br-net0")["address"] == MAC.format(9)


def test_a_bridge_that_somebody_else_joined_stays(host: Host) -> None:
    config = network("net0")
    host.add(config)
    host.run("ip", "link", "add", "foreign", "type", "veth", "peer", "name", "foreign2")
    host.run("ip", "link", "set", "foreign", "master", "br-net0")
    host.delete(config)
    assert host.link("br-net0") is not None


def test_mtu_everywhere(host: Host) -> None:
    container = attach(host, mtu=9000)
    assert {host.link("br-net0")["mtu"], host_end(host)["mtu"], container.link("eth0")["mtu"]} == {9000}


@pytest.mark.parametrize(
    ("runtime", "arguments", "args", "wanted"),
    [(1, 2, 3, 1), (None, 2, 3, 2), (None, None, 3, 3), (1, None, None, 1)],
)
def test_mac_precedence(host: Host, runtime: int | None, arguments: int | None, args: int | None, wanted: int) -> None:
    """runtimeConfig.mac > args.cni.mac > CNI_ARGS MAC (bridge.go of the reference plugins)."""
    config = network("net0", runtimeConfig={"mac": MAC.format(runtime)} if runtime else None)
    if arguments:
        config["args"] = {"cni": {"mac": MAC.format(arguments)}}
    host.add(config, args=f"IgnoreUnknown=1;MAC={MAC.format(args)}" if args else "")
    assert host.namespaces[-1].link("eth0")["address"] == MAC.format(wanted)


@pytest.mark.parametrize(("key", "flag"), [("hairpinMode", "hairpin"), ("portIsolation", "isolated")])
@pytest.mark.parametrize("value", [True, False])
def test_port_flags(host: Host, key: str, flag: str, value: bool) -> None:
    attach(host, **{key: value})
    data = host_end(host)["linkinfo"]["info_slave_data"]  # type: ignore[index]
    assert data[flag] is value


def test_hairpin_is_on_by_default_since_br_netfilter_needs_it(host: Host) -> None:
    attach(host)
    assert host_end(host)["linkinfo"]["info_slave_data"]["hairpin"] is True  # type: ignore[index]


def routes(container: Namespace) -> set[tuple[str, str]]:
    lines = container.json("ip", "-j", "route") + container.json("ip", "-j", "-6", "route")
    return {(item["dst"], item.get("gateway", "")) for item in lines if not item["dst"].startswith("fe80")}


ON_LINK = {("10.88.0.0/24", ""), ("fd00:88::/64", "")}
DEFAULTS = {("default", "10.88.0.1"), ("default", "fd00:88::1")}


@pytest.mark.parametrize(
    ("keys", "ipam_routes", "wanted"),
    [
        ({}, None, DEFAULTS),
        ({"isGateway": False}, None, set()),
        ({"isDefaultGateway": False}, None, set()),
        ({}, [], set()),
        ({}, [{"dst": "192.0.2.0/24"}], {("192.0.2.0/24", "10.88.0.1")}),
        ({}, [{"dst": "192.0.2.0/24", "gw": "10.88.0.9"}], {("192.0.2.0/24", "10.88.0.9")}),
        ({}, [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}], DEFAULTS),
        ({"isDefaultGateway": True}, [{"dst": "192.0.2.0/24"}], DEFAULTS | {("192.0.2.0/24", "10.88.0.1")}),
    ],
)
def test_routes(host: Host, keys: dict[str, object], ipam_routes: object, wanted: set[tuple[str, str]]) -> None:
    config = network("net0", *DUAL, **keys)
    if ipam_routes is not None:
        config["ipam"]["routes"] = ipam_routes
    host.add(config)
    assert routes(host.namespaces[-1]) == wanted | ON_LINK


def test_route_options_reach_the_kernel(host: Host) -> None:
    config = network("net0")
    route = {"dst": "192.0.2.0/24", "mtu": 1400, "advmss": 1360, "priority": 77, "table": 500}
    config["ipam"]["routes"] = [route]
    host.add(config)
    (found,) = host.namespaces[-1].json("ip", "-j", "route", "show", "table", "500")
    assert (found["dst"], found["metric"]) == ("192.0.2.0/24", 77)
    assert found["metrics"] == [{"mtu": 1400, "advmss": 1360}]


def test_without_gateway_the_bridge_has_no_address_and_the_host_does_not_forward(host: Host) -> None:
    attach(host, isGateway=False)
    assert host.addresses("br-net0") == set()
    assert (host.sysctl("ipv4/ip_forward"), host.sysctl("ipv6/conf/all/forwarding")) == ("0", "0")


def test_sysctls_of_host_and_container(host: Host) -> None:
    container = attach(host, ports=[port(8080, 80)])
    assert host.sysctl("ipv4/ip_forward") == host.sysctl("ipv6/conf/all/forwarding") == "1"
    assert host.sysctl("ipv4/conf/br-net0/route_localnet") == "1"
    assert host.sysctl("ipv4/conf/all/route_localnet") == "0"
    assert host.sysctl("ipv6/conf/br-net0/accept_ra") == "0"
    assert host.sysctl(f"ipv6/conf/{host_end(host)['ifname']}/disable_ipv6") == "1"
    assert container.sysctl("ipv6/conf/eth0/accept_dad") == "0"
    assert container.sysctl("ipv4/conf/eth0/arp_notify") == "1"
    assert container.sysctl("ipv6/conf/eth0/disable_ipv6") == "0"


def test_enabledad_lets_the_kernel_look_for_duplicates(host: Host) -> None:
    container = attach(host, enabledad=True)
    assert container.sysctl("ipv6/conf/eth0/accept_dad") == "1"
    assert container.sysctl("ipv6/conf/eth0/enhanced_dad") == "1"


def test_ipv4_alone_leaves_ipv6_forwarding_alone(host: Host) -> None:
    attach(host, "c1", "10.88.0.0/24")
    assert host.sysctl("ipv6/conf/all/forwarding") == "0"


def test_layer_two_only(host: Host) -> None:
    """Without ipam there are no addresses, and with disableContainerInterface the link stays down."""
    config = network("net0", disableContainerInterface=True, ipam=None)
    result = host.add(config)
    container = host.namespaces[-1]
    assert result.get("ips", []) == [] and "UP" not in container.link("eth0")["flags"]
    assert host.addresses("br-net0") == set()
    host.delete(config)


def test_both_interfaces_of_a_container_carry_traffic(host: Host) -> None:
    """Each reaches its own network's sibling by its own address, and is reached by its own published port."""
    lan = host.neighbour()
    for number in (0, 1):
        subnets = (f"10.{88 + number}.0.0/24", f"fd00:{88 + number}::/64")
        config = network(f"net{number}", *subnets, ports=[port(8000 + number, 80)], isDefaultGateway=number == 0)
        host.add(config, ifname=f"eth{number}")
        host.add(network(f"net{number}", *subnets), f"sibling{number}")
    with Server(host.place("c1"), 80), Server(host.place("sibling1"), 80):
        assert ask(host.place("c1"), "10.89.0.3", 80) == "sibling1 10.89.0.2"
        assert ask(host.place("sibling0"), "10.88.0.2", 80) == "c1 10.88.0.3"
        assert ask(host.place("sibling1"), "fd00:89::2", 80) == "c1 fd00:89::3"
        assert ask(lan, "198.51.100.1", 8000) == "c1 198.51.100.2"
        assert ask(host, "127.0.0.1", 8001) == "c1 10.89.0.1"


def test_two_interfaces_added_at_the_same_time(host: Host) -> None:
    """go-cni attaches all networks of a container in parallel."""
    container = host.container("c1")
    configs = [
        network(f"net{n}", f"10.{88 + n}.0.0/24", f"fd00:{88 + n}::/64", ports=[port(8000 + n, 80)]) for n in (0, 1)
    ]
    results: dict[int, object] = {}

    def attach_one(number: int) -> None:
        results[number] = host.cni("ADD", configs[number], ifname=f"eth{number}").status

    threads = [threading.Thread(target=attach_one, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {0: 0, 1: 0}
    assert container.addresses("eth0") == {"10.88.0.2/24", "fd00:88::2/64"}
    assert container.addresses("eth1") == {"10.89.0.2/24", "fd00:89::2/64"}
    host.delete(configs[0], ifname="eth0")
    assert container.link("eth0") is None and container.link("eth1") is not None
    assert [item[0]["elem"]["val"]["concat"][1] for item in host.elements()["dnat4"]] == [8001]


def test_two_interfaces_on_the_same_network(host: Host) -> None:
    config = network("net0", isDefaultGateway=False)
    host.add(config)
    host.add(config, ifname="eth1")
    container = host.namespaces[-1]
    assert container.addresses("eth0") | container.addresses("eth1") == {"10.88.0.2/24", "10.88.0.3/24"}
    host.delete(config)
    assert container.link("eth1") is not None


def test_the_veth_goes_with_its_namespace_and_del_clears_the_rest(host: Host) -> None:
    config = network("net0", *DUAL, ports=[port(8080, 80)])
    before = host.snapshot()
    host.add(config)
    host.end("c1")
    host.delete(config, netns="")
    assert host.snapshot() == before


@pytest.mark.parametrize("gone", [0, 1])
def test_a_default_route_is_left_when_one_of_two_networks_goes(host: Host, gone: int) -> None:
    """The second ADD's default route used to be taken for one that is there already."""
    configs = [network(f"net{n}", f"10.{88 + n}.0.0/24", f"fd00:{88 + n}::/64", isDefaultGateway=True) for n in (0, 1)]
    results = [host.add(config, ifname=f"eth{n}") for n, config in enumerate(configs)]
    for number, config in enumerate(configs):
        check = host.cni("CHECK", {**config, "prevResult": results[number]}, ifname=f"eth{number}")
        assert check.status == 0, check.stdout
    host.delete(configs[gone], ifname=f"eth{gone}")
    left = 89 - gone
    assert {("default", f"10.{left}.0.1"), ("default", f"fd00:{left}::1")} <= routes(host.place("c1"))


def test_forced_gateways_of_two_range_sets_do_not_drive_each_other_away(host: Host) -> None:
    """forceAddress is about other people's addresses (bridge.go of the reference plugin)."""
    host.run("ip", "link", "add", "br-net0", "type", "bridge")
    for address in ("192.0.2.1/24", "fd00:88::5/64"):
        host.run("ip", "addr", "add", address, "dev", "br-net0")
    config = network("net0", "10.88.0.0/24", "10.89.0.0/24", "fd00:88::/64", "fd00:89::/64", forceAddress=True)
    gateways = {"10.88.0.1/24", "10.89.0.1/24", "fd00:88::1/64", "fd00:89::1/64"}
    for name in ("c1", "c2"):
        result = host.add(config, name)
        assert host.addresses("br-net0") == gateways
        assert host.cni("CHECK", {**config, "prevResult": result}, name).status == 0
    for address in ("10.88.0.1", "10.89.0.1", "fd00:88::1", "fd00:89::1"):
        assert ask(host.place("c1"), address, 9) == "refused", "the host answers there"
