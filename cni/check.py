"""CHECK: the record against prevResult, and the kernel against the record ("CHECK" of SPEC.md)."""

from __future__ import annotations

from .compare import container_problems, element_problems, host_problems, table_problems
from .config import parse_network
from .errors import CHECK_FAILED, INVALID_CONFIG, CniError, kernel_refused
from .fields import Fields
from .host import Host
from .ip import parse_prefix
from .links import get_link
from .names import identity
from .netns import open_netns
from .record import Attachment
from .request import Request


def check(request: Request) -> None:
    """Raises CniError 104 with every difference in `details`, 7 without prevResult."""
    network = parse_network(request)
    fields = Fields(request.document)
    if not fields.has("prevResult"):
        raise CniError(INVALID_CONFIG, "prevResult: CHECK needs the result of ADD")
    previous = _previous_addresses(fields)
    ident = identity(request.network, request.container, request.ifname)
    netns = open_netns(request.netns)
    host = Host(request.data_dir)
    host.lock()
    try:
        item = host.state.load(ident) if host.state.exists() else None
        if item is None or not item.done:
            raise CniError(CHECK_FAILED, f"{ident} is not attached", "ADD it")
        problems = _against_previous(item, previous, request) + all_problems(host, item, netns)
    except OSError as error:
        raise kernel_refused(f"CHECK of {ident}", error) from None
    host.state.unlock()
    if network.ipam.delegate:
        from .delegate import run_delegate

        run_delegate(request, network.ipam.delegate, "CHECK")
    if problems:
        raise CniError(CHECK_FAILED, f"{ident}: {problems[0]}" + _more(problems), "; ".join(problems))


def _more(problems: list[str]) -> str:
    return f", and {len(problems) - 1} more" if len(problems) > 1 else ""


def all_problems(host: Host, item: Attachment, netns: int) -> list[str]:
    problems = table_problems(host)
    if host.table.comment() is not None:
        problems += element_problems(host, item)
    problems += host_problems(host, item)
    port = get_link(host.rtnl, item.link)
    return problems + container_problems(item, netns, port.index if port else 0)


def _previous_addresses(fields: Fields) -> set[str]:
    """Addresses in prevResult, in any version's shape. Raises CniError code 7 for one that is no result."""
    previous = fields.section("prevResult")
    found = set()
    for entry in previous.sections("ips"):
        prefix = entry.parsed("address", parse_prefix)
        if prefix is not None:
            found.add(str(prefix))
    for key in ("ip4", "ip6"):
        prefix = previous.section(key).parsed("ip", parse_prefix)
        if prefix is not None:
            found.add(str(prefix))
    return found


def _against_previous(item: Attachment, previous: set[str], request: Request) -> list[str]:
    """Later plugins may have added addresses; none of ours may be missing."""
    missing = [str(lease.address) for lease in item.leases if str(lease.address) not in previous]
    found = [f"prevResult lacks the address {address} of {request.ifname}" for address in missing]
    if item.sandbox and item.sandbox != request.netns:
        found.append(f"CNI_NETNS is {request.netns}, attached was {item.sandbox}")
    return found
