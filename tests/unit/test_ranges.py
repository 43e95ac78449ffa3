"""Range sets in host-local's shape: what a range holds, its defaults, and which ones are refused.

The oracle is the `ipaddress` module with the rules of the reference host-local plugin (allocator/range.go): the gateway
is the first address by default and never leased, IPv4 keeps its broadcast address back, /30 and /126 are the smallest.
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from asking import refusal, request
from hypothesis import given
from hypothesis import strategies as st

from cni.model.ipam import parse_ipam
from cni.model.ranges import Range
from cni.protocol.errors import INVALID_CONFIG, CniError
from nft.addresses import parse_address


def sets(ipam: dict[str, Any], **keys: Any) -> list[list[str]]:
    found = parse_ipam(request({"ipam": ipam, **keys})).range_sets
    return [[str(item) for item in ranges] for ranges in found]


def only(entry: dict[str, Any]) -> Range:
    ((found,),) = parse_ipam(request({"ipam": {"ranges": [[entry]]}})).range_sets
    return found


@st.composite
def subnets(draw: Any) -> Any:
    version = draw(st.sampled_from([4, 6]))
    length = draw(st.integers(12, 30) if version == 4 else st.integers(16, 126))
    base = ipaddress.ip_network("10.0.0.0/8" if version == 4 else "fd00::/8")
    address = base.network_address + draw(st.integers(0, base.num_addresses - 1))
    return ipaddress.ip_network((address, length), strict=False)


@given(subnets())
def test_defaults_of_a_range(net: Any) -> None:
    found = only({"subnet": str(net)})
    assert str(found.gateway) == str(net[1])
    assert (found.first, found.last) == (int(net[1]), int(net[-2] if net.version == 4 else net[-1]))


@given(subnets(), st.data())
def test_a_range_holds_what_lies_between_its_ends(net: Any, data: Any) -> None:
    highest = net.num_addresses - 1 - (net.version == 4)
    numbers = st.integers(1, highest)
    start, end = sorted((data.draw(numbers), data.draw(numbers)))
    gateway, other = data.draw(numbers), data.draw(st.integers(0, net.num_addresses - 1))
    texts = {"rangeStart": str(net[start]), "rangeEnd": str(net[end]), "gateway": str(net[gateway])}
    found = only({"subnet": str(net), **texts})
    assert str(found.gateway) == str(net[gateway])
    assert found.holds(parse_address(str(net[other]))) == (start <= other <= end)
    assert str(found) == f"{net[start]}-{net[end]} of {net}"


@given(subnets(), st.sampled_from(["rangeStart", "rangeEnd", "gateway"]), st.data())
def test_ends_outside_the_subnet_are_refused(net: Any, key: str, data: Any) -> None:
    outside = [net.network_address - 1, net.broadcast_address + 1]
    if key == "gateway":
        outside += [net.network_address, *([net.broadcast_address] if net.version == 4 else [])]
    text = str(data.draw(st.sampled_from(outside)))
    error = refusal({"ipam": {"ranges": [[{"subnet": str(net), key: text}]]}})
    assert error.code == INVALID_CONFIG and error.msg.startswith(f"ipam.ranges[0][0].{key}") and text in error.msg


@given(subnets(), st.data())
def test_a_range_of_the_whole_subnet_leases_neither_its_first_nor_its_broadcast_address(net: Any, data: Any) -> None:
    """The reference host-local accepts both as ends of a range (containernetworking/plugins, allocator/range.go)."""
    ends = {"rangeStart": str(net.network_address), "rangeEnd": str(net.broadcast_address)}
    keys = data.draw(st.sampled_from([["rangeStart"], ["rangeEnd"], ["rangeStart", "rangeEnd"]]))
    found, usual = only({"subnet": str(net), **{key: ends[key] for key in keys}}), only({"subnet": str(net)})
    assert (found.first, found.last) == (usual.first, usual.last)


@given(subnets())
def test_a_range_of_reserved_addresses_alone_is_empty(net: Any) -> None:
    bad = [{"rangeEnd": str(net.network_address)}]
    if net.version == 4:
        bad.append({"rangeStart": str(net.broadcast_address)})
    for keys in bad:
        error = refusal({"ipam": {"ranges": [[{"subnet": str(net), **keys}]]}})
        assert error.code == INVALID_CONFIG and "lies behind rangeEnd" in error.msg


@given(st.lists(subnets(), min_size=2, max_size=4))
def test_overlaps_are_what_ipaddress_says(nets: list[Any]) -> None:
    pairs = [(one, other) for index, one in enumerate(nets) for other in nets[:index]]
    clash = any(one.version == other.version and one.overlaps(other) for one, other in pairs)
    ranges = [[{"subnet": str(net)}] for net in nets]
    try:
        parse_ipam(request({"ipam": {"ranges": ranges}}))
    except CniError as error:
        assert clash and error.code == INVALID_CONFIG and "overlap" in error.msg
    else:
        assert not clash


def test_two_parts_of_one_subnet_do_not_overlap() -> None:
    """nerdctl's auxiliary addresses are several ranges of one subnet, with a key of its own in each."""
    first = {"subnet": "10.4.0.0/24", "rangeStart": "10.4.0.2", "rangeEnd": "10.4.0.9", "ipRange": "10.4.0.0/28"}
    second = {"subnet": "10.4.0.0/24", "rangeStart": "10.4.0.11", "rangeEnd": "10.4.0.254"}
    wanted = ["10.4.0.2-10.4.0.9 of 10.4.0.0/24", "10.4.0.11-10.4.0.254 of 10.4.0.0/24"]
    assert sets({"ranges": [[first, second]]}) == [wanted]


