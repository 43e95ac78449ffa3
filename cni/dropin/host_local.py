"""The drop-in name `host-local`: leases addresses for somebody else's main plugin, from the same pools as our own.

The record holds only the leases, without links and table elements. `cni.model.choice` picks the addresses.
"""

from __future__ import annotations

from cni.handles import open_handles
from cni.host import Host
from cni.model.attachment import LEASED, Attachment, Lease
from cni.model.choice import choose
from cni.model.ipam import Ipam, parse_ipam
from cni.model.names import derived_mac, identity
from cni.protocol.errors import INVALID_CONFIG, NOT_READY, CniError
from cni.protocol.request import Request
from cni.protocol.results import parse_previous
from cni.protocol.spec import Result, ResultAddress
from cni.recovery import rebuild_one
from cni.state.leases import HeldLeases
from cni.verbs.check import refuse_problems
from cni.verbs.delete import detach
from cni.verbs.status import refuse_exhausted


def add(request: Request) -> Result:
    """The leased addresses. A repeated ADD gets the same ones. Raises CniError 7, 101 and 102."""
    ipam = parse_ipam(request)
    if not ipam.range_sets:
        raise CniError(INVALID_CONFIG, "ipam.ranges: at least one range is needed")
    ident = identity(request.network, request.container, request.ifname)
    with Host(request.data_dir).transaction(f"host-local: ADD for {ident}") as host:
        leases = _lease(host, request, ident, ipam)
    return Result((), tuple(ResultAddress(lease.address, lease.gateway) for lease in leases), ipam.routes, ipam.dns)


def _lease(host: Host, request: Request, ident: str, ipam: Ipam) -> tuple[Lease, ...]:
    before = host.record(ident)
    held = HeldLeases(host.store.claims, request, ipam, scope=request.network)
    held.files.lock()
    leases = choose(ipam, held, before.leases if before else ())
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
        lease_folder=held.files.kept_for(leases),
        kind=LEASED,
        done=True,
    )
    if before is not None and before != item:
        detach(host, before)
    host.store.begin(item)
    held.remember(ipam, leases)
    held.files.remember(leases)
    held.files.unlock()
    return leases


def delete(request: Request) -> None:
    """Frees the leases. Succeeds if there is nothing. It ignores the configuration, which may be invalid by now."""
    ident = identity(request.network, request.container, request.ifname)
    with Host(request.data_dir).transaction(f"host-local: DEL of {ident}") as host:
        item = host.record(ident)
        if item is None and host.store.claims.claimed_by(ident)[0]:  # the table cannot tell of a lost record
            item = rebuild_one(host.handles, ident, f"the record of {ident} is lost")
        if item is not None and not item.kind.own_link:
            detach(host, item)
        if item is None or not item.lease_folder:  # the reference plugin's lease files, or a lost record's
            from cni.predecessor import clean_leases

            clean_leases(request)


def check(request: Request) -> None:
    """Raises CniError 104 unless the container's addresses are leased to it."""
    previous = parse_previous(request)
    ident = identity(request.network, request.container, request.ifname)
    with Host(request.data_dir).transaction(f"host-local: CHECK of {ident}") as host:
        item = host.record(ident)
        problems = ["it has no leases"] if item is None or not item.leases else []
        for lease in item.leases if item else ():
            if lease.address not in previous.addresses:
                problems.append(f"prevResult lacks the address {lease.address}")
        for name in item.leased if item else ():
            if host.store.claims.lease_holder(name) != ident:
                problems.append(f"the address {name} is not leased to it")
    refuse_problems(ident, problems)


def status(request: Request) -> None:
    """Raises CniError 50 for an exhausted pool."""
    ipam = parse_ipam(request)
    if not ipam.range_sets:
        raise CniError(NOT_READY, "ipam.ranges: no range to lease from")
    refuse_exhausted(open_handles(request.data_dir), request, ipam, scope=request.network)
