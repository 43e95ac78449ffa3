"""STATUS: whether an ADD could succeed now, and whether attached containers are served. It is called every few seconds,
so it must be cheap.

A host that never had our table is ready: the first ADD makes it.
"""

from __future__ import annotations

from cni.handles import Handles, open_handles
from cni.kernel import sysctl
from cni.model.attachment import ISOLATED
from cni.model.choice import gateways_of, next_free
from cni.model.config import parse_network
from cni.model.ipam import Ipam
from cni.protocol.errors import NOT_READY, NOT_READY_DEGRADED, TRY_AGAIN_LATER, CniError, kernel_refused
from cni.protocol.request import Request
from cni.state.leases import HeldLeases
from cni.verbs.delegate import pass_on, with_lease
from nft.foreign import forward_drops
from nft.lacking import lacking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nft.addresses import Prefix

FAMILIES = {4: "ip", 6: "ip6"}  # nftables' names


def status(request: Request) -> None:
    """Raises CniError 50 if no container could be attached, 51 if attached ones are cut off as well."""
    try:
        network = parse_network(with_lease(request))
    except CniError as error:
        raise (CniError(NOT_READY, error.msg, error.details) if error.code == TRY_AGAIN_LATER else error) from None
    handles = open_handles(request.data_dir)
    versions = {ranges[0].subnet.version for ranges in network.ipam.range_sets}
    refuse_unable(handles, request, versions)
    if network.fast_path:
        from cni.fastpath import refuse_lacking

        refuse_lacking(handles, NOT_READY)
    modes = {4: network.mode4, 6: network.mode6}
    forwarded = {version for version in versions if network.is_gateway and modes[version] != ISOLATED}
    subnets = None if network.zone else [one.subnet for ranges in network.ipam.range_sets for one in ranges]
    _refuse_unserved(handles, request, forwarded, network.bridge, subnets)
    refuse_exhausted(handles, request, network.ipam)
    pass_on(request, "STATUS")


def refuse_unable(handles: Handles, request: Request, versions: set[int]) -> None:
    """Raises CniError 50 for what would stop the first ADD: IPv6 that is off until the next boot, and missing kernel
    modules. Once there is a table, the modules exist."""
    if 6 in versions and not sysctl.exists("ipv6/conf"):
        raise CniError(
            NOT_READY,
            "ipam.ranges: the network has IPv6 addresses, and this kernel runs without IPv6",
            "boot without ipv6.disable=1, or take the IPv6 range out",
        )
    try:
        missing = [] if handles.table.comment() is not None else lacking(handles.table.netlink)
    except OSError as error:
        raise kernel_refused(f"STATUS of {request.network}", error) from None
    if missing:
        raise CniError(
            NOT_READY,
            f"this kernel lacks what the table is made of: {', '.join(missing)}",
            "install the kernel's package of extra modules, or build them",
        )


def chained_status(request: Request) -> None:
    """STATUS for `portmap` and `firewall`, which have no pool. Raises CniError 51."""
    _refuse_unserved(open_handles(request.data_dir), request, {4}, "", None)


def _refuse_unserved(
    handles: Handles, request: Request, versions: set[int], bridge: str, subnets: list[Prefix] | None
) -> None:
    """Raises CniError 51 if containers are not served. `versions` are the IP versions that the network needs forwarded;
    `bridge` will carry its first container. Without `subnets`, a chain's last rule is ignored: published ports pass
    firewalld's last rule, and so does whoever is in a zone."""
    if not handles.table_serves:
        _refuse_old_nft()
    families = {FAMILIES[version] for version in versions} | ({"inet"} if versions else set())
    try:
        degraded = _degraded(handles, request, versions)
        bridges = handles.store.bridges.names() or [bridge]
        dropping = [
            chain for chain in forward_drops(handles.table.netlink, bridges, subnets) if chain.split()[0] in families
        ]
    except OSError as error:
        raise kernel_refused(f"STATUS of {request.network}", error) from None
    if degraded:
        raise CniError(NOT_READY_DEGRADED, degraded[0], "; ".join(degraded))
    if dropping:
        raise CniError(
            NOT_READY_DEGRADED,
            f"what no rule accepts is dropped on forward by {', '.join(dropping)}, which no other table can overrule",
            "nftcni doctor says how to let containers through",
        )


def _refuse_old_nft() -> None:
    """Raises CniError 50 for an nft that cannot load the table; called only while there is no table."""
    from nft.errors import LoadError
    from nft.version import refuse_old

    try:
        refuse_old()
    except LoadError as problem:
        raise CniError(NOT_READY, str(problem), problem.hint) from None


def _degraded(handles: Handles, request: Request, versions: set[int]) -> list[str]:
    """What is wrong for attached containers, as sentences. Only then the lock is taken and it is looked at again: an
    ADD at work, such as the first one of a boot, has a record before there is a table, and looks the same."""
    if not handles.store.lock.has_folder() or not handles.store.has_records() or not _differences(handles, versions):
        return []
    from cni.host import Host

    with Host(request.data_dir).transaction("STATUS") as host:
        return _differences(host.handles, versions) if _is_anybody_attached(host.handles) else []


def _is_anybody_attached(handles: Handles) -> bool:
    """Whether a container is attached. One that waits for a foreign IPAM plugin, or is left from a killed ADD, does not
    count."""
    from cni.kernel.links import get_link

    for ident in handles.store.identities():
        item = handles.store.peek(ident)
        if item is None or item.done:
            return True
        if item.in_table and (not item.kind.own_link or get_link(handles.rtnl, item.link) is not None):
            return True
    return False


def _differences(handles: Handles, versions: set[int]) -> list[str]:
    found = []
    if not handles.table_serves:
        what = "table inet nftcni is missing, or of an earlier boot,"
        found.append(f"{what} although containers are attached: run nftcni repair")
    elif not handles.rules_are_ours():
        found.append("the rules of table inet nftcni are not those that nftcni loaded: run nftcni repair")
    for version, key in sysctl.FORWARDING.items():
        if version in versions and sysctl.read(key) == "0" and _is_needed(handles, key):
            found.append(f"forwarding is off: net/{key} is 0 although containers are attached: run nftcni repair")
    return found


def _is_needed(handles: Handles, key: str) -> bool:
    """Whether any attached container needs this forwarding sysctl; one on a bridge with another router, for example,
    does not. Asked only if the sysctl is off, and only up to the first container that needs it."""
    from cni.forwarding import host_sysctls

    items = (handles.store.peek(ident) for ident in handles.store.identities())
    return any((key, "1") in host_sysctls(item) for item in items if item is not None)


def refuse_exhausted(handles: Handles, request: Request, ipam: Ipam, scope: str = "") -> None:
    """Raises CniError 50 if there is no address that the next ADD could get."""
    leases = HeldLeases(handles.store.claims, request, ipam, scope=scope)
    gateways = gateways_of(ipam)
    for index in range(len(ipam.range_sets)):
        try:
            next_free(ipam, index, leases, gateways)
        except CniError as error:
            raise CniError(NOT_READY, error.msg, error.details) from None
