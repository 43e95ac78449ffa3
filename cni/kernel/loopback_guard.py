"""A guard of the host's 127.0.0.0/8 that works without the table: ingress filters on links.

With route_localnet, a bridge accepts packets to 127.0.0.1. The table drops them (`nft.ruleset`); this guard drops them
while somebody has flushed the table. A container's port drops all of them. If the container's egress rate is limited,
the filter comes before the one that redirects everything (`shaping`), in the queue that `shaping` made.

An adopted bridge also has other people's ports, so it gets one more filter on the bridge itself, which everything for
the host passes. With br_netfilter, so do answers to the host's 127.0.0.1, which are already translated back there. The
program cannot see the connection tracker, so it passes what comes from a container that may answer and does not begin a
TCP connection: a neighbour that takes over such an address reaches UDP and no more.

A frame may have tags of VLAN 0, which the kernel strips after these filters, so they look at all protocols. One tag has
been stripped by then, and nobody has an honest reason for a second one of VLAN 0.

A classic BPF program needs one module, cls_bpf, and no compiler. On a kernel without it the table is the only guard.

Numbers are from include/uapi/linux/{pkt_sched,pkt_cls,filter}.h. `qdisc` repeats some of them; an ADD with published
ports does not load that file.
"""

from __future__ import annotations

import errno
from sys import byteorder

from cni.kernel.links import get_link
from cni.kernel.rtnetlink import CREATE
from nft.addresses import Address
from nft.errors import KernelError
from nft.framing import NLM_F_CREATE, NLM_F_ECHO, NLM_F_REPLACE, attr, attr_name, attr_u32, attributes
from nft.netlink import Netlink
from nft.stdlib import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.kernel.links import Link

    Program = tuple[tuple[int, int, int, int], ...]

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC, RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 36, 37, 38, 44, 45, 46
TCMSG = Struct("=BxxxiIII")  # family, index, handle, parent, info
CLSACT_HANDLE, TC_H_CLSACT, INGRESS, EGRESS = 0xFFFF0000, 0xFFFFFFF1, 0xFFFFFFF2, 0xFFFFFFF3
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_BPF_OPS_LEN, TCA_BPF_OPS, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT = 4, 5, 8, 1
ETH_P_ALL, ETH_P_IP, ETH_P_8021Q, ETH_P_8021AD = 0x0003, 0x0800, 0x8100, 0x88A8
# No other program is known to use it: all filters of one priority must be of one kind. An earlier version used 27.
PRIORITY = 26
_OPERATION = Struct("=HBBI")  # code, jump if true, if false, operand
_U16 = Struct("=H")
LOAD_WORD, LOAD_HALF, LOAD_BYTE, LOAD_FROM_HEADER = 0x20, 0x28, 0x30, 0x50
HEADER_LENGTH, JUMP_IF_EQUAL, JUMP_IF_ANY, RETURN = 0xB1, 0x15, 0x45, 0x06
UNSPEC, SHOT = 0xFFFFFFFF, 2  # TC_ACT_*: try the next filter; drop
ETHERNET = 14
FRAGMENT, PROTOCOL, SOURCE, TARGET = ETHERNET + 6, ETHERNET + 9, ETHERNET + 12, ETHERNET + 16
MORE_OR_OFFSET, TCP, TCP_FLAGS, ACK_OR_RST = 0x3FFF, 6, ETHERNET + 13, 0x14
VLAN_ID, KERNELS_PROTOCOL, KERNELS_TAG = 0x0FFF, 0xFFFFF000, 0xFFFFF000 + 44  # SKF_AD_*: stripped from the frame
PASS, DROP = (RETURN, 0, 0, UNSPEC), (RETURN, 0, 0, SHOT)
IPV4: Program = (
    (LOAD_HALF, 0, 0, KERNELS_PROTOCOL),
    (JUMP_IF_EQUAL, 8, 0, ETH_P_IP),
    (JUMP_IF_EQUAL, 1, 0, ETH_P_8021Q),
    (JUMP_IF_EQUAL, 0, 4, ETH_P_8021AD),
    (LOAD_WORD, 0, 0, KERNELS_TAG),
    (JUMP_IF_ANY, 2, 0, VLAN_ID),
    (LOAD_HALF, 0, 0, ETHERNET),
    (JUMP_IF_ANY, 0, 1, VLAN_ID),
    PASS,
    DROP,
)
NOBODY: Program = (
    *IPV4,
    (LOAD_BYTE, 0, 0, TARGET),
    (JUMP_IF_EQUAL, 3, 0, 127),
    (LOAD_BYTE, 0, 0, SOURCE),
    (JUMP_IF_EQUAL, 1, 0, 127),
    PASS,
    DROP,
)
MOST = 2000  # addresses; the kernel allows 4096 instructions (BPF_MAXINSNS)


