"""Address ranges in host-local's shape: `[[{subnet, rangeStart, rangeEnd, gateway}]]`, parsed and checked.

One range set gives one address; its ranges are tried in order. `choice` picks the address. The rules are those of the
reference host-local plugin (allocator/range.go), but the gateway must lie in the subnet, and no range holds the
subnet's own address or its broadcast address.
"""

from __future__ import annotations

from cni.protocol.errors import INVALID_CONFIG, CniError
from nft.addresses import BITS, Address, Prefix, parse_address, parse_prefix
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.fields import Fields


class Range(Value):
    """Addresses `first` to `last` of `subnet` (numbers, inclusive) may be leased, except gateways. `given` says whether
    the configuration names the gateway; if not, it is the subnet's first address."""

    subnet: Prefix
    first: int
    last: int
    gateway: Address
    given: bool = True

    def __str__(self) -> str:
        version = self.subnet.version
        return f"{Address(version, self.first)}-{Address(version, self.last)} of {self.subnet}"

    def holds(self, address: Address) -> bool:
        return address.version == self.subnet.version and self.first <= address.number <= self.last


def parse_range(fields: Fields) -> Range:
    """One range, with defaults for its ends and gateway. Raises CniError 7."""
    subnet = fields.parsed("subnet", parse_prefix)
    if subnet is None:
        raise fields.fail("subnet", "a range needs a subnet such as 10.4.0.0/24")
    if subnet.first != subnet.address.number:
        raise fields.fail("subnet", f"has host bits set; did you mean {subnet.network}?")
    if subnet.length > BITS[subnet.version] - 2:
        raise fields.fail("subnet", f"is too small: /{BITS[subnet.version] - 2} is the smallest that holds a container")
    if subnet.address.is_multicast or subnet.address.is_loopback:
        raise fields.fail("subnet", "containers cannot have multicast or loopback addresses")
    lowest = subnet.first + 1
    # IPv4 reserves the broadcast address; IPv6 has none.
    highest = subnet.last - 1 if subnet.version == 4 else subnet.last
    found = []
    for key, default in (("rangeStart", lowest), ("rangeEnd", highest), ("gateway", lowest)):
        address = fields.parsed(key, parse_address)
        if address is not None and address not in subnet:
            raise fields.fail(key, f"is outside {subnet}")
        found.append(default if address is None else address.number)
    # host-local takes the whole subnet for a range, and would lease its first and last address.
    first, last = max(found[0], lowest), min(found[1], highest)
    if first > last:
        key = "rangeStart" if fields.text("rangeStart") else "rangeEnd"
        ends = Address(subnet.version, first), Address(subnet.version, last)
        raise fields.fail(key, f"the range is empty: its first address {ends[0]} lies behind rangeEnd {ends[1]}")
    if not lowest <= found[2] <= highest:
        raise fields.fail("gateway", f"is the network or broadcast address of {subnet}")
    return Range(subnet, first, last, Address(subnet.version, found[2]), bool(fields.text("gateway")))


def parse_range_sets(owner: Fields, key: str) -> list[tuple[Range, ...]]:
    """The list of lists under `key`. Raises CniError 7. The caller checks for overlaps once it has all sets."""
    from cni.protocol.fields import Fields, quote

    sets = []
    for path, item in owner.items(key):
        if not isinstance(item, list):
            raise CniError(INVALID_CONFIG, f"{path}: {quote(item)}: must be a list of ranges (a range set)")
        ranges = tuple(parse_range(Fields(entry, f"{path}[{index}]")) for index, entry in enumerate(item))
        if not ranges:
            raise CniError(INVALID_CONFIG, f"{path} is an empty range set")
        if len({item.subnet.version for item in ranges}) > 1:
            raise CniError(INVALID_CONFIG, f"{path}: a range set mixes IPv4 and IPv6: " + ", ".join(map(str, ranges)))
        sets.append(ranges)
    return sets


def check_overlaps(sets: list[tuple[Range, ...]]) -> None:
    """Raises CniError 7 for two ranges that share an address, whichever keys they are under."""
    flat = sorted((item for ranges in sets for item in ranges), key=lambda item: (item.subnet.version, item.first))
    for before, after in zip(flat, flat[1:]):
        if before.subnet.version == after.subnet.version and before.last >= after.first:
            raise CniError(INVALID_CONFIG, f"ipam: the ranges {before} and {after} overlap")
