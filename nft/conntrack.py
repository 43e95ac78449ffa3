"""Deletes connections from the connection tracker, which would go on translating them the old way.

One pass lists the kernel's table; the caller decides flow by flow which connections are meant.
Numbers are from include/uapi/linux/netfilter/{nfnetlink_conntrack,nf_conntrack_common}.h.
"""

from __future__ import annotations

import errno

from .addresses import FAMILY
from .framing import NLA_F_NESTED as NESTED
from .framing import attr, attr_u32, attributes
from .messages import nfgen
from .netlink import Netlink, is_missing
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

GET, DELETE = (1 << 8) | 1, (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_STATUS, CTA_ID, CTA_ZONE, CTA_FILTER = 1, 2, 3, 12, 18, 25
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_SRC, CTA_IP_DST = {4: 1, 6: 3}, {4: 2, 6: 4}
CTA_PROTO_NUM, CTA_PROTO_DST_PORT = 1, 3
CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS = 1, 2
FILTER_IP_SRC, FILTER_PROTO_NUM = 1 << 0, 1 << 3
IPS_SRC_NAT, IPS_DST_NAT = 1 << 4, 1 << 5
IPPROTO_UDP = 17
OF_FAMILY = 1  # nfgenmsg's version; with 0, a deletion by filter covers every family (ctnetlink_del_conntrack)
# What a kernel without ctnetlink answers: nfnetlink_rcv_msg returns EINVAL for a subsystem that it lacks.
LACKING = (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)


class Direction(Value):
    """One direction of a flow, as the kernel's own bytes."""

    source: bytes
    target: bytes
    port: bytes


class Flow:
    """What the kernel says about one flow; each part is decoded when it is asked for."""

    def __init__(self, version: int, parts: dict[int, bytes]) -> None:
        self.version = version
        self.parts = parts
        self._original = attributes(parts.get(CTA_TUPLE_ORIG, b""))

    @property
    def protocol(self) -> int:
        packed = attributes(self._original.get(CTA_TUPLE_PROTO, b"")).get(CTA_PROTO_NUM, b"")
        return int.from_bytes(packed, "big")

    @property
    def original(self) -> Direction:
        return _direction(self.version, self._original)

    @property
    def reply(self) -> Direction:
        return _direction(self.version, attributes(self.parts.get(CTA_TUPLE_REPLY, b"")))

    @property
    def is_source_translated(self) -> bool:
        return bool(self._status & IPS_SRC_NAT)

    @property
    def is_target_translated(self) -> bool:
        return bool(self._status & IPS_DST_NAT)

    @property
    def _status(self) -> int:
        return int.from_bytes(self.parts.get(CTA_STATUS, b""), "big")


class Unsupported(Exception):
    """This kernel does not list connections."""


def forget_flows(
    netlink: Netlink,
    versions: Iterable[int],
    doomed: Callable[[Flow], bool],
    protocol: int = 0,
    containing: Sequence[bytes] = (),
) -> int:
    """Deletes every flow of these IP versions for which `doomed` holds, of one `protocol` only if that is given, and
    only those with one of these byte strings in them (`has_source`, `has_port`). Returns the number of deleted flows.
    Raises OSError and Unsupported.

    It uses the caller's open socket: closing any nfnetlink socket waits some 10 ms for the kernel to free what was
    deleted from a table before (nft_rcv_nl_event).
    """
    try:
        found = (flow for version in versions for flow in _flows(netlink, version, protocol, containing))
        victims = [flow for flow in found if doomed(flow)]
        for flow in victims:
            body = attr(NESTED | CTA_TUPLE_ORIG, flow.parts[CTA_TUPLE_ORIG])
            body += b"".join(attr(kind, flow.parts[kind]) for kind in (CTA_ID, CTA_ZONE) if kind in flow.parts)
            try:
                netlink.ask(DELETE, nfgen(FAMILY[flow.version]) + body)
            except OSError as error:
                if not is_missing(error):
                    raise
        return len(victims)
    except OSError as error:
        if error.errno in LACKING:
            raise Unsupported(error.strerror) from None
        raise


def forget_sources(netlink: Netlink, sources: Iterable[bytes]) -> None:
    """Deletes every flow that has one of these packed IPv4 addresses as the source of either direction. Raises OSError,
    and Unsupported on a kernel that cannot filter deletions.

    The kernel filters: 0.2 ms for each address on 262144 buckets, where a listing takes 11 ms. Linux before 6.11
    filters listings only; it expects a whole tuple and refuses ours, so Unsupported is raised before anything is
    deleted. IPv6 is left out because Linux then matches the flows with any other address (ctnetlink_filter_match_tuple
    reads ipv6_addr_cmp as "is equal"; seen in 6.18).
    """
    flags = (FILTER_IP_SRC, 0), (0, FILTER_IP_SRC)
    for address in sources:
        source = attr(NESTED | CTA_TUPLE_IP, attr(CTA_IP_SRC[4], address))
        for direction, (original, reply) in zip((CTA_TUPLE_ORIG, CTA_TUPLE_REPLY), flags):
            wanted = attr_u32(CTA_FILTER_ORIG_FLAGS, original) + attr_u32(CTA_FILTER_REPLY_FLAGS, reply)
            body = attr(NESTED | direction, source) + attr(NESTED | CTA_FILTER, wanted)
            try:
                netlink.ask(DELETE, nfgen(FAMILY[4], version=OF_FAMILY) + body)
            except OSError as error:
                if error.errno in LACKING:
                    raise Unsupported(error.strerror) from None
                raise


def has_source(packed: bytes) -> bytes:
    """What a flow with this source address in either direction contains."""
    return attr(CTA_IP_SRC[4 if len(packed) == 4 else 6], packed)


def has_port(packed: bytes) -> bytes:
    """What a flow to this port in either direction contains."""
    return attr(CTA_PROTO_DST_PORT, packed)


def _flows(netlink: Netlink, version: int, protocol: int, containing: Sequence[bytes]) -> Iterator[Flow]:
    """Lists flows. Kernels before 5.8 ignore the filter and list all protocols."""
    query = nfgen(FAMILY[version])
    if protocol:
        wanted = attr(NESTED | CTA_TUPLE_PROTO, attr(CTA_PROTO_NUM, bytes([protocol])))
        flags = attr_u32(CTA_FILTER_ORIG_FLAGS, FILTER_PROTO_NUM) + attr_u32(CTA_FILTER_REPLY_FLAGS, 0)
        query += attr(NESTED | CTA_TUPLE_ORIG, wanted) + attr(NESTED | CTA_FILTER, flags)
    for payload in netlink.dump(GET, query, containing):
        flow = Flow(version, attributes(payload, 4))
        if not protocol or flow.protocol == protocol:
            yield flow


def _direction(version: int, parts: dict[int, bytes]) -> Direction:
    ip = attributes(parts.get(CTA_TUPLE_IP, b""))
    proto = attributes(parts.get(CTA_TUPLE_PROTO, b""))
    return Direction(
        ip.get(CTA_IP_SRC[version], b""), ip.get(CTA_IP_DST[version], b""), proto.get(CTA_PROTO_DST_PORT, b"")
    )