@pytest.mark.parametrize("nested", [True, False])
def test_one_shared_address_is_an_overlap(nested: bool) -> None:
    first = {"subnet": "10.4.0.0/24", "rangeEnd": "10.4.0.10"}
    second = {"subnet": "10.4.0.0/24", "rangeStart": "10.4.0.10"}
    error = refusal({"ipam": {"ranges": [[first, second]] if nested else [[first], [second]]}})
    assert error.code == INVALID_CONFIG and "overlap" in error.msg and "10.4.0.10" in error.msg


def test_the_order_of_the_sets() -> None:
    """The runtime's ranges before the old single range before `ranges`, as host-local prepends them."""
    runtime = {"ipRanges": [[{"Subnet": "10.1.0.0/24"}], [{"SUBNET": "fd01::/64"}]]}
    ipam = {"subnet": "10.2.0.0/24", "gateway": "10.2.0.9", "ranges": [[{"subnet": "10.3.0.0/24"}]]}
    found = parse_ipam(request({"ipam": ipam, "runtimeConfig": runtime})).range_sets
    assert [str(ranges[0].subnet) for ranges in found] == ["10.1.0.0/24", "fd01::/64", "10.2.0.0/24", "10.3.0.0/24"]
    assert str(found[2][0].gateway) == "10.2.0.9"


def test_empty_texts_of_go_are_absent() -> None:
    """Go's encoder writes "" for a range without these; so does `null` from Kubernetes."""
    empty = {"subnet": "10.4.0.0/24", "rangeStart": "", "rangeEnd": None, "gateway": ""}
    assert only(empty) == only({"subnet": "10.4.0.0/24"})


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_old_versions_know_one_address_per_family(version: str) -> None:
    two = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}
    error = refusal({"ipam": two}, version=version)
    assert error.code == INVALID_CONFIG and version in error.msg
    dual = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}
    assert len(parse_ipam(request({"ipam": dual}, version=version)).range_sets) == 2


WRONG: list[tuple[Any, str, str]] = [
    ("10.4.0.0/24", "ipam.ranges", "10.4.0.0/24"),
    ({}, "ipam.ranges", "{}"),
    ([{"subnet": "10.4.0.0/24"}], "ipam.ranges[0]", "list"),
    ([[{"subnet": "10.4.0.0/24"}], []], "ipam.ranges[1]", "empty"),
    ([["10.4.0.0/24"]], "ipam.ranges[0][0]", "10.4.0.0/24"),
    ([[None]], "ipam.ranges[0][0]", "null"),
    ([[{"subnet": 10}]], "ipam.ranges[0][0].subnet", "10"),
    *(
        ([[{"subnet": "10.1.0.0/24"}, {"subnet": text}]], "ipam.ranges[0][1].subnet", json.dumps(text))
        for text in ("10.4.0.1/24", "10.4.0.0/31", "10.4.0.0/32", "10.4.0.0", "10.4.0.0/33", "10.4.0.0/-1", "10.4/16")
    ),
    *(
        ([[{"subnet": text}]], "ipam.ranges[0][0].subnet", json.dumps(text))
        for text in ("fd00::1/64", "fd00::/127", "fd00::/129", "::ffff:10.4.0.0/120", "ff02::/64", "224.0.0.0/24")
    ),
    *(
        ([[{"subnet": text}]], "ipam.ranges[0][0].subnet", json.dumps(text))
        for text in ("127.0.0.0/16", "nonsense", "10.4.0.0/24 ", "10.4.0.0/24\n", "10.4.0.0/255.255.255.0")
    ),
    ([[{"subnet": "10.4.0.0/24", "gateway": "fd00::1"}]], "ipam.ranges[0][0].gateway", "fd00::1"),
    ([[{"subnet": "10.4.0.0/24", "gateway": "10.4.0.1/24"}]], "ipam.ranges[0][0].gateway", "10.4.0.1/24"),
    ([[{"subnet": "10.4.0.0/24", "rangeEnd": False}]], "ipam.ranges[0][0].rangeEnd", "false"),
    ([[{"subnet": "10.4.0.0/24", "rangeStart": "10.4.0.9", "rangeEnd": "10.4.0.8"}]], "ipam.ranges[0][0]", "10.4.0.9"),
    ([[{"subnet": "10.4.0.0/24"}, {"subnet": "fd00::/64"}]], "ipam.ranges", "fd00::/64"),
]


@pytest.mark.parametrize(("ranges", "key", "value"), WRONG, ids=lambda item: str(item)[:60])
@pytest.mark.parametrize("where", ["ipam", "runtimeConfig"])
def test_wrong_ranges(ranges: Any, key: str, value: str, where: str) -> None:
    document: dict[str, Any] = {"ipam": {"ranges": ranges}}
    if where == "runtimeConfig":
        document = {"ipam": {"type": "host-local"}, "runtimeConfig": {"ipRanges": ranges}}
        key = key.replace("ipam.ranges", "runtimeConfig.ipRanges")
    error = refusal(document)
    assert error.code == INVALID_CONFIG and error.msg.startswith(key) and value in error.msg, error.msg
