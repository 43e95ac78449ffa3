"""An attachment's rates in the kernel: token buckets for both directions, as the reference bandwidth plugin makes them.

Packets to the container wait in a bucket on the host end. Packets from it are redirected to a separate device (ifb) and
wait there, because only outgoing packets have a queue. `qdisc` makes the bytes, `cni.model.wire` parses the rates.
"""

from __future__ import annotations

import errno

from cni.kernel import qdisc, rtnetlink, sysctl
from cni.kernel.links import Link, get_link
from cni.model.attachment import Attachment
from cni.model.names import derived_mac, shaper_link
from cni.model.wire import Wire
from cni.protocol.errors import UNSUPPORTED_FIELD, CniError, kernel_refused
from nft.framing import NLM_F_CREATE, NLM_F_ECHO, NLM_F_REPLACE
from nft.netlink import Netlink, is_missing

SET = NLM_F_CREATE | NLM_F_REPLACE


def bucket_in(wire: Wire) -> qdisc.Bucket | None:
    return qdisc.Bucket(wire.rate_in // 8, wire.burst_in // 8) if wire.rate_in else None


def bucket_out(wire: Wire) -> qdisc.Bucket | None:
    return qdisc.Bucket(wire.rate_out // 8, wire.burst_out // 8) if wire.rate_out else None


def shape(rtnl: Netlink, item: Attachment, port: Link) -> None:
    """Sets the rates that the record asks for; `port` is the host end. May be repeated. Raises CniError 2 and 5."""
    name = shaper_link(item.ident)
    try:
        towards, away = bucket_in(item.wire), bucket_out(item.wire)
        if towards is not None:
            rtnl.ask(qdisc.RTM_NEWQDISC, qdisc.token_bucket(port.index, towards), SET)
        if away is not None:
            device = _device(rtnl, name, derived_mac("shaper", item.ident), port.mtu)
            rtnl.ask(qdisc.RTM_NEWQDISC, qdisc.token_bucket(device.index, away), SET)
            _delete_queue(rtnl, qdisc.ingress_of(port.index))  # with a filter of an earlier call
            rtnl.ask(qdisc.RTM_NEWQDISC, qdisc.ingress(port.index), rtnetlink.CREATE)
            rtnl.ask(qdisc.RTM_NEWTFILTER, qdisc.redirection(port.index, device.index), rtnetlink.CREATE)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
            what = "bandwidth: this kernel lacks sch_tbf, sch_ingress, cls_u32, act_mirred or ifb"
            raise CniError(UNSUPPORTED_FIELD, f"{what} ({error.strerror})", "load those modules") from None
        raise kernel_refused(f"limiting the rates of {item.link}", error) from None


def _device(rtnl: Netlink, name: str, mac: bytes, mtu: int) -> Link:
    """The ifb device of that name, made if it is missing, and up."""
    try:
        rtnl.ask(rtnetlink.RTM_NEWLINK, qdisc.new_ifb(name, mac, mtu), rtnetlink.CREATE)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
    device = get_link(rtnl, name)
    if device is None:
        raise OSError(errno.ENODEV, f"the device {name} is gone")
    sysctl.disable_ipv6(name)
    if not device.up:
        rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.set_up(device.index))
    return device


def unshape(rtnl: Netlink, port: Link) -> None:
    """Removes the token bucket and the redirection from the host end. The ifb device goes with the attachment's
    links."""
    for payload in (qdisc.root(port.index), qdisc.ingress_of(port.index)):
        _delete_queue(rtnl, payload)


def _delete_queue(rtnl: Netlink, payload: bytes) -> None:
    try:
        rtnl.ask(qdisc.RTM_DELQDISC, payload)
    except OSError as error:
        # EINVAL: there is no ingress hook (tc_get_qdisc)
        if error.errno != errno.EINVAL and not is_missing(error):
            raise


def rates_on(rtnl: Netlink, ident: str, port: Link | None) -> Wire:
    """The rates that the kernel has for an attachment whose record is lost."""
    device = get_link(rtnl, shaper_link(ident))
    towards, away = (_held(rtnl, link.index) if link is not None else None for link in (port, device))
    rate_in, burst_in = _bits(towards)
    rate_out, burst_out = _bits(away)
    return Wire(rate_in=rate_in, burst_in=burst_in, rate_out=rate_out, burst_out=burst_out)


def _bits(held: tuple[int, int] | None) -> tuple[int, int]:
    """(rate, burst) in the configuration's units: bits per second, and bits."""
    if held is None:
        return 0, 0
    rate, limit = held
    return 8 * rate, 8 * (limit - int(rate * qdisc.LATENCY))


def _held(rtnl: Netlink, index: int) -> tuple[int, int] | None:
    """(rate, limit) of the token bucket at the link's root, None for another queue."""
    try:
        return qdisc.read_bucket(rtnl.ask(qdisc.RTM_GETQDISC, qdisc.root(index), NLM_F_ECHO))
    except OSError as error:
        if not is_missing(error):
            raise
        return None


def shaping_problems(rtnl: Netlink, item: Attachment, port: Link) -> list[str]:
    """The differences from the record, as sentences."""
    found = []
    towards, away = bucket_in(item.wire), bucket_out(item.wire)
    if towards is not None:
        found += _bucket_problems(rtnl, item.link, port.index, towards)
    if away is not None:
        name = shaper_link(item.ident)
        device = get_link(rtnl, name)
        if device is None:
            return [*found, f"the device {name}, which limits what {item.link} takes in, is missing"]
        if not device.up:
            found.append(f"the device {name} is down")
        found += _bucket_problems(rtnl, name, device.index, away)
        filters = rtnl.dump(qdisc.RTM_GETTFILTER, qdisc.filters_of(port.index))
        if not any(qdisc.redirects_to(payload, device.index) for payload in filters):
            found.append(f"what {item.link} takes in is not redirected to {name}")
    return found


def _bucket_problems(rtnl: Netlink, name: str, index: int, wanted: qdisc.Bucket) -> list[str]:
    held = _held(rtnl, index)
    if held is None:
        return [f"the rate of {name} is not limited"]
    if held != (wanted.rate, wanted.limit):
        return [f"{name} lets {held[0]} bytes/s pass and {held[1]} wait, not {wanted.rate} and {wanted.limit}"]
    return []
