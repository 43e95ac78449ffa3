"""Built-in addresses: range sets, pools, requests, next-fit, exhaustion, and what host-local returns beside them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.scratch import PLUGIN, Host, network
from support.traffic import ask


def ipam(*sets: list[dict[str, str]], **keys: Any) -> dict[str, Any]:
    return {"type": "host-local", "ranges": list(sets), **keys}


def small(subnet: str, start: str = "", end: str = "", gateway: str = "") -> dict[str, str]:
    keys = {"subnet": subnet, "rangeStart": start, "rangeEnd": end, "gateway": gateway}
    return {key: value for key, value in keys.items() if value}


def addresses(result: Any) -> list[str]:
    return [item["address"] for item in result["ips"]]


def test_one_address_of_each_set(host: Host) -> None:
    config = network(ipam=ipam([small("10.88.0.0/24")], [small("fd00:88::/64")], [small("10.89.0.0/24")]))
    result = host.add(config)
    assert addresses(result) == ["10.88.0.2/24", "fd00:88::2/64", "10.89.0.2/24"]
    assert host.namespaces[0].addresses("eth0") == set(addresses(result))
    assert [item["gateway"] for item in result["ips"]] == ["10.88.0.1", "fd00:88::1", "10.89.0.1"]


def test_start_end_and_gateway(host: Host) -> None:
    config = network(ipam=ipam([small("10.88.0.0/24", "10.88.0.100", "10.88.0.101", "10.88.0.254")]))
    assert [addresses(host.add(config, name)) for name in ("c1", "c2")] == [["10.88.0.100/24"], ["10.88.0.101/24"]]
    assert host.addresses("br-net0") == {"10.88.0.254/24"}


def test_a_range_of_the_whole_subnet(host: Host) -> None:
    """A working configuration of host-local, which must not break when we take its place."""
    config = network(ipam=ipam([small("10.88.0.0/29", "10.88.0.0", "10.88.0.7")]))
    found = [addresses(host.add(config, f"c{number}"))[0] for number in range(1, 6)]
    assert found == [f"10.88.0.{number}/29" for number in range(2, 7)]
    host.container("c6")
    answer = host.cni("ADD", config, "c6")
    assert answer.status and "10.88.0.1-10.88.0.6 of 10.88.0.0/29" in answer.words


def test_the_ranges_of_a_set_are_used_one_after_the_other(host: Host) -> None:
    pools = [small("10.88.0.0/24", "10.88.0.9", "10.88.0.9"), small("10.89.0.0/24", "10.89.0.9", "10.89.0.9")]
    config = network(ipam=ipam(pools))
    results = [host.add(config, name) for name in ("c1", "c2")]
    assert [addresses(item) for item in results] == [["10.88.0.9/24"], ["10.89.0.9/24"]]
    assert results[1]["ips"][0]["gateway"] == "10.89.0.1"
    assert host.addresses("br-net0") == {"10.88.0.1/24", "10.89.0.1/24"}


def test_an_address_just_freed_is_not_handed_out_at_once(host: Host) -> None:
    config = network(ipam=ipam([small("10.88.0.0/29")]))  # .2 to .6
    seen = []
    for _ in range(6):
        seen += addresses(host.add(config))
        host.delete(config)
    assert [text[len("10.88.0.") : -len("/29")] for text in seen] == ["2", "3", "4", "5", "6", "2"]


def test_exhaustion_says_which_range_and_how_many(host: Host) -> None:
    config = network(ipam=ipam([small("10.88.0.0/24", "10.88.0.1", "10.88.0.3")]))  # .1 is the gateway
    for name in ("c1", "c2"):
        host.add(config, name)
    host.container("c3")
    answer = host.refused("ADD", config, "c3")
    assert answer.code == 101 and "10.88.0.1-10.88.0.3 of 10.88.0.0/24" in answer.words and " 2 " in answer.words
    host.delete(config)
    assert addresses(host.add(config, "c3")) == ["10.88.0.2/24"]


def test_a_failed_second_set_leaves_nothing_of_the_first(host: Host) -> None:
    tiny = small("fd00:88::/126", "fd00:88::2", "fd00:88::2")
    config = network(ipam=ipam([small("10.88.0.0/24")], [tiny]))
    host.add(config)
    host.container("c2")
    assert host.refused("ADD", config, "c2").code == 101


@pytest.mark.parametrize("way", ["runtimeConfig", "args", "CNI_ARGS"])
@pytest.mark.parametrize("written", ["{}", "{}/24"])
def test_requested_addresses(host: Host, way: str, written: str) -> None:
    wanted = written.format("10.88.0.77")
    keys: dict[str, Any] = {"runtimeConfig": {"ips": [wanted]}, "args": {"cni": {"ips": [wanted]}}}
    options = {"args": f"IgnoreUnknown=1;IP={wanted}"} if way == "CNI_ARGS" else {}
    result = host.add(network(**({way: keys[way]} if way in keys else {})), **options)
    assert addresses(result) == ["10.88.0.77/24"]


def test_requested_addresses_of_both_families_and_sources(host: Host) -> None:
    """nerdctl sends --ip by CNI_ARGS and --ip6 by the capability ips."""
    config = network("net0", "10.88.0.0/24", "fd00:88::/64", runtimeConfig={"ips": ["fd00:88::99"]})
    assert addresses(host.add(config, args="IP=10.88.0.99;IgnoreUnknown=1")) == ["10.88.0.99/24", "fd00:88::99/64"]


def test_a_requested_address_does_not_move_the_search(host: Host) -> None:
    config = network()
    host.add(config, "c1")
    host.add(network(runtimeConfig={"ips": ["10.88.0.3"]}), "c2")
    assert addresses(host.add(config, "c3")) == ["10.88.0.4/24"]


def test_ip_ranges_of_the_runtime_come_first(host: Host) -> None:
    """Kubernetes hands out the node's PodCIDR this way, in Go's case."""
    config = network(ipam={"type": "host-local"})
    config["runtimeConfig"] = {"ipRanges": [[{"Subnet": "10.99.0.0/24", "RangeStart": "10.99.0.50"}]]}
    assert addresses(host.add(config)) == ["10.99.0.50/24"]


def test_the_old_single_range(host: Host) -> None:
    config = network(ipam={"type": "host-local", "subnet": "10.88.0.0/24", "rangeStart": "10.88.0.20"})
    assert addresses(host.add(config)) == ["10.88.0.20/24"]


def test_two_networks_of_one_subnet_share_its_addresses(host: Host) -> None:
    """The reference keeps leases by network and hands the same address out twice; here an address is the host's."""
    first = addresses(host.add(network("net0", bridge="br0", isolation=False)))
    second = addresses(host.add(network("net1", bridge="br0", isolation=False), "c2"))
    assert first != second


