"""The drop-in name `host-local`: addresses leased for somebody else's main plugin, from the same pools as our own.

The record holds the leases alone, and neither links nor table elements belong to it. What is chosen is `ipam`.
"""

from __future__ import annotations

from .attach import tidy
from .check import refuse_problems
from .config import parse_ipam
from .detach import detach
from .errors import INVALID_CONFIG, NOT_READY, CniError, kernel_refused
from .host import Host
from .ipam import choose
from .leases import HeldLeases, remember
from .names import derived_mac, identity
from .previous import parse_previous
from .record import Attachment
from .request import Request
from .spec import Result, ResultAddress
from .status import refuse_exhausted


def add(request: Request) -> Result:
    """Raises CniError 7, 101 and 102. The same ADD again gets the same addresses."""
    ipam = parse_ipam(request)
    if not ipam.range_sets:
        raise CniError(INVALID_CONFIG, "ipam.ranges: at least one range is needed")
    ident = identity(request.network, request.container, request.ifname)
    host = Host(request.data_dir)
    host.lock()
    try:
        before = host.record(ident)
        leases = choose(ipam, HeldLeases(host.state, request.network, ident), before.leases if before else ())
        item = Attachment(
            network=request.network,
            container=request.container,
            ifname=request.ifname,
            sandbox=request.netns,
            bridge="",
            mac=derived_mac("container", ident),
            leases=leases,
            routes=ipam.routes,
            dns=ipam.dns,
            ip_masq=False,
            isolation=False,
            hairpin=False,
            own_link=False,
            done=True,
        )
        if before is not None and before != item:
            detach(host, before)
        host.state.begin(item)
        remember(host.state, request.network, ipam, leases)
    except OSError as error:
        tidy(host)
        raise kernel_refused(f"host-local: ADD for {ident}", error) from None
    return Result((), tuple(ResultAddress(lease.address, lease.gateway) for lease in leases), ipam.routes, ipam.dns)


def delete(request: Request) -> None:
    """Nothing there is success; a configuration that is not valid any more is not looked at."""
    ident = identity(request.network, request.container, request.ifname)
    host = Host(request.data_dir)
    host.lock()
    try:
        item = host.record(ident)
        if item is not None and not item.own_link:
            detach(host, item)
    except OSError as error:
        raise kernel_refused(f"host-local: DEL of {ident}", error) from None


def check(request: Request) -> None:
    """Raises CniError 104 where the container's addresses are not leased to it."""
    previous = parse_previous(request)
    ident = identity(request.network, request.container, request.ifname)
    host = Host(request.data_dir)
    host.lock()
    item = host.state.load(ident) if host.state.exists() else None
    problems = ["it has no leases"] if item is None or not item.leases else []
    for lease in item.leases if item else ():
        if lease.address not in previous.addresses:
            problems.append(f"prevResult lacks the address {lease.address}")
        if host.state.lease_holder(lease.address.address) != ident:
            problems.append(f"the address {lease.address} is not leased to it")
    refuse_problems(ident, problems)


def status(request: Request) -> None:
    """Raises CniError 50 for an exhausted pool."""
    ipam = parse_ipam(request)
    if not ipam.range_sets:
        raise CniError(NOT_READY, "ipam.ranges: no range to lease from")
    host = Host(request.data_dir)
    refuse_exhausted(host, request, ipam)
