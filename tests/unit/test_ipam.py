"""Which address is chosen: next-fit against a naive model, requested addresses, exhaustion. No disk and no kernel.

The model is host-local's algorithm (allocator.go, Get) in its simplest form: list all addresses of the set in order,
start behind the last one, take the first that is free.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from asking import request
from hypothesis import example, given
from hypothesis import strategies as st

from cni.model.choice import NEAR, Leases, choose
from cni.model.ipam import Ipam, parse_ipam
from cni.protocol.errors import ADDRESS_TAKEN, INVALID_CONFIG, NO_FREE_ADDRESS, CniError
from nft.addresses import Address, parse_address


class Held(Leases):
    """Leases in memory; `asked` counts the questions."""

    def __init__(self, taken: dict[str, str] | None = None, last: dict[int, str] | None = None) -> None:
        self.taken = taken or {}
        self.ends = last or {}
        self.asked = self.listed = 0

    def holder(self, address: Address) -> str:
        self.asked += 1
        return self.taken.get(str(address), "")

    def all(self) -> set[str]:
        self.listed += 1
        return set(self.taken)

    def last(self, index: int) -> Address | None:
        return parse_address(self.ends[index]) if index in self.ends else None


def ipam(*sets: list[dict[str, str]], ips: tuple[str, ...] = ()) -> Ipam:
    return parse_ipam(request({"ipam": {"ranges": list(sets)}, "runtimeConfig": {"ips": list(ips)}}))


def chosen(found: Any) -> list[str]:
    return [str(lease.address) for lease in found]


# A set of one to three small ranges: third byte by position, first and last of the fourth, and the gateway

RANGE = st.tuples(st.integers(1, 40), st.integers(0, 30), st.integers(1, 80))


def entries(ranges: list[tuple[int, int, int]]) -> list[dict[str, str]]:
    return [
        {
            "subnet": f"10.0.{index}.0/24",
            "rangeStart": f"10.0.{index}.{start}",
            "rangeEnd": f"10.0.{index}.{start + more}",
            "gateway": f"10.0.{index}.{gateway}",
        }
        for index, (start, more, gateway) in enumerate(ranges)
    ]


def in_order(ranges: list[tuple[int, int, int]]) -> list[str]:
    return [
        f"10.0.{index}.{number}"
        for index, (start, more, gateway) in enumerate(ranges)
        for number in range(start, start + more + 1)
        if number != gateway
    ]


def model(ranges: list[tuple[int, int, int]], taken: set[str], last: str) -> str | None:
    """The first free one behind `last`, which may be the gateway or none of them at all."""
    order = in_order(ranges)
    ours = last.startswith("10.0.")  # any other is in none of the ranges, and host-local begins at the first then
    index, number = (int(part) for part in last.split(".")[2:]) if ours else (-1, 0)
    inside = 0 <= index < len(ranges) and ranges[index][0] <= number <= ranges[index][0] + ranges[index][1]
    behind = [text for text in order if tuple(map(int, text.split(".")[2:])) > (index, number)] if inside else order
    return next((text for text in [*behind, *order] if text not in taken), None)


def test_behind_an_address_of_another_network_comes_the_first_one() -> None:
    """host-local's RangeSet.RangeFor finds no range for it, and its iterator starts with the set."""
    ranges = [(1, 0, 1), (1, 0, 2), (1, 1, 1)]
    assert chosen(choose(ipam(entries(ranges)), Held(last={0: "192.0.2.1"}))) == ["10.0.1.1/24"]
    assert model(ranges, set(), "192.0.2.1") == "10.0.1.1"


