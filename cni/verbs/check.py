"""CHECK: compares the record with prevResult, and the kernel with the record ("CHECK" of SPEC.md)."""

from __future__ import annotations

from cni.host import Host
from cni.kernel.links import get_link
from cni.kernel.netns import open_netns
from cni.model.attachment import Attachment, Lease
from cni.model.config import parse_network
from cni.model.names import identity
from cni.protocol.errors import CHECK_FAILED, CniError
from cni.protocol.request import Request
from cni.protocol.results import Previous, parse_previous
from cni.verbs.delegate import pass_on
from cni.verbs.drift import closed_problems, container_problems, element_problems, host_problems, table_problems


def check(request: Request) -> None:
    """Raises CniError 104 with every difference in `details`, 7 without prevResult."""
    network = parse_network(request)
    previous = parse_previous(request)
    ident = identity(request.network, request.container, request.ifname)
    netns = open_netns(request.netns)
    with Host(request.data_dir).transaction(f"CHECK of {ident}") as host:
        item = host.record(ident)
        if item is None or not (item.done or item.is_rebuilt):
            raise CniError(CHECK_FAILED, f"{ident} is not attached", "ADD it")
        if item.is_rebuilt:
            item = _with_prefixes(item, previous)
        problems = _against_previous(item, previous, request)
        problems += all_problems(host, item, as_of(item, previous), netns)
    pass_on(request, "CHECK", network.ipam.delegate)
    refuse_problems(ident, problems)


def _with_prefixes(item: Attachment, previous: Previous) -> Attachment:
    """The rebuilt attachment with its prefixes' lengths, which no element tells, from prevResult."""
    told = {prefix.address: prefix for prefix in previous.addresses}
    leases = tuple(lease.replace(address=told.get(lease.address.address, lease.address)) for lease in item.leases)
    return item.replace(leases=leases)


def refuse_problems(ident: str, problems: list[str]) -> None:
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise CniError(CHECK_FAILED, f"{ident}: {problems[0]}{more}", "; ".join(problems))


def all_problems(host: Host, item: Attachment, expected: Attachment, netns: int) -> list[str]:
    """All differences as sentences. `item` is what is ours on the host, `expected` how the container's interface should
    look."""
    problems = table_problems(host)
    if host.table.comment() is not None:
        problems += element_problems(item, host.store.of_container(item), host.table.get)
        problems += closed_problems(host, host.table.get)
    problems += host_problems(host, item)
    port = get_link(host.rtnl, item.link)
    return problems + container_problems(expected, netns, port.index if port else 0)


def as_of(item: Attachment, previous: Previous) -> Attachment:
    """The attachment with what later plugins of the chain changed according to the result: addresses, MAC address,
    MTU."""
    own = {lease.address for lease in item.leases}
    more = tuple(Lease(address) for address in previous.addresses if address not in own)
    mac, mtu = previous.mac or item.mac, previous.mtu if item.mtu else 0
    return item.replace(leases=item.leases + more, mac=mac, mtu=mtu or item.mtu)


def _against_previous(item: Attachment, previous: Previous, request: Request) -> list[str]:
    """The differences from prevResult: it must have all of our addresses, and this namespace."""
    told = set(previous.addresses)
    missing = [lease.address for lease in item.leases if lease.address not in told]
    found = [f"prevResult lacks the address {address} of {request.ifname}" for address in missing]
    if item.sandbox and item.sandbox != request.netns:
        found.append(f"CNI_NETNS is {request.netns}, attached was {item.sandbox}")
    if previous.sandbox and previous.sandbox != request.netns:
        found.append(f"CNI_NETNS is {request.netns}, prevResult says {previous.sandbox}")
    return found
