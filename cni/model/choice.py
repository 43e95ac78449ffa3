"""Which addresses an attachment gets from its range sets: requested ones, or the next free one after the last. Pure.

The choice is next-fit, as in host-local: an address that was just freed is not handed out at once, because neighbours
may still remember its old owner. We ask about one candidate at a time, and list all leases only when NEAR in a row are
taken, so the cost does not grow with the number of leases. Other programs' leases can only be asked for one by one.
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
    """What the choice needs to know: who holds an address, which are held, where the last search in a set ended."""

    elsewhere = ""  # where else to look, in words

    def holder(self, address: Address) -> str:
        raise NotImplementedError

    def all(self) -> set[str]:
        raise NotImplementedError

    def last(self, index: int) -> Address | None:
        raise NotImplementedError


def choose(ipam: Ipam, leases: Leases, prefer: tuple[Lease, ...] = ()) -> tuple[Lease, ...]:
    """One lease for each range set. `prefer` are the leases that a crashed ADD of the same attachment had.

    Raises CniError 7 (a requested address lies outside the ranges), 101 (all are leased) and 102 (a requested address
    is taken).
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
    """The first address of each range set, by the set's index, and the addresses that are in no set or not the first of
    theirs. Ranges share no address, so only the range that begins last before an address may hold it."""
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
    """The range that holds the address. Two sets may share a subnet, but not an address."""
    return next((item for item in ranges if item.holds(address)), None)


def _lease(ranges: tuple[Range, ...], address: Address) -> Lease:
    item = _range_of(ranges, address)
    assert item is not None, "candidates come from the ranges themselves"
    return Lease(Prefix(address, item.subnet.length), item.gateway)


def gateways_of(ipam: Ipam) -> dict[tuple[int, int], Range]:
    """The ranges by their gateways, as (version, number), over all range sets: the bridge has all gateways."""
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
    """The next free address of the range set with that index; `gateways` are those of all sets. Raises CniError 101."""
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
    """Yields every address of the set once, beginning with the one after `last`, without gateways."""
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