@given(st.lists(RANGE, min_size=1, max_size=3), st.data())
def test_the_next_free_address_is_the_models(ranges: list[tuple[int, int, int]], data: Any) -> None:
    order = in_order(ranges)
    keep = data.draw(st.sets(st.sampled_from(order), max_size=2)) if order else set()
    crowded = data.draw(st.booleans())  # all but a few are taken, or a few are
    taken = set(order) - keep if crowded else keep
    last = data.draw(st.sampled_from(["", "10.0.0.0", "192.0.2.1", "10.0.1.3", *order]))
    wanted = model(ranges, taken, last)
    leases = Held(dict.fromkeys(taken, "net0/other/eth0"), {0: last} if last else {})
    if wanted is None:
        with pytest.raises(CniError) as caught:
            choose(ipam(entries(ranges)), leases)
        assert caught.value.code == NO_FREE_ADDRESS and f" {len(order)} " in caught.value.msg
    else:
        (lease,) = choose(ipam(entries(ranges)), leases)
        index = int(wanted.split(".")[2])
        assert str(lease.address) == f"{wanted}/24" and str(lease.gateway) == f"10.0.{index}.{ranges[index][2]}"


@given(st.lists(RANGE, min_size=1, max_size=3), st.lists(st.booleans(), min_size=1, max_size=40))
@example([(1, 3, 1)], [True] * 5 + [False] * 9)
def test_a_life_of_adding_and_freeing_is_the_models(ranges: list[tuple[int, int, int]], steps: list[bool]) -> None:
    """True adds, False frees the oldest; the last address is remembered as ADD does it. None has two holders."""
    leases = Held()
    for adding in steps:
        if not adding:
            leases.taken.pop(next(iter(leases.taken), ""), None)
            continue
        wanted = model(ranges, set(leases.taken), leases.ends.get(0, ""))
        if wanted is None:
            with pytest.raises(CniError):
                choose(ipam(entries(ranges)), leases)
            continue
        (lease,) = choose(ipam(entries(ranges)), leases)
        text = str(lease.address.address)
        assert text == wanted and text not in leases.taken
        leases.taken[text] = "x"
        leases.ends[0] = text


def test_an_address_just_freed_comes_last() -> None:
    pool = ipam([{"subnet": "10.0.0.0/29"}])  # .2 to .6
    found = []
    leases = Held()
    for _ in range(6):
        (lease,) = choose(pool, leases)
        leases.ends[0] = str(lease.address.address)
        found.append(leases.ends[0][-1])
    assert found == ["2", "3", "4", "5", "6", "2"]


def test_behind_a_range_in_the_middle_comes_the_next_one() -> None:
    ranges = [(2, 1, 1), (2, 1, 1), (2, 1, 1)]
    leases = Held(last={0: "10.0.1.3"})
    found = []
    for _ in range(6):
        (lease,) = choose(ipam(entries(ranges)), leases)
        leases.ends[0] = str(lease.address.address)
        found.append(leases.ends[0])
    assert found == ["10.0.2.2", "10.0.2.3", "10.0.0.2", "10.0.0.3", "10.0.1.2", "10.0.1.3"]


def test_the_cost_does_not_grow_with_the_leases() -> None:
    pool = ipam([{"subnet": "10.0.0.0/16"}])
    hosts = [str(item) for item in ipaddress.ip_network("10.0.0.0/16").hosts()][1:]
    for count in (100, 20000):
        leases = Held(dict.fromkeys(hosts[:count], "x"), {0: hosts[count - 1]})
        assert chosen(choose(pool, leases)) == [f"{hosts[count]}/16"]
        assert (leases.asked, leases.listed) == (1, 0)


def test_a_long_run_of_taken_ones_is_listed_once() -> None:
    hosts = [str(item) for item in ipaddress.ip_network("10.0.0.0/16").hosts()][1:]
    leases = Held(dict.fromkeys(hosts[:5000], "x"))
    assert chosen(choose(ipam([{"subnet": "10.0.0.0/16"}]), leases)) == [f"{hosts[5000]}/16"]
    assert leases.listed == 1 and leases.asked <= NEAR + 2


def test_each_set_gives_one_and_has_its_own_memory() -> None:
    pool = ipam([{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}], [{"subnet": "10.1.0.0/24"}])
    leases = Held(last={0: "10.0.0.7", 2: "10.1.0.254"})
    assert chosen(choose(pool, leases)) == ["10.0.0.8/24", "fd00::2/64", "10.1.0.2/24"]