def test_names_come_from_the_configuration(host: Host) -> None:
    dns = {"nameservers": ["192.0.2.53"], "domain": "example.org", "search": ["example.org"], "options": ["ndots:2"]}
    assert host.add(network(dns=dns))["dns"] == dns


def test_names_come_from_a_resolv_conf(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# comment\nnameserver 192.0.2.53\nnameserver fd00::53\nsearch a.example b.example\noptions ndots:5\n"
    )
    config = network(ipam=ipam([small("10.88.0.0/24")], resolvConf=str(path)))
    found = host.add(config)["dns"]
    assert found["nameservers"] == ["192.0.2.53", "fd00::53"]
    assert found["search"] == ["a.example", "b.example"] and found["options"] == ["ndots:5"]


def test_names_of_the_runtime_win(host: Host) -> None:
    """The capability dns says servers and searches (CONVENTIONS.md), go-cni in Go's case."""
    config = network(dns={"nameservers": ["192.0.2.53"]})
    config["runtimeConfig"] = {"dns": {"Servers": ["192.0.2.1"], "Searches": ["x.example"], "Options": ["ndots:1"]}}
    assert host.add(config)["dns"] == {
        "nameservers": ["192.0.2.1"],
        "search": ["x.example"],
        "options": ["ndots:1"],
    }


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (["10.88.0.9", "10.88.0.10"], 7),  # one address of a set, so the second has no set
        (["10.88.0.9", "10.99.0.9"], 7),
        (["10.88.0.9", "fd00:88::1"], 102),  # a gateway
        (["fd00:88::9", "10.88.0.9"], 0),  # in any order
        (["10.88.0.9", "10.88.0.9/24"], 0),  # the same twice
    ],
)
def test_several_requested_addresses(host: Host, wanted: list[str], code: int) -> None:
    host.container("c1")
    config = network("net0", "10.88.0.0/24", "fd00:88::/64", runtimeConfig={"ips": wanted})
    if code:
        assert host.refused("ADD", config).code == code
        return
    assert addresses(host.add(config))[0] == "10.88.0.9/24"


