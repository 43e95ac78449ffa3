"""Which addresses an attachment gets from its range sets: requested ones, or the next free one after the last. Pure.

Next-fit, as host-local does it: an address that was just freed is not handed out at once, while neighbours may still
remember its old owner. One question for each candidate; only when NEAR in a row are taken is the whole list of leases
asked for, so the cost does not grow with the number of leases. What others than ourselves have is only known by asking.
"""

from __future__ import annotations

from cni.model.attachment import Lease
from cni.model.ipam import Ipam
from cni.model.ranges import Range
from cni.protocol.errors import ADDRESS_TAKEN, INVALID_CONFIG, NO_FREE_ADDRESS, CniError
from nft.addresses import Address, Prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NEAR = 64


class Leases:
    """What choosing needs to know: who holds an address, all that are held, where the last search of a set ended."""

    elsewhere = ""  # where else to look, in words

    def holder(self, address: Address) -> str:
        raise NotImplementedError

    def all(self) -> set[str]:
        raise NotImplementedError

    def last(self, index: int) -> Address | None:
        raise NotImplementedError


def choose(ipam: Ipam, leases: Leases, prefer: tuple[Lease, ...] = ()) -> tuple[Lease, ...]:
    """One lease for each range set. `prefer` are those that a crashed ADD of the same attachment had.

    Raises CniError 7 (a requested address lies outside), 101 (exhausted), 102 (a requested address is taken).
    """
    gateways = gateways_of(ipam)
    asked, outside = _by_set(ipam, ipam.requested)
    before, _ = _by_set(ipam, tuple(lease.address.address for lease in prefer))
    chosen = []
    for index, ranges in enumerate(ipam.range_sets):
        if index in asked:
            chosen.append(_requested(gateways, ranges, asked[index], leases))
        elif index in before and not leases.holder(before[index]):
            chosen.append(_lease(ranges, before[index]))
        else:
            chosen.append(_lease(ranges, next_free(ipam, index, leases, gateways)))
    if outside:
        have = "; ".join(str(item) for ranges in ipam.range_sets for item in ranges)
        raise CniError(
            INVALID_CONFIG,
            f"the requested address {outside[0]} lies outside the network's ranges, or is a second one of the same set",
            f"ranges: {have or 'none'}",
        )
    return tuple(chosen)


def _by_set(ipam: Ipam, addresses: tuple[Address, ...]) -> tuple[dict[int, Address], list[Address]]:
    """The first address of each range set, by its index; and those of no set, or behind a first one. No two ranges
    share an address, so the one that begins last before it is the only one that may hold it."""
    found: dict[int, Address] = {}
    outside = []
    if addresses:
        spans = [(item.subnet.version, item.first, item.last, index) for index, item in _ranges(ipam)]
        spans.sort()
        for address in addresses:
            low, high = 0, len(spans)
            while low < high:
                middle = (low + high) // 2
                if spans[middle][:2] <= (address.version, address.number):
                    low = middle + 1
                else:
                    high = middle
            version, _first, last, index = spans[low - 1] if low else (0, 0, 0, 0)
            if version == address.version and address.number <= last and index not in found:
                found[index] = address
            else:
                outside.append(address)
    return found, outside


def _ranges(ipam: Ipam) -> Iterator[tuple[int, Range]]:
    return ((index, item) for index, ranges in enumerate(ipam.range_sets) for item in ranges)


def _range_of(ranges: tuple[Range, ...], address: Address) -> Range | None:
    """Two sets may share a subnet, not an address."""
    return next((item for item in ranges if item.holds(address)), None)


def _lease(ranges: tuple[Range, ...], address: Address) -> Lease:
    item = _range_of(ranges, address)
    assert item is not None, "candidates come from the ranges themselves"
    return Lease(Prefix(address, item.subnet.length), item.gateway)


def gateways_of(ipam: Ipam) -> dict[tuple[int, int], Range]:
    """Of every range set, by version and number: the bridge has them all."""
    return {(item.gateway.version, item.gateway.number): item for _index, item in _ranges(ipam)}


def _requested(
    gateways: dict[tuple[int, int], Range], ranges: tuple[Range, ...], address: Address, leases: Leases
) -> Lease:
    served = gateways.get((address.version, address.number))
    if served is not None:
        raise CniError(ADDRESS_TAKEN, f"the requested address {address} is the gateway of {served.subnet}")
    holder = leases.holder(address)
    if holder:
        raise CniError(ADDRESS_TAKEN, f"the requested address {address} is taken by {holder}")
    return _lease(ranges, address)


def next_free(ipam: Ipam, index: int, leases: Leases, gateways: dict[tuple[int, int], Range]) -> Address:
    """Of the range set of that index; `gateways` are those of all. Raises CniError 101."""
    ranges, last = ipam.range_sets[index], leases.last(index)
    version = ranges[0].subnet.version
    for tried, address in enumerate(_after(ranges, last, gateways)):
        if not leases.holder(address):
            return address
        if tried == NEAR:
            break
    held = leases.all()
    for address in _after(ranges, last, gateways):
        if str(address) not in held and not leases.holder(address):
            return address
    size = sum(
        item.last
        - item.first
        + 1
        - sum(one == version and item.first <= number <= item.last for one, number in gateways)
        for item in ranges
    )
    raise CniError(
        NO_FREE_ADDRESS,
        f"no free address: all {size} of {', '.join(map(str, ranges))} are leased",
        f"see who holds them with: nftcni list{leases.elsewhere}",
    )


def _after(
    ranges: tuple[Range, ...], last: Address | None, gateways: dict[tuple[int, int], Range]
) -> Iterator[Address]:
    """Every address of the set once, from the one behind `last` on, gateways left out."""
    start = next((index for index, item in enumerate(ranges) if last is not None and item.holds(last)), None)
    if start is None or last is None:
        spans = [(item, item.first, item.last) for item in ranges]
    else:
        item = ranges[start]
        spans = [(item, last.number + 1, item.last)]
        spans += [(other, other.first, other.last) for other in (*ranges[start + 1 :], *ranges[:start])]
        spans += [(item, item.first, last.number)]
    for item, first, end in spans:
        for number in range(first, end + 1):
            if (item.subnet.version, number) not in gateways:
                yield Address(item.subnet.version, number)