def test_a_huge_pool_is_not_walked() -> None:
    last = "fd00::ffff:ffff:ffff:ffff"
    assert chosen(choose(ipam([{"subnet": "fd00::/64"}]), Held(last={0: last}))) == ["fd00::2/64"]


def test_exhaustion_says_which_range_and_how_many() -> None:
    small = [{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.1", "rangeEnd": "10.0.0.3"}, {"subnet": "10.1.0.0/30"}]
    leases = Held(dict.fromkeys(("10.0.0.2", "10.0.0.3", "10.1.0.2"), "x"))
    with pytest.raises(CniError) as caught:
        choose(ipam(small), leases)
    assert caught.value.code == NO_FREE_ADDRESS and " 3 " in caught.value.msg
    assert "10.0.0.1-10.0.0.3" in caught.value.msg and "10.1.0.0/30" in caught.value.msg


def test_an_earlier_lease_of_the_same_attachment_is_kept() -> None:
    """After a crash the same ADD gets the same answer; but not an address that somebody else has by now."""
    pool = ipam([{"subnet": "10.0.0.0/24"}])
    before = choose(pool, Held(last={0: "10.0.0.49"}))
    assert chosen(choose(pool, Held(last={0: "10.0.0.99"}), before)) == ["10.0.0.50/24"]
    taken = Held({"10.0.0.50": "net0/other/eth0"}, {0: "10.0.0.99"})
    assert chosen(choose(pool, taken, before)) == ["10.0.0.100/24"]


PAIR = ([{"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.99"}], [{"subnet": "fd00::/64"}])


@pytest.mark.parametrize(
    ("ips", "wanted"),
    [
        (("10.0.0.77",), ["10.0.0.77/24", "fd00::2/64"]),
        (("fd00::77", "10.0.0.77/8"), ["10.0.0.77/24", "fd00::77/64"]),
        (("fd00::77",), ["10.0.0.2/24", "fd00::77/64"]),
    ],
)
def test_requested_addresses(ips: tuple[str, ...], wanted: list[str]) -> None:
    assert chosen(choose(ipam(*PAIR, ips=ips), Held())) == wanted


@pytest.mark.parametrize(
    ("ips", "code", "words"),
    [
        (("10.0.0.5",), ADDRESS_TAKEN, ["10.0.0.5", "net0/other/eth0"]),
        (("10.0.0.1",), ADDRESS_TAKEN, ["10.0.0.1", "gateway"]),
        (("fd00::1",), ADDRESS_TAKEN, ["fd00::1", "gateway"]),
        (("10.0.0.100",), INVALID_CONFIG, ["10.0.0.100"]),
        (("10.0.0.0",), INVALID_CONFIG, ["10.0.0.0"]),
        (("10.9.0.5",), INVALID_CONFIG, ["10.9.0.5"]),
        (("fd01::5",), INVALID_CONFIG, ["fd01::5"]),
        (("10.0.0.7", "10.0.0.8"), INVALID_CONFIG, ["10.0.0.8"]),
    ],
    ids=str,
)
def test_requests_that_cannot_be_met(ips: tuple[str, ...], code: int, words: list[str]) -> None:
    with pytest.raises(CniError) as caught:
        choose(ipam(*PAIR, ips=ips), Held({"10.0.0.5": "net0/other/eth0"}))
    assert caught.value.code == code and all(word in str(caught.value) for word in words), str(caught.value)


# Several ranges in one subnet

SHARED = (
    [{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.10", "rangeEnd": "10.0.0.20"}],
    [{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.100", "rangeEnd": "10.0.0.120"}],
)


@pytest.mark.parametrize(
    ("ips", "wanted"),
    [
        ((), ["10.0.0.10/24", "10.0.0.100/24"]),
        (("10.0.0.105",), ["10.0.0.10/24", "10.0.0.105/24"]),
        (("10.0.0.15",), ["10.0.0.15/24", "10.0.0.100/24"]),
        (("10.0.0.105", "10.0.0.15"), ["10.0.0.15/24", "10.0.0.105/24"]),
    ],
)
def test_sets_that_share_a_subnet_are_told_apart_by_their_ranges(ips: tuple[str, ...], wanted: list[str]) -> None:
    assert chosen(choose(ipam(*SHARED, ips=ips), Held())) == wanted


@pytest.mark.parametrize("last", [{}, {0: "10.0.0.12", 1: "10.0.0.107"}])
def test_an_earlier_lease_is_kept_in_the_set_that_it_came_from(last: dict[int, str]) -> None:
    before = choose(ipam(*SHARED), Held())
    assert choose(ipam(*SHARED), Held(last=last), before) == before


@pytest.mark.parametrize("last", [{0: "10.0.0.105"}, {1: "10.0.0.15"}])
def test_the_memory_of_another_set_says_nothing(last: dict[int, str]) -> None:
    """As after somebody has moved the sets about in the configuration."""
    assert chosen(choose(ipam(*SHARED), Held(last=last))) == ["10.0.0.10/24", "10.0.0.100/24"]


def test_a_request_between_the_ranges_of_a_subnet_lies_outside() -> None:
    with pytest.raises(CniError) as caught:
        choose(ipam(*SHARED, ips=("10.0.0.50",)), Held())
    assert caught.value.code == INVALID_CONFIG and "10.0.0.50" in caught.value.msg


GATEWAYS = [
    {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.10", "rangeEnd": "10.0.0.12", "gateway": "10.0.0.21"},
    {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.20", "rangeEnd": "10.0.0.22", "gateway": "10.0.0.11"},
]


def test_no_gateway_of_any_range_of_the_set_is_leased() -> None:
    """Each range's gateway lies in the other one."""
    leases = Held()
    for wanted in ("10.0.0.10", "10.0.0.12", "10.0.0.20", "10.0.0.22"):
        (lease,) = choose(ipam(GATEWAYS), leases)
        assert str(lease.address.address) == wanted
        leases.taken[wanted] = "x"
        leases.ends[0] = wanted
    with pytest.raises(CniError) as caught:
        choose(ipam(GATEWAYS), leases)
    assert caught.value.code == NO_FREE_ADDRESS


@pytest.mark.parametrize("address", ["10.0.0.11", "10.0.0.21"])
def test_no_gateway_of_any_range_of_the_set_is_granted(address: str) -> None:
    with pytest.raises(CniError) as caught:
        choose(ipam(GATEWAYS, ips=(address,)), Held())
    assert caught.value.code == ADDRESS_TAKEN and "gateway" in caught.value.msg


def test_exhaustion_counts_no_gateway_of_any_range_of_the_set() -> None:
    leases = Held(dict.fromkeys(("10.0.0.10", "10.0.0.12", "10.0.0.20", "10.0.0.22"), "x"))
    with pytest.raises(CniError) as caught:
        choose(ipam(GATEWAYS), leases)
    assert " 4 " in caught.value.msg


@pytest.mark.parametrize("ips", [(), ("10.0.0.15",)])
def test_no_gateway_of_another_set_is_leased(ips: tuple[str, ...]) -> None:
    """The bridge has it: with it on the container nobody reaches either."""
    other = [{**SHARED[1][0], "gateway": "10.0.0.15"}]
    try:
        found = chosen(choose(ipam(SHARED[0], other, ips=ips), Held(last={0: "10.0.0.14"})))
    except CniError as refusal:
        assert ips and refusal.code == ADDRESS_TAKEN
        return
    assert found == ["10.0.0.16/24", "10.0.0.100/24"]


def test_a_gateway_outside_the_range_costs_no_address() -> None:
    ranges = [{"subnet": "10.4.0.0/24", "rangeStart": "10.4.0.100", "rangeEnd": "10.4.0.101"}]
    leases = Held({"10.4.0.100": "x"})
    assert chosen(choose(ipam(ranges), leases)) == ["10.4.0.101/24"]
    leases.taken["10.4.0.101"] = "x"
    with pytest.raises(CniError) as caught:
        choose(ipam(ranges), leases)
    assert "all 2 of" in caught.value.msg
