"""Which connections to forget when ports are published or a container goes; the tracker itself is `nft.conntrack`.

A UDP flow that existed before a port was published keeps going to the host, one that outlives its container to a dead
address, as long as packets come (kubernetes#102559). One pass for all ports together; the reference portmap makes one
for each port, 10 ms a time.
"""

from __future__ import annotations

from cni.model.ports import PortMapping
from cni.protocol.log import say
from nft.addresses import Address, from_packed
from nft.conntrack import Direction, Unsupported, forget_udp_flows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def forget_new_ports(
    mappings: tuple[PortMapping, ...], addresses: tuple[Address, ...], is_local: Callable[[Address], bool]
) -> int:
    """After ADD: UDP flows to the mappings' host ports that do not lead to the container. Returns how many.

    `is_local` says whether an address is the host's: a flow to that port of another machine, the host's own or one that
    passes through, is none of ours.
    """
    wanted: dict[tuple[bytes, int], list[Address]] = {}
    for mapping in mappings:
        if mapping.protocol == "udp" and mapping.host_ip is not None:
            key = mapping.host_port.to_bytes(2, "big"), mapping.host_ip.version
            wanted.setdefault(key, []).append(mapping.host_ip)
    own = {address.packed for address in addresses}

    def stale(version: int, original: Direction, reply: Callable[[], Direction]) -> bool:
        published = wanted.get((original.port, version), [])
        if not any(host_ip.is_unspecified or host_ip.packed == original.target for host_ip in published):
            return False
        if reply().source in own:
            return False
        return is_local(from_packed(original.target))

    return _forget({version for _port, version in wanted}, stale)


def forget_container(mappings: tuple[PortMapping, ...], addresses: tuple[Address, ...]) -> int:
    """After DEL: UDP flows that lead to the container. Returns how many."""
    own = {address.packed for address in addresses}
    versions = {mapping.host_ip.version for mapping in mappings if mapping.protocol == "udp" and mapping.host_ip}
    return _forget(versions, lambda _version, _original, reply: reply().source in own)


def _forget(versions: set[int], doomed: Callable[[int, Direction, Callable[[], Direction]], bool]) -> int:
    """A kernel that lists no connections is no reason to keep a container from starting or stopping."""
    try:
        return forget_udp_flows(versions, doomed)
    except Unsupported as lacking:
        say(f"this kernel does not list connections ({lacking}): old UDP flows go on")
        return 0