def test_ranges_of_the_runtime_come_before_those_of_the_configuration(host: Host) -> None:
    config = network("net0", "10.88.0.0/24", runtimeConfig={"ipRanges": [[small("10.99.0.0/24")]]})
    assert addresses(host.add(config)) == ["10.99.0.2/24", "10.88.0.2/24"]


def test_the_old_single_range_comes_before_the_list(host: Host) -> None:
    config = network(ipam=ipam([small("fd00:88::/64")], subnet="10.88.0.0/24", gateway="10.88.0.9"))
    result = host.add(config)
    assert addresses(result) == ["10.88.0.1/24", "fd00:88::2/64"]
    assert result["ips"][0]["gateway"] == "10.88.0.9"


def test_the_search_goes_on_where_it_was_and_round(host: Host) -> None:
    """Next-fit over the pools of a set: after the last address of the last pool comes the first that is free."""
    pools = [small("10.88.0.0/24", "10.88.0.5", "10.88.0.6"), small("10.89.0.0/24", "10.89.0.5", "10.89.0.6")]
    config = network(ipam=ipam(pools))
    names = ["c1", "c2", "c3", "c4"]
    found = [addresses(host.add(config, name))[0].split("/")[0] for name in names]
    assert found == ["10.88.0.5", "10.88.0.6", "10.89.0.5", "10.89.0.6"]
    host.delete(config, "c3")
    host.delete(config, "c2")
    assert addresses(host.add(config, "c5")) == ["10.88.0.6/24"]
    host.delete(config, "c1")  # 10.88.0.5 is the first that is free now, and the one just freed
    assert addresses(host.add(config, "c6")) == ["10.89.0.5/24"]


@pytest.mark.parametrize(
    ("pool", "first", "last", "size"),
    [
        (small("10.88.0.0/30"), "10.88.0.2", "10.88.0.2", 1),
        (small("10.88.0.0/29", gateway="10.88.0.4"), "10.88.0.1", "10.88.0.6", 5),
        (small("fd00:88::/126"), "fd00:88::2", "fd00:88::3", 2),  # IPv6 has no broadcast address
    ],
)
def test_network_broadcast_and_gateway_are_never_handed_out(
    host: Host, pool: dict[str, str], first: str, last: str, size: int
) -> None:
    config = network(ipam=ipam([pool]))
    found = [addresses(host.add(config, f"c{number}"))[0].split("/")[0] for number in range(size)]
    assert (found[0], found[-1]) == (first, last)
    host.container("late")
    answer = host.refused("ADD", config, "late")
    assert answer.code == 101 and pool["subnet"] in answer.words and f" {size} " in answer.words


def test_a_resolv_conf_that_is_not_there(host: Host) -> None:
    host.container("c1")
    answer = host.refused("ADD", network(ipam=ipam([small("10.88.0.0/24")], resolvConf="/nonexistent/resolv.conf")))
    assert answer.code == 7 and "resolvConf" in answer.words and "/nonexistent/resolv.conf" in answer.words


def test_leases_are_readable_with_ls(host: Host) -> None:
    host.add(network())
    (link,) = [path for path in host.state_files() if path.endswith("leases/10.88.0.2")]
    assert os.readlink(host.file(f"/run/nftcni/{link}")) == "net0/c1/eth0"


# Several ranges in one subnet

SHARED = ([small("10.88.0.0/24", "10.88.0.10", "10.88.0.20")], [small("10.88.0.0/24", "10.88.0.100", "10.88.0.120")])


