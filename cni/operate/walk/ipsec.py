"""The kernel's IPsec policies (`ip xfrm policy`): which one decides about a packet, and whether it blocks it.

No chain sees that: policies decide beside the rules of firewalls. A packet that a policy encrypts is not followed,
because the tunnel's other end is another host. Numbers are from include/uapi/linux/xfrm.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from sys import byteorder

from cni.operate.walk.packet import NUMBERS, Packet
from cni.operate.walk.step import Step, stop
from nft.addresses import VERSION, Prefix, from_packed
from nft.errors import KernelError
from nft.framing import attributes
from nft.netlink import Netlink

NETLINK_XFRM = 6
XFRM_MSG_GETPOLICY, XFRM_MSG_GETDEFAULT = 0x15, 0x28
XFRMA_MARK, XFRMA_IF_ID = 21, 31
BLOCK = 1  # both XFRM_POLICY_BLOCK and XFRM_USERPOLICY_BLOCK
IN, OUT, FWD = "in", "out", "fwd"
DIRECTIONS = (IN, OUT, FWD)
_DEFAULTS = (IN, FWD, OUT)  # the order of struct xfrm_userpolicy_default
_SELECTOR = Struct("=16s16s2s2s2s2sHBBBxxxII")  # ports and their masks are in the network's order
_REST = Struct("=96xIIBBBB")  # the end of struct xfrm_userpolicy_info, after limits and counters
_MARK = Struct("=II")


@dataclass(frozen=True)
class Policy:
    """An IPsec policy. `index` 0 is the default for packets without a policy. Ports and marks are (value, mask)."""

    direction: str
    blocks: bool
    priority: int = 0
    index: int = 0
    source: Prefix | None = None
    destination: Prefix | None = None
    proto: int = 0
    sport: tuple[int, int] = (0, 0)
    dport: tuple[int, int] = (0, 0)
    mark: tuple[int, int] = (0, 0)
    if_id: int = 0
    link: int = 0

    def takes(self, packet: Packet) -> bool:
        """Whether the policy applies to the packet. One of a link or an xfrm interface never does, because only the
        kernel knows where it counts."""
        if self.source is None or self.destination is None:
            return True
        return (
            not self.if_id
            and not self.link
            and packet.saddr in self.source
            and packet.daddr in self.destination
            and self.proto in (0, NUMBERS.get(packet.proto))
            and not (packet.sport ^ self.sport[0]) & self.sport[1]
            and not (packet.dport ^ self.dport[0]) & self.dport[1]
            and ((packet.mark or 0) & self.mark[1]) == self.mark[0]
        )

    def __str__(self) -> str:
        if not self.index:
            return f"the default for dir {self.direction}, block"
        return f"src {self.source} dst {self.destination} dir {self.direction} action block priority {self.priority}"

    @property
    def remedy(self) -> str:
        """The command that takes the policy away."""
        if not self.index:
            return f"ip xfrm policy setdefault {self.direction} accept"
        value, mask = self.mark
        mark = f" mark {hex(value)} mask {hex(mask)}" if mask else ""
        return f"ip xfrm policy delete dir {self.direction} index {self.index}{mark}"


def read_policies() -> list[Policy]:
    """The policies of this thread's namespace, in the order in which the kernel asks them; [] without IPsec."""
    try:
        netlink = Netlink(NETLINK_XFRM)
    except OSError:
        return []
    try:
        found = [_policy(payload) for payload in netlink.dump(XFRM_MSG_GETPOLICY, b"")]
        return [*sorted(filter(None, found), key=lambda one: one.priority), *_defaults(netlink)]
    except KernelError:
        return []
    finally:
        netlink.close()


def _policy(payload: bytes) -> Policy | None:
    """A policy from its message, None for a socket's policy."""
    daddr, saddr, *ports, family, to, source, proto, link, _user = _SELECTOR.unpack_from(payload)
    priority, index, direction, action, _flags, _share = _REST.unpack_from(payload, _SELECTOR.size)
    if direction >= len(DIRECTIONS) or family not in VERSION:
        return None
    found = attributes(payload, -(-(_SELECTOR.size + _REST.size) // 8) * 8)
    size = 4 if VERSION[family] == 4 else 16
    dport, dmask, sport, smask = (int.from_bytes(word, "big") for word in ports)
    return Policy(
        DIRECTIONS[direction],
        action == BLOCK,
        priority,
        index,
        Prefix(from_packed(saddr[:size]), source),
        Prefix(from_packed(daddr[:size]), to),
        proto,
        (sport, smask),
        (dport, dmask),
        _MARK.unpack_from(found[XFRMA_MARK]) if XFRMA_MARK in found else (0, 0),
        int.from_bytes(found[XFRMA_IF_ID], byteorder) if XFRMA_IF_ID in found else 0,
        link,
    )


def _defaults(netlink: Netlink) -> list[Policy]:
    """The defaults, which Linux has since 5.15."""
    try:
        answer = netlink.ask(XFRM_MSG_GETDEFAULT, bytes(len(_DEFAULTS)))
    except KernelError:
        return []
    return [Policy(name, True) for name, value in zip(_DEFAULTS, answer) if value == BLOCK]


def blocked(policies: list[Policy], direction: str, packet: Packet) -> list[Step]:
    """A step if a policy blocks the packet. The first matching one decides (xfrm_policy_lookup_bytype)."""
    first = next((one for one in policies if one.direction == direction and one.takes(packet)), None)
    if first is None or not first.blocks:
        return []
    what = f"an IPsec policy blocks packets from {packet.saddr} to {packet.daddr}: {first}"
    return [stop("ipsec", what, "no chain sees it; `ip xfrm policy` lists them", first.remedy)]
