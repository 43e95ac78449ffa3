"""CHECK: silent when all is as ADD made it, and each kind of drift named; what later plugins changed is no drift."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from support.scratch import Host, Json, Namespace, network, port

CONFIG = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80), port(53, 53, "udp", "127.0.0.1")])


@pytest.fixture
def attached(host: Host) -> tuple[Host, Namespace, Json]:
    result = host.add(CONFIG)
    return host, host.namespaces[0], result


def check(host: Host, result: Json, **keys: Any) -> Any:
    return host.cni("CHECK", {**CONFIG, "prevResult": result, **keys})


def test_nothing_to_say(attached: tuple[Host, Namespace, Json]) -> None:
    host, _, result = attached
    before = host.snapshot()
    answer = check(host, result)
    assert (answer.status, answer.stdout, answer.stderr) == (0, "", "")
    assert host.snapshot() == before


def port_link(host: Host) -> str:
    return next(str(item["ifname"]) for item in host.links() if item["ifname"].startswith("veth"))


def delete_element(set_and_key: str) -> Callable[[Host, Namespace], None]:
    name, key = set_and_key.split(" ", 1)
    return lambda host, _container: host.nft(f"delete element inet nftcni {name} {{ {key} }}")


def rename(_host: Host, inside: Namespace) -> None:
    inside.run("ip", "link", "set", "eth0", "down")
    inside.run("ip", "link", "set", "eth0", "name", "lan0")


# what is done to the host or the container, and a word of what CHECK must say
DRIFTS: dict[str, tuple[Callable[[Host, Namespace], object], str]] = {
    "port-element-gone": (delete_element("dnat4 tcp . 8080"), "8080"),
    "ipv6-port-gone": (delete_element("dnat6 tcp . 8080"), "8080"),
    "bound-port-gone": (delete_element("dnat4_ip 127.0.0.1 . udp . 53"), "127.0.0.1"),
    "masquerade-gone": (delete_element("masq4 10.88.0.2"), "masq4"),
    "hairpin-gone": (delete_element('containers6 "br-net0" . fd00:88::2'), "containers6"),
    "bridge-element-gone": (delete_element('bridges "br-net0"'), "bridges"),
    "isolation-gone": (delete_element('isolated "br-net0"'), "isolated"),
    "port-element-altered": (
        lambda host, _: host.nft(
            "delete element inet nftcni dnat4 { tcp . 8080 }\n"
            'add element inet nftcni dnat4 { tcp . 8080 comment "net0/c1/eth0" : 10.88.0.2 . 81 }'
        ),
        "81",
    ),
    "somebody-elses-now": (
        lambda host, _: host.nft(
            "delete element inet nftcni dnat4 { tcp . 8080 }\n"
            'add element inet nftcni dnat4 { tcp . 8080 comment "net0/c9/eth0" : 10.88.0.2 . 80 }'
        ),
        "net0/c9/eth0",
    ),
    "table-gone": (lambda host, _: host.nft("delete table inet nftcni"), "table inet nftcni is missing"),
    "ruleset-flushed": (lambda host, _: host.nft("flush ruleset"), "table inet nftcni is missing"),
    "rules-flushed": (lambda host, _: host.nft("flush chain inet nftcni nat_postrouting"), "rules"),
    "rule-added": (lambda host, _: host.nft("add rule inet nftcni filter_forward drop"), "rules"),
    "bridge-down": (lambda host, _: host.run("ip", "link", "set", "br-net0", "down"), "br-net0"),
    "bridge-address-gone": (
        lambda host, _: host.run("ip", "addr", "del", "10.88.0.1/24", "dev", "br-net0"),
        "10.88.0.1",
    ),
    "host-end-down": (lambda host, _: host.run("ip", "link", "set", port_link(host), "down"), "down"),
    "host-end-out-of-the-bridge": (lambda host, _: host.run("ip", "link", "set", port_link(host), "nomaster"), "port"),
    "hairpin-off": (
        lambda host, _: host.run("bridge", "link", "set", "dev", port_link(host), "hairpin", "off"),
        "hairpin",
    ),
    "forwarding-off": (lambda host, _: host.set_sysctl("ipv4/ip_forward", "0"), "ip_forward"),
    "ipv6-forwarding-off": (lambda host, _: host.set_sysctl("ipv6/conf/all/forwarding", "0"), "forwarding"),
    "route-localnet-off": (lambda host, _: host.set_sysctl("ipv4/conf/br-net0/route_localnet", "0"), "route_localnet"),
    "interface-down": (lambda _, inside: inside.run("ip", "link", "set", "eth0", "down"), "down"),
    "interface-gone": (lambda _, inside: inside.run("ip", "link", "del", "eth0"), "missing"),
    "other-mac": (
        lambda _, inside: inside.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:09"),
        "02:00:00:00:00:09",
    ),
    "address-gone": (lambda _, inside: inside.run("ip", "addr", "del", "10.88.0.2/24", "dev", "eth0"), "10.88.0.2/24"),
    "ipv6-address-gone": (
        lambda _, inside: inside.run("ip", "addr", "del", "fd00:88::2/64", "dev", "eth0"),
        "fd00:88::2/64",
    ),
    "renamed": (rename, "missing"),
    "other-network-has-the-lease": (
        lambda host, _: host.run("sh", "-c", "cd /run/nftcni/*/leases && ln -sfn net9/c9/eth0 10.88.0.2"),
        "net9/c9/eth0",
    ),
    "lease-gone": (lambda host, _: host.run("sh", "-c", "rm /run/nftcni/*/leases/10.88.0.2"), "10.88.0.2"),
    "route-gone": (lambda _, inside: inside.run("ip", "route", "del", "default"), "0.0.0.0/0"),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_drift_is_named(attached: tuple[Host, Namespace, Json], name: str) -> None:
    host, container, result = attached
    drift, words = DRIFTS[name]
    drift(host, container)
    answer = check(host, result)
    assert answer.code == 104 and words in answer.words, answer.words
    assert "net0/c1/eth0" in answer.words


def test_several_drifts_are_all_in_the_details(attached: tuple[Host, Namespace, Json]) -> None:
    host, container, result = attached
    host.set_sysctl("ipv4/ip_forward", "0")
    container.run("ip", "addr", "del", "10.88.0.2/24", "dev", "eth0")
    details = check(host, result).document["details"]
    assert "ip_forward" in details and "10.88.0.2/24" in details and "0.0.0.0/0" in details


def test_what_later_plugins_added_is_no_drift(attached: tuple[Host, Namespace, Json]) -> None:
    host, container, result = attached
    container.run("ip", "addr", "add", "192.0.2.9/24", "dev", "eth0")
    container.run("ip", "route", "add", "192.0.2.128/25", "via", "10.88.0.1")
    more = {**result, "ips": [*result["ips"], {"address": "192.0.2.9/24", "interface": 2}]}
    assert check(host, more).status == 0


def test_a_later_plugin_may_have_set_mac_and_mtu(attached: tuple[Host, Namespace, Json]) -> None:
    """As the reference plugin tuning does, which says so in its result."""
    host, container, result = attached
    container.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:09", "mtu", "1300")
    container.run("ip", "route", "replace", "default", "via", "10.88.0.1", "dev", "eth0")
    *others, inside = result["interfaces"]
    answer = check(host, {**result, "interfaces": [*others, {**inside, "mac": "02:00:00:00:00:09", "mtu": 1300}]})
    assert answer.status == 0, answer.words


def test_a_previous_result_that_lacks_an_address(attached: tuple[Host, Namespace, Json]) -> None:
    host, _, result = attached
    answer = check(host, {**result, "ips": result["ips"][1:]})
    assert answer.code == 104 and "10.88.0.2/24" in answer.words


@pytest.mark.parametrize(
    ("key", "value"),
    [("mac", "02:00:00:00:00:09"), ("name", "eth7"), ("sandbox", "/run/netns/c9")],
)
def test_a_previous_result_with_another_interface(attached: tuple[Host, Namespace, Json], key: str, value: str) -> None:
    host, _, result = attached
    *others, inside = result["interfaces"]
    answer = check(host, {**result, "interfaces": [*others, {**inside, key: value}]})
    assert answer.code == 104 and "net0/c1/eth0" in answer.words


@pytest.mark.parametrize("address", ["10.88.0.3/24", "fd00:88::3/64", "192.0.2.9/24"])
def test_a_previous_result_with_an_address_that_is_not_there(
    attached: tuple[Host, Namespace, Json], address: str
) -> None:
    """Whoever has put it into the result: on this interface it is missing."""
    host, _, result = attached
    answer = check(host, {**result, "ips": [*result["ips"], {"address": address, "interface": 2}]})
    assert answer.code == 104 and address in answer.words


def test_without_a_previous_result(attached: tuple[Host, Namespace, Json]) -> None:
    host, _, _ = attached
    answer = host.refused("CHECK", CONFIG)
    assert answer.code == 7 and "prevResult" in answer.words


@pytest.mark.parametrize("previous", [None, "text", [], {"ips": [{"address": 5}]}])
def test_a_previous_result_that_is_none(attached: tuple[Host, Namespace, Json], previous: Any) -> None:
    host, _, _ = attached
    answer = check(host, previous)
    assert answer.code == 7 and "prevResult" in answer.words


def test_an_attachment_that_never_was(host: Host) -> None:
    host.container("c1")
    answer = host.refused("CHECK", {**CONFIG, "prevResult": {"ips": []}})
    assert answer.code == 104 and "net0/c1/eth0" in answer.words


def test_another_namespace_than_at_add(attached: tuple[Host, Namespace, Json]) -> None:
    host, _, result = attached
    host.container("c2")
    answer = host.cni("CHECK", {**CONFIG, "prevResult": result}, netns="/run/netns/c2")
    assert answer.code == 104 and "/run/netns/c2" in answer.words
