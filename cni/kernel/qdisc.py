"""Traffic control messages as bytes: token buckets, the ingress hook, the redirection to another device. Pure.

The tests compare them byte for byte with pyroute2's, as those of `rtnetlink`. Numbers are from the kernel's
include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls}.h and include/uapi/linux/tc_act/tc_mirred.h.
"""

from __future__ import annotations

from sys import byteorder

from cni.kernel.rtnetlink import IFF_UP, IFINFO, IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MTU
from nft.framing import attr, attr_name, attr_u32, attributes, text
from nft.stdlib import Struct
from nft.value import Value

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_GETTFILTER = 44, 46
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6
TCA_U32_CLASSID, TCA_U32_SEL, TCA_U32_ACT = 1, 5, 7
TCA_ACT_KIND, TCA_ACT_OPTIONS = 1, 2
TCA_MIRRED_PARMS = 2
TC_H_ROOT, TC_H_INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
TC_LINKLAYER_ETHERNET, TC_U32_TERMINAL, TC_ACT_STOLEN, TCA_EGRESS_REDIR = 1, 1, 4, 1
HANDLE, INGRESS_HANDLE = 1 << 16, 0xFFFF << 16
ETH_P_ALL = 0x0003
PRIORITY = 28  # after the loopback's guard, because this filter takes everything (`loopback_guard`)
LATENCY = 0.025  # seconds for which a packet waits at most, as in the reference bandwidth plugin

TCMSG = Struct("=BxxxiIII")  # family, index, handle, parent, info
TBF = Struct("=BBHhHI 12x III")  # rate: cell log, link layer, overhead, cell align, mpu, rate; peak; limit, buffer, mtu
_SELECTOR = Struct("=BBBBHHhhI IIii")  # flags, shifts, keys, masks and offsets; one key: mask, value, offset, its mask
_MIRRED = Struct("=IIiiiiI")  # index, capabilities, action, references, bindings, what is done, link
_U64 = Struct("=Q")


class Bucket(Value):
    """A token bucket: its rate in bytes per second, and its burst in bytes."""

    rate: int
    burst: int

    @property
    def limit(self) -> int:
        """The number of bytes that may wait."""
        return min(int(self.rate * LATENCY) + self.burst, 0xFFFFFFFF)


def new_ifb(name: str, mac: bytes, mtu: int) -> bytes:
    kind = attr(IFLA_LINKINFO, attr_name(IFLA_INFO_KIND, "ifb"))
    body = attr_name(IFLA_IFNAME, name) + attr(IFLA_ADDRESS, mac) + attr_u32(IFLA_MTU, mtu)
    return IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP) + body + kind


def token_bucket(index: int, bucket: Bucket) -> bytes:
    """A token bucket at the root of the device. The link layer is named, or the kernel would ask for a table of times
    by packet size."""
    rate = min(bucket.rate, 0xFFFFFFFF)
    parms = TBF.pack(0, TC_LINKLAYER_ETHERNET, 0, 0, 0, rate, bucket.limit, 0, 0)
    options = attr(TCA_TBF_PARMS, parms) + attr_u32(TCA_TBF_BURST, bucket.burst)
    if bucket.rate > 0xFFFFFFFF:
        options += attr(TCA_TBF_RATE64, _U64.pack(bucket.rate))
    return root(index, HANDLE) + attr_name(TCA_KIND, "tbf") + attr(TCA_OPTIONS, options)


def root(index: int, handle: int = 0) -> bytes:
    return TCMSG.pack(0, index, handle, TC_H_ROOT, 0)


def ingress_of(index: int) -> bytes:
    return TCMSG.pack(0, index, INGRESS_HANDLE, TC_H_INGRESS, 0)


def ingress(index: int) -> bytes:
    return ingress_of(index) + attr_name(TCA_KIND, "ingress")


def filters_of(index: int) -> bytes:
    return TCMSG.pack(0, index, 0, INGRESS_HANDLE, 0)


def redirection(index: int, target: int) -> bytes:
    """A filter that sends everything that comes in through `target` first. `u32` matches everything; `matchall` would
    need one module more."""
    protocol = int.from_bytes(ETH_P_ALL.to_bytes(2, "big"), byteorder)
    head = TCMSG.pack(0, index, 0, INGRESS_HANDLE, PRIORITY << 16 | protocol)
    mirred = attr(TCA_MIRRED_PARMS, _MIRRED.pack(0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, target))
    action = attr(1, attr_name(TCA_ACT_KIND, "mirred") + attr(TCA_ACT_OPTIONS, mirred))
    options = attr_u32(TCA_U32_CLASSID, HANDLE | 1)
    options += attr(TCA_U32_SEL, _SELECTOR.pack(TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    options += attr(TCA_U32_ACT, action)
    return head + attr_name(TCA_KIND, "u32") + attr(TCA_OPTIONS, options)


def read_bucket(payload: bytes) -> tuple[int, int] | None:
    """(rate, limit) in bytes of a token bucket, None for another qdisc. The limit includes the burst, which the kernel
    keeps as a time."""
    found = attributes(payload, TCMSG.size)
    if text(found.get(TCA_KIND, b"")) != "tbf":
        return None
    options = attributes(found.get(TCA_OPTIONS, b""))
    fields = TBF.unpack(options[TCA_TBF_PARMS])
    rate64 = options.get(TCA_TBF_RATE64)
    return (_U64.unpack(rate64)[0] if rate64 else fields[5]), fields[6]


def redirects_to(payload: bytes, target: int) -> bool:
    """Whether the filter is a `redirection` to this link."""
    options = attributes(attributes(payload, TCMSG.size).get(TCA_OPTIONS, b""))
    for action in attributes(options.get(TCA_U32_ACT, b"")).values():
        parms = attributes(attributes(action).get(TCA_ACT_OPTIONS, b"")).get(TCA_MIRRED_PARMS, b"")
        if len(parms) >= _MIRRED.size and _MIRRED.unpack_from(parms)[5:] == (TCA_EGRESS_REDIR, target):
            return True
    return False