def answers_of(addresses: Iterable[Address]) -> Program:
    """A program that passes answers of these addresses to 127.0.0.0/8 and drops everything else from or to there. With
    more than MOST addresses it passes anybody's answers."""
    sources = sorted({address.number for address in addresses})
    steps: list[tuple[int, int, int, int]] = [
        *IPV4,
        *((LOAD_BYTE, 0, 0, SOURCE), (JUMP_IF_EQUAL, 0, 1, 127), DROP),
        *((LOAD_BYTE, 0, 0, TARGET), (JUMP_IF_EQUAL, 1, 0, 127), PASS),
        *((LOAD_HALF, 0, 0, FRAGMENT), (JUMP_IF_ANY, 0, 1, MORE_OR_OFFSET), DROP),
        *((LOAD_BYTE, 0, 0, PROTOCOL), (JUMP_IF_EQUAL, 0, 4, TCP)),
        *((HEADER_LENGTH, 0, 0, ETHERNET), (LOAD_FROM_HEADER, 0, 0, TCP_FLAGS), (JUMP_IF_ANY, 1, 0, ACK_OR_RST), DROP),
        (LOAD_WORD, 0, 0, SOURCE),
    ]
    for number in sources if len(sources) <= MOST else ():
        steps += [(JUMP_IF_EQUAL, 0, 1, number), PASS]
    return (*steps, DROP if len(sources) <= MOST else PASS)


def guard(rtnl: Netlink, name: str, program: Program = NOBODY, hooked: bool = False) -> bool:
    """Puts a guard on a link, and makes the ingress queue if there is none; `hooked` says that there should be one. The
    guard goes with the link. Returns whether it is there now. May be repeated. Raises OSError."""
    link = get_link(rtnl, name)
    if link is None:
        return False
    wanted = RTM_NEWTFILTER, _filter(link.index, program), NLM_F_CREATE | NLM_F_REPLACE
    if hooked and _try(rtnl, *wanted):
        return True
    # If a queue is there already, ours or somebody else's, the filter goes into it.
    _try(rtnl, RTM_NEWQDISC, _hook(link.index) + attr_name(TCA_KIND, "clsact"), CREATE)
    return _try(rtnl, *wanted)


def is_guarded(rtnl: Netlink, link: Link, program: Program = NOBODY) -> bool:
    """Whether the link is guarded by this very program."""
    return _held(rtnl, link.index) == _code(program)


def has_guard(rtnl: Netlink, name: str) -> bool:
    link = get_link(rtnl, name)
    return link is not None and _held(rtnl, link.index) is not None


def _held(rtnl: Netlink, index: int) -> bytes | None:
    try:
        found = rtnl.ask(RTM_GETTFILTER, _place(index), NLM_F_ECHO)
    except KernelError:
        return None
    return attributes(attributes(found, TCMSG.size).get(TCA_OPTIONS, b"")).get(TCA_BPF_OPS)


def has_hook(rtnl: Netlink, name: str) -> bool:
    """Whether the link has an ingress queue."""
    link = get_link(rtnl, name)
    try:
        # The answer is empty for a queue that was removed (tc_qdisc_dump_ignore).
        return link is not None and bool(rtnl.ask(RTM_GETQDISC, _hook(link.index), NLM_F_ECHO))
    except KernelError:
        return False


def release(rtnl: Netlink, name: str, with_hook: bool) -> None:
    """Removes the filter, and the queue unless somebody has put something into it since. May be repeated."""
    link = get_link(rtnl, name)
    if link is None:
        return
    _try(rtnl, RTM_DELTFILTER, _place(link.index), 0)
    if with_hook and not any(
        rtnl.dump(RTM_GETTFILTER, TCMSG.pack(0, link.index, 0, side, 0)) for side in (INGRESS, EGRESS)
    ):
        _try(rtnl, RTM_DELQDISC, _hook(link.index), 0)


def _hook(index: int) -> bytes:
    return TCMSG.pack(0, index, CLSACT_HANDLE, TC_H_CLSACT, 0)


def _place(index: int) -> bytes:
    protocol = int.from_bytes(ETH_P_ALL.to_bytes(2, "big"), byteorder)
    return TCMSG.pack(0, index, 1, INGRESS, PRIORITY << 16 | protocol) + attr_name(TCA_KIND, "bpf")


def _code(program: Program) -> bytes:
    return b"".join(_OPERATION.pack(*operation) for operation in program)


def _filter(index: int, program: Program) -> bytes:
    options = attr(TCA_BPF_OPS_LEN, _U16.pack(len(program))) + attr(TCA_BPF_OPS, _code(program))
    options += attr_u32(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT)
    return _place(index) + attr(TCA_OPTIONS, options)


def _try(rtnl: Netlink, kind: int, payload: bytes, flags: int) -> bool:
    """Makes the request. Returns False if the guard exists already or this kernel lacks it: it is only the second
    guard, so the container is not refused. Raises other errors."""
    try:
        rtnl.ask(kind, payload, flags)
    except KernelError as error:
        if error.errno in (errno.ENOMEM, errno.ENOBUFS):
            raise
        return False
    return True