def test_two_sets_of_one_subnet_answer_the_same_again(host: Host) -> None:
    """The second ADD used to look for the first set's lease in both and to end with one address twice."""
    config = network(ipam=ipam(*SHARED))
    first = host.add(config)
    before = host.snapshot()
    assert addresses(first) == ["10.88.0.10/24", "10.88.0.100/24"]
    assert host.add(config) == first
    assert host.snapshot() == before
    assert host.place("c1").addresses("eth0") == set(addresses(first))
    assert addresses(host.add(config, "c2")) == ["10.88.0.11/24", "10.88.0.101/24"]
    host.delete(config)
    assert addresses(host.add(config)) == ["10.88.0.12/24", "10.88.0.102/24"]


def test_an_address_of_the_second_set_of_a_subnet_is_granted(host: Host) -> None:
    config = network(ipam=ipam(*SHARED), runtimeConfig={"ips": ["10.88.0.105"]})
    result = host.add(config)
    assert addresses(result) == ["10.88.0.10/24", "10.88.0.105/24"]
    assert host.place("c1").addresses("eth0") == set(addresses(result))
    host.container("c2")
    answer = host.refused("ADD", config, "c2")
    assert answer.code == 102 and "10.88.0.105" in answer.words and "c1" in answer.words


def test_no_gateway_of_any_range_of_a_set_is_leased(host: Host) -> None:
    """Two ranges of one subnet with a gateway each, which lies in the other range: the bridge has both addresses."""
    pools = [
        small("10.88.0.0/24", "10.88.0.10", "10.88.0.11", "10.88.0.21"),
        small("10.88.0.0/24", "10.88.0.20", "10.88.0.21", "10.88.0.11"),
    ]
    config = network(ipam=ipam(pools))
    results = [host.add(config, name) for name in ("c1", "c2")]
    assert [addresses(result) for result in results] == [["10.88.0.10/24"], ["10.88.0.20/24"]]
    assert host.addresses("br-net0") == {"10.88.0.11/24", "10.88.0.21/24"}
    host.container("c3")
    assert host.refused("ADD", config, "c3").code == 101
    for gateway in ("10.88.0.11", "10.88.0.21"):
        asked = {**config, "runtimeConfig": {"ips": [gateway]}}
        assert host.refused("ADD", asked, "c3").code == 102
    for container in ("c1", "c2"):
        for gateway in ("10.88.0.11", "10.88.0.21"):
            assert ask(host.place(container), gateway, 9) == "refused", "the host answers there"


# The drop-in `host-local`: addresses for what other plugins attach


def vlan(name: str, *containers: str, **keys: Any) -> dict[str, Any]:
    """A macvlan network as its main plugin hands it to host-local; `containers` are those that GC may keep."""
    valid = [{"containerID": container, "ifname": "eth0"} for container in containers]
    return {
        **{"cniVersion": "1.1.0", "name": name, "type": "macvlan", "cni.dev/valid-attachments": valid},
        **{"ipam": ipam([small("10.77.0.0/24")]), **keys},
    }


@pytest.fixture
def leaser(tmp_path: Path) -> dict[str, Any]:
    """How host-local is called: the container's namespace is none of its business."""
    link = tmp_path / "host-local"
    link.symlink_to(PLUGIN)
    return {"plugin": str(link), "netns": "/nonexistent"}


def leases(host: Host) -> set[tuple[str, str]]:
    """(address, who has it) in the state folder."""
    (folder,) = host.file("/run/nftcni").glob("*.*/leases")
    return {(path.name.split("@")[0], os.readlink(path)) for path in folder.iterdir()}


def test_two_vlans_of_one_subnet_may_have_the_same_address(host: Host, leaser: dict[str, Any]) -> None:
    """What keeps addresses apart on a bridge of ours does not on the VLANs of somebody else's."""
    for name in ("v1", "v2"):
        assert addresses(host.add(vlan(name), f"c-{name}", **leaser)) == ["10.77.0.2/24"]
    assert leases(host) == {("10.77.0.2", "v1/c-v1/eth0"), ("10.77.0.2", "v2/c-v2/eth0")}
    asked = {"runtimeConfig": {"ips": ["10.77.0.50"]}}
    for name in ("v1", "v2"):
        assert addresses(host.add(vlan(name, **asked), f"d-{name}", **leaser)) == ["10.77.0.50/24"]


