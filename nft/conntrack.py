"""Forgetting connections that the connection tracker would go on sending the old way.

One pass over the kernel's table. Which connections are meant, the caller decides flow by flow.
Numbers are from include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno

from .addresses import FAMILY
from .framing import NLA_F_NESTED as NESTED
from .framing import attr, attr_u32, attributes
from .messages import nfgen
from .netlink import NETLINK_NETFILTER, Netlink, is_missing
from .value import Value

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
# Of a kernel without ctnetlink: nfnetlink_rcv_msg has EINVAL for a subsystem that is not there.
LACKING = (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)


class Direction(Value):
    """One direction of a flow, as the kernel's own bytes."""

    source: bytes
    target: bytes
    port: bytes


class Unsupported(Exception):
    """This kernel does not list connections."""


def forget_udp_flows(versions: set[int], doomed: Callable[[int, Direction, Callable[[], Direction]], bool]) -> int:
    """Deletes every UDP flow of these IP versions for which `doomed(version, original, reply)` holds; `reply()` is
    decoded when it is asked for. Returns how many. Raises OSError, and Unsupported."""
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
        if error.errno in LACKING:
            raise Unsupported(error.strerror) from None
        raise
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
