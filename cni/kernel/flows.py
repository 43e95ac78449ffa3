"""Which connections to forget after ports were published, a container has gone, or the table was missing.

A UDP flow from before a port was published keeps going to the host, and one that outlives its container goes to
whoever gets the address next, as long as packets come (kubernetes#102559). One pass serves all ports; the reference
portmap makes one for each port, 10 ms each. `nft.conntrack` talks to the connection tracker.
"""

from __future__ import annotations

from cni.model.attachment import Attachment
from cni.model.ports import PortMapping
from cni.protocol.log import say
from nft.addresses import BITS, Address, Prefix, from_packed, merged
from nft.conntrack import IPPROTO_UDP, Flow, Unsupported, forget_flows, forget_sources, has_port, has_source
from nft.elements import PROTOCOLS
from nft.netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

# Addresses or ports. Beyond, one listing (11 ms on 262144 buckets) is faster than two deletions or a search for each.
FEW = 16


def forget_new_ports(
    netlink: Netlink,
    mappings: tuple[PortMapping, ...],
    addresses: tuple[Address, ...],
    is_local: Callable[[Address], bool],
) -> int:
    """Forgets UDP flows to the mappings' host ports that do not lead to the container. Returns their number.

    `is_local` says whether an address is the host's: a flow to the same port of another machine is none of ours.
    """
    wanted: dict[tuple[bytes, int], list[Address]] = {}
    for mapping in mappings:
        if mapping.protocol == "udp" and mapping.host_ip is not None:
            key = mapping.host_port.to_bytes(2, "big"), mapping.host_ip.version
            wanted.setdefault(key, []).append(mapping.host_ip)
    own = {address.packed for address in addresses}

    def stale(flow: Flow) -> bool:
        original = flow.original
        published = wanted.get((original.port, flow.version), [])
        if not any(host_ip.is_unspecified or host_ip.packed == original.target for host_ip in published):
            return False
        if flow.reply.source in own:
            return False
        return is_local(from_packed(original.target))

    versions = {version for _port, version in wanted}
    return _forget(netlink, versions, stale, IPPROTO_UDP, {has_port(port) for port, _version in wanted})


def forget_addresses(netlink: Netlink, addresses: tuple[Address, ...]) -> None:
    """Forgets every flow from or to a container that has gone, of any protocol."""
    left = addresses
    if len(addresses) <= FEW:
        try:
            forget_sources(netlink, [address.packed for address in addresses if address.version == 4])
            left = tuple(address for address in addresses if address.version == 6)
        except Unsupported:
            pass  # Linux before 6.11
    own = {address.packed for address in left}

    def of_them(flow: Flow) -> bool:
        return flow.original.source in own or flow.reply.source in own

    _forget(netlink, {address.version for address in left}, of_them, containing=set(map(has_source, own)))


def forget_ports(netlink: Netlink, mappings: tuple[PortMapping, ...], addresses: tuple[Address, ...]) -> None:
    """Forgets the flows that came in by ports which a container gave up while it lives on."""
    own = {address.packed for address in addresses}
    given_up = {
        (PROTOCOLS[mapping.protocol], mapping.host_port.to_bytes(2, "big"), mapping.host_ip.packed)
        for mapping in mappings
        if mapping.host_ip is not None
    }

    def came_by_them(flow: Flow) -> bool:
        if not flow.is_target_translated or flow.reply.source not in own:
            return False
        original = flow.original
        unspecified = bytes(len(original.target))
        return any((flow.protocol, original.port, target) in given_up for target in (original.target, unspecified))

    _forget(netlink, {address.version for address in addresses}, came_by_them, containing=set(map(has_source, own)))


def forget_contradictions(netlink: Netlink, items: list[Attachment], is_local: Callable[[Address], bool]) -> int:
    """Forgets flows that began while the table was missing and lack the translation that they would get now: they would
    never get it. Returns their number."""
    masqueraded: dict[bytes, str] = {}  # address: the link by which its packets come
    inside: set[bytes] = set()
    ours, leaving = Spans(), Spans()  # subnets of our bridges, for machines there that we know or not
    published: dict[tuple[int, int, bytes], list[Address]] = {}
    direct: dict[str, dict[str, None]] = {}
    for item in items:
        for address in item.addresses:
            inside.add(address.packed)
            if item.is_masqueraded(address.version):
                masqueraded[address.packed] = item.bridge
        for lease in item.leases if item.made and not item.is_ptp else ():
            ours.add(lease.address, item.bridge)
            if item.is_masqueraded(lease.address.version) and item.is_routed(lease.address.version):
                leaving.add(lease.address, item.bridge)
        for mapping in item.mappings:
            if mapping.host_ip is not None:
                key = mapping.host_ip.version, PROTOCOLS[mapping.protocol], mapping.host_port.to_bytes(2, "big")
                published.setdefault(key, []).append(mapping.host_ip)
        direct.setdefault(item.bridge, {}).update(dict.fromkeys(item.direct))
    spans = {bridge: merged(tuple(prefixes)) for bridge, prefixes in direct.items() if prefixes}

    def comes_by(source: bytes) -> str | None:
        """The link by which a masqueraded sender's packets come, None for other senders."""
        found = masqueraded.get(source)
        return found if found is not None or source in inside else leaving.find(from_packed(source))

    def contradicts(flow: Flow) -> bool:
        original = flow.original
        target = from_packed(original.target)
        untouched = not flow.is_source_translated and not flow.is_target_translated
        bridge = comes_by(original.source) if untouched else None
        if bridge is not None:
            spared = original.target in inside or target.is_multicast or ours.find(target) is not None
            spared = spared or any(
                first <= target.number <= last
                for version, first, last in spans.get(bridge, ())
                if version == flow.version
            )
            if not spared and not is_local(target):
                return True
        hosts = published.get((flow.version, flow.protocol, original.port), ())
        if flow.is_target_translated or not any(ip.is_unspecified or ip == target for ip in hosts):
            return False
        return is_local(target)

    return _forget(netlink, (4, 6), contradicts)


class Spans:
    """Subnets and the bridges they are on. A look-up tries each prefix length once, however many subnets there are."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int], dict[int, str]] = {}

    def add(self, prefix: Prefix, bridge: str) -> None:
        if prefix.length < BITS[prefix.version]:  # a rebuilt record does not know the subnet
            self._found.setdefault((prefix.version, prefix.length), {})[prefix.first] = bridge

    def find(self, address: Address) -> str | None:
        for (version, length), bridges in self._found.items():
            bridge = bridges.get(Prefix(address, length).first) if version == address.version else None
            if bridge is not None:
                return bridge
        return None


def _forget(
    netlink: Netlink,
    versions: Iterable[int],
    doomed: Callable[[Flow], bool],
    protocol: int = 0,
    containing: Collection[bytes] = (),
) -> int:
    """`forget_flows`, but a kernel that cannot list connections must not keep a container from starting or stopping."""
    try:
        return forget_flows(netlink, versions, doomed, protocol, tuple(containing) if len(containing) <= FEW else ())
    except Unsupported as lacking:
        say(f"this kernel does not list connections ({lacking}): old flows go on")
        return 0