def test_one_vlan_has_an_address_once(host: Host, leaser: dict[str, Any]) -> None:
    asked = {"runtimeConfig": {"ips": ["10.77.0.2"]}}
    assert addresses(host.add(vlan("v1"), "a", **leaser)) == ["10.77.0.2/24"]
    assert addresses(host.add(vlan("v1"), "b", **leaser)) == ["10.77.0.3/24"]
    answer = host.refused("ADD", vlan("v1", **asked), "c", **leaser)
    assert answer.code == 102 and "v1/a/eth0" in answer.words
    assert addresses(host.add(vlan("v1"), "a", **leaser)) == ["10.77.0.2/24"]


def test_a_full_vlan_says_nothing_of_the_other(host: Host, leaser: dict[str, Any]) -> None:
    tiny = {"ipam": ipam([small("10.77.0.0/24", "10.77.0.2", "10.77.0.2")])}
    host.add(vlan("v1", **tiny), "a", **leaser)
    assert host.refused("ADD", vlan("v1", **tiny), "b", **leaser).code == 101
    assert host.cni("STATUS", vlan("v1", **tiny), **leaser).code == 50
    assert host.cni("STATUS", vlan("v2", **tiny), **leaser).status == 0
    assert addresses(host.add(vlan("v2", **tiny), "b", **leaser)) == ["10.77.0.2/24"]


@pytest.mark.parametrize("way", ["DEL", "GC", "DEL with the record lost", "GC with the record lost"])
def test_what_ends_on_one_vlan_stays_on_the_other(host: Host, leaser: dict[str, Any], way: str) -> None:
    """The same container on both, with the same address."""
    for name in ("v1", "v2"):
        assert addresses(host.add(vlan(name), "c", **leaser)) == ["10.77.0.2/24"]
    if "lost" in way:
        host.run("sh", "-c", "rm /run/nftcni/*/attachments/v1/c@eth0")
    if way.startswith("GC"):
        assert host.cni("GC", vlan("v1"), **leaser).status == 0
    else:
        host.delete(vlan("v1"), "c", **leaser)
    assert leases(host) == {("10.77.0.2", "v2/c/eth0")}
    previous = {"cniVersion": "1.1.0", "ips": [{"address": "10.77.0.2/24"}]}
    assert host.cni("CHECK", {**vlan("v2"), "prevResult": previous}, "c", **leaser).status == 0
    assert host.cni("GC", vlan("v2", "c"), **leaser).status == 0
    assert leases(host) == {("10.77.0.2", "v2/c/eth0")}
    host.delete(vlan("v2"), "c", **leaser)
    assert leases(host) == set()


def test_a_vlan_and_a_network_of_ours_may_share_a_subnet(host: Host, leaser: dict[str, Any]) -> None:
    """Neither counts the other's."""
    assert addresses(host.add(vlan("v1"), "a", **leaser)) == ["10.77.0.2/24"]
    ours = network("net0", "10.77.0.0/24")
    assert addresses(host.add(ours, "c1")) == ["10.77.0.2/24"]
    host.delete(ours, "c1")
    assert leases(host) == {("10.77.0.2", "v1/a/eth0")}


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "vlan"])
def test_a_long_run_of_leases_counts_for_its_own_network(host: Host, leaser: dict[str, Any], ours: bool) -> None:
    """After so many in a row all leases are listed, those of other VLANs among them."""
    host.add(vlan("v2", runtimeConfig={"ips": ["10.77.0.100"]}), "other", **leaser)
    scope, name = ("", "net0") if ours else ("@v1", "v1")
    taken = f"for n in $(seq 2 99); do ln -s {name}/x$n/eth0 10.77.0.$n{scope}; done"
    host.run("sh", "-c", f"cd /run/nftcni/*/leases && {taken}")
    config, options = (network("net0", "10.77.0.0/24"), {}) if ours else (vlan("v1"), leaser)
    assert addresses(host.add(config, "c1", **options)) == ["10.77.0.100/24"]
