"""The guard of the host's 127.0.0.0/8 that needs no table: a filter where a container's packets come in.

With route_localnet a bridge hears packets to 127.0.0.1. The table drops them (`nft.ruleset`); this does while somebody
has flushed the table. It is at the port and not at the bridge, because with br_netfilter the answers for 127.0.0.1 are
translated in between. A classic BPF program takes one module, cls_bpf, and no compiler. The table is alone where the
kernel lacks that, and against other machines on an adopted bridge. Where a container's egress rate is limited it stands
before the filter that takes everything (`shaping`), in the queue that this one has made.

Numbers are from include/uapi/linux/{pkt_sched,pkt_cls,filter}.h. Some of them stand in `qdisc` as well, whose other
messages an ADD with published ports would load for nothing.
"""

from __future__ import annotations

from sys import byteorder

from cni.kernel.links import get_link
from cni.kernel.rtnetlink import CREATE
from nft.framing import attr, attr_name, attr_u32
from nft.netlink import Netlink
from nft.stdlib import Struct

RTM_NEWQDISC, RTM_NEWTFILTER = 36, 44
TCMSG = Struct("=BxxxiIII")  # family, index, handle, parent, info
CLSACT_HANDLE, TC_H_CLSACT, INGRESS = 0xFFFF0000, 0xFFFFFFF1, 0xFFFFFFF2
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_BPF_OPS_LEN, TCA_BPF_OPS, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT = 4, 5, 8, 1
ETH_P_IP = 0x0800
PRIORITY = 27  # nobody's, as far as we know: filters of one priority have to be of one kind
_OPERATION = Struct("=HBBI")  # code, jump if true, if false, operand
_U16 = Struct("=H")
LOAD_BYTE, JUMP_IF_EQUAL, RETURN = 0x30, 0x15, 0x06
UNSPEC, SHOT = 0xFFFFFFFF, 2  # TC_ACT_*: on to the next filter, and dropped
SOURCE, TARGET = 14 + 12, 14 + 16  # where the addresses begin in an Ethernet frame
PROGRAM = (
    (LOAD_BYTE, 0, 0, TARGET),
    (JUMP_IF_EQUAL, 3, 0, 127),
    (LOAD_BYTE, 0, 0, SOURCE),
    (JUMP_IF_EQUAL, 1, 0, 127),
    (RETURN, 0, 0, UNSPEC),
    (RETURN, 0, 0, SHOT),
)


def guard(rtnl: Netlink, name: str) -> None:
    """Of a host end, with which it goes. May be repeated."""
    link = get_link(rtnl, name)
    if link is not None:
        hook = TCMSG.pack(0, link.index, CLSACT_HANDLE, TC_H_CLSACT, 0)
        _try(rtnl, RTM_NEWQDISC, hook + attr_name(TCA_KIND, "clsact"))
        _try(rtnl, RTM_NEWTFILTER, _filter(link.index))


def _filter(index: int) -> bytes:
    protocol = int.from_bytes(ETH_P_IP.to_bytes(2, "big"), byteorder)
    code = b"".join(_OPERATION.pack(*operation) for operation in PROGRAM)
    options = attr(TCA_BPF_OPS_LEN, _U16.pack(len(PROGRAM))) + attr(TCA_BPF_OPS, code)
    options += attr_u32(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT)
    head = TCMSG.pack(0, index, 1, INGRESS, PRIORITY << 16 | protocol)
    return head + attr_name(TCA_KIND, "bpf") + attr(TCA_OPTIONS, options)


def _try(rtnl: Netlink, kind: int, payload: bytes) -> None:
    """It is the second guard: there already or not in this kernel is no reason to refuse a container."""
    try:
        rtnl.ask(kind, payload, CREATE)
    except OSError:
        return
