"""Which way a container on several networks takes: the first network's, as long as there is that one.

IPv4 keeps routes to one place in the order they came in. IPv6 makes one multipath route of two with the same metric and
sends half of the flows each way (fib6_add_rt2node); the oracle is who the far machine has seen, and `ip -6 -j route`.
"""

from __future__ import annotations

from support.scratch import Host, Json, Namespace, network
from support.traffic import Server, ask

BOTH = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]


def joined(number: int, *ipam_routes: dict[str, object], **keys: object) -> Json:
    config = network(f"net{number}", f"10.{88 + number}.0.0/24", f"fd00:{88 + number}::/64", **keys)
    config["ipam"]["routes"] = list(ipam_routes or BOTH)
    return config


def default_routes(container: Namespace) -> list[tuple[str, str, int]]:
    """(link, gateway, metric) of the IPv6 ones, in the kernel's order."""
    lines = container.json("ip", "-j", "-6", "route", "show", "default")
    assert not [item for item in lines if "nexthops" in item]
    return [(item["dev"], item["gateway"], item["metric"]) for item in lines]


TWO_ROUTES = [("eth0", "fd00:88::1", 1024), ("eth1", "fd00:89::1", 1025)]


def test_a_second_default_route_comes_behind_the_first(host: Host) -> None:
    """The kernel makes one multipath route of two with the same metric (fib6_add_rt2node)."""
    configs = [joined(n) for n in (0, 1)]
    results = [host.add(config, ifname=f"eth{n}") for n, config in enumerate(configs)]
    container = host.place("c1")
    assert default_routes(container) == TWO_ROUTES
    for n, config in enumerate(configs):
        assert host.add(config, ifname=f"eth{n}") == results[n]
    assert default_routes(container) == TWO_ROUTES
    for n, config in enumerate(configs):
        check = host.cni("CHECK", {**config, "prevResult": results[n]}, ifname=f"eth{n}")
        assert check.status == 0, check.stdout
    host.delete(configs[0], ifname="eth0")
    assert default_routes(container) == TWO_ROUTES[1:]
    check = host.cni("CHECK", {**configs[1], "prevResult": results[1]}, ifname="eth1")
    assert check.status == 0, check.stdout


def test_ipv6_leaves_by_the_first_network_only(host: Host) -> None:
    """A multipath route sends each destination by one of the two at random: the far machine has many addresses."""
    lan = host.neighbour()
    targets = [f"2001:db8:200::{n:x}" for n in range(1, 17)]
    host.run("ip", "-6", "route", "add", "2001:db8:200::/64", "via", "2001:db8:100::2")
    for target in targets:
        lan.run("ip", "addr", "add", f"{target}/128", "dev", "lo")
    for n in (0, 1):
        lan.run("ip", "-6", "route", "add", f"fd00:{88 + n}::/64", "via", "2001:db8:100::1")
        host.add(joined(n, ipMasq=False), ifname=f"eth{n}")
    container = host.place("c1")
    with Server(lan, 80):
        assert {ask(container, target, 80) for target in targets} == {"lan fd00:88::2"}
        host.delete(joined(0), ifname="eth0")
        assert {ask(container, target, 80) for target in targets} == {"lan fd00:89::2"}


def test_a_third_network_comes_behind_both(host: Host) -> None:
    for n in (0, 1, 2):
        host.add(joined(n), ifname=f"eth{n}")
    assert default_routes(host.place("c1")) == [*TWO_ROUTES, ("eth2", "fd00:90::1", 1026)]


def test_a_network_that_is_joined_again_comes_behind(host: Host) -> None:
    """As it does for IPv4: what goes out by the other one goes on doing so."""
    configs = [joined(n) for n in (0, 1)]
    for n, config in enumerate(configs):
        host.add(config, ifname=f"eth{n}")
    host.delete(configs[0], ifname="eth0")
    host.add(configs[0], ifname="eth0")
    container = host.place("c1")
    assert [item["dev"] for item in container.json("ip", "-j", "route", "show", "default")] == ["eth1", "eth0"]
    assert [link for link, _gateway, _metric in default_routes(container)] == ["eth1", "eth0"]


def test_routes_to_other_places_do_not_count(host: Host) -> None:
    for n, own in enumerate(("2001:db8:a::/48", "2001:db8:b::/48")):
        host.add(joined(n, {"dst": own}, {"dst": "2001:db8:c::/48"}), ifname=f"eth{n}")
    lines = host.place("c1").json("ip", "-j", "-6", "route")
    assert sorted((item["dst"][-7:], item["metric"]) for item in lines if item["dst"].startswith("2001:")) == [
        (":a::/48", 1024),
        (":b::/48", 1024),
        (":c::/48", 1024),
        (":c::/48", 1025),
    ]


def test_a_priority_is_as_asked(host: Host) -> None:
    """The second network's may come first."""
    configs = [joined(0, {"dst": "::/0", "priority": 500}), joined(1, {"dst": "::/0", "priority": 77})]
    results = [host.add(config, ifname=f"eth{n}") for n, config in enumerate(configs)]
    container = host.place("c1")
    assert default_routes(container) == [("eth1", "fd00:89::1", 77), ("eth0", "fd00:88::1", 500)]
    for n, config in enumerate(configs):
        assert host.add(config, ifname=f"eth{n}") == results[n]
        check = host.cni("CHECK", {**config, "prevResult": results[n]}, ifname=f"eth{n}")
        assert check.status == 0, check.stdout
    assert default_routes(container) == [("eth1", "fd00:89::1", 77), ("eth0", "fd00:88::1", 500)]


def test_a_route_to_one_address_by_each(host: Host) -> None:
    for n in (0, 1):
        host.add(joined(n, {"dst": "2001:db8:a::7/128"}), ifname=f"eth{n}")
    lines = host.place("c1").json("ip", "-j", "-6", "route")
    found = [(item["dev"], item["metric"]) for item in lines if item["dst"] == "2001:db8:a::7"]
    assert found == [("eth0", 1024), ("eth1", 1025)]


def test_an_add_that_is_repeated_adds_no_second_copy(host: Host) -> None:
    """The metric before its own is free again since the first network has gone."""
    configs = [joined(n) for n in (0, 1)]
    for n, config in enumerate(configs):
        host.add(config, ifname=f"eth{n}")
    host.delete(configs[0], ifname="eth0")
    host.add(configs[1], ifname="eth1", netns="/run/netns/c1")
    assert default_routes(host.place("c1")) == [("eth1", "fd00:89::1", 1025)]
