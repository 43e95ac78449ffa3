"""Forgetting connections that the connection tracker would go on sending the old way.

A UDP flow that existed before a port was published keeps going to the host, one that outlives its container to a dead
address, as long as packets come (kubernetes#102559). One pass over the kernel's table for all ports together; the
reference portmap makes one for each port, 10 ms a time. Bytes only here; the socket is `cni.netlink`.
Numbers are from include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import sys

from cni.kernel.rtnetlink import attr, attr_u32, attributes
from cni.model.ports import PortMapping
from nft.addresses import FAMILY, Address, from_packed
from nft.messages import NESTED, nfgen
from nft.netlink import NETLINK_NETFILTER, Netlink, is_missing
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GET, DELETE = (1 << 8) | 1, (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID, CTA_ZONE, CTA_FILTER = 1, 2, 12, 18, 25
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_SRC, CTA_IP_DST = {4: 1, 6: 3}, {4: 2, 6: 4}
CTA_PROTO_NUM, CTA_PROTO_DST_PORT = 1, 3
CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS = 1, 2
FILTER_PROTO_NUM = 1 << 3
IPPROTO_UDP = 17
# Of a kernel without ctnetlink: nfnetlink_rcv_msg has EINVAL for a subsystem that is not there. No reason to keep a
# container from stopping.
LACKING = (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)


class Direction(Value):
    """One direction of a flow, as the kernel's own bytes."""

    source: bytes
    target: bytes
    port: bytes


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
    netlink = Netlink(NETLINK_NETFILTER)
    try:
        victims = []
        for version in versions:
            for parts in _udp_flows(netlink, version):
                original = _direction(version, parts[CTA_TUPLE_ORIG])
                if doomed(version, original, lambda: _direction(version, parts.get(CTA_TUPLE_REPLY, b""))):  # noqa: B023
                    victims.append((version, parts))
        for version, parts in victims:
            body = attr(NESTED | CTA_TUPLE_ORIG, parts[CTA_TUPLE_ORIG])
            body += b"".join(attr(kind, parts[kind]) for kind in (CTA_ID, CTA_ZONE) if kind in parts)
            try:
                netlink.ask(DELETE, nfgen(FAMILY[version]) + body)
            except OSError as error:
                if not is_missing(error):
                    raise
        return len(victims)
    except OSError as error:
        if error.errno not in LACKING:
            raise
        sys.stderr.write(f"nftcni: this kernel does not list connections ({error.strerror}): old UDP flows go on\n")
        return 0
    finally:
        netlink.close()


def _udp_flows(netlink: Netlink, version: int) -> Iterator[dict[int, bytes]]:
    """The attributes of each flow. Kernels before 5.8 ignore the filter and list all protocols."""
    protocol = attr(NESTED | CTA_TUPLE_PROTO, attr(CTA_PROTO_NUM, bytes([IPPROTO_UDP])))
    flags = attr_u32(CTA_FILTER_ORIG_FLAGS, FILTER_PROTO_NUM) + attr_u32(CTA_FILTER_REPLY_FLAGS, 0)
    query = nfgen(FAMILY[version]) + attr(NESTED | CTA_TUPLE_ORIG, protocol) + attr(NESTED | CTA_FILTER, flags)
    for payload in netlink.dump(GET, query):
        parts = attributes(payload, 4)
        if bytes([IPPROTO_UDP]) == _protocol(parts.get(CTA_TUPLE_ORIG, b"")):
            yield parts


def _protocol(packed: bytes) -> bytes:
    return attributes(attributes(packed).get(CTA_TUPLE_PROTO, b"")).get(CTA_PROTO_NUM, b"")


def _direction(version: int, packed: bytes) -> Direction:
    parts = attributes(packed)
    ip = attributes(parts.get(CTA_TUPLE_IP, b""))
    proto = attributes(parts.get(CTA_TUPLE_PROTO, b""))
    return Direction(
        ip.get(CTA_IP_SRC[version], b""), ip.get(CTA_IP_DST[version], b""), proto.get(CTA_PROTO_DST_PORT, b"")
    )
