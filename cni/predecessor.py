"""Removes what the reference plugins attached: once we have their places, a runtime's DEL for it comes to us.

prevResult, which libcni keeps in its cache and sends, tells what there is; for too old a version, the cache itself
does. The usual DEL searches for nothing, because its prevResult names our own link. `migrate` takes such containers
over.
"""

from __future__ import annotations

import posix

from cni.host import Host
from cni.kernel.deletion import remove_links
from cni.kernel.links import get_link
from cni.model.attachment import lease_name
from cni.model.names import host_link, identity
from cni.model.reference import FORWARD, TABLES, Traces
from cni.protocol.errors import CniError
from cni.protocol.fields import Fields
from cni.protocol.jsontext import loads
from cni.protocol.log import say
from cni.protocol.request import Request
from cni.protocol.shapes import parse_ips
from cni.state.lease_files import LeaseFiles, holder_of, leave
from cni.state.leases import lease_folder
from nft import rules
from nft.addresses import Address, format_mac, parse_address
from nft.errors import KernelError
from nft.expressions import read_chain
from nft.messages import GETCHAIN, nfgen
from nft.netlink import Netlink
from nft.system import is_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import Json

CACHE = "/var/lib/cni/results"  # libcni's (CacheDir of its api.go)
TRIES = 3  # because others change their tables meanwhile
LEGACY = {"iptables-legacy": "/proc/net/ip_tables_names", "ip6tables-legacy": "/proc/net/ip6_tables_names"}


def traces_of(request: Request) -> Traces | None:
    """The traces of the request's attachment, None if it is ours or nothing is known about one."""
    result = request.document.get("prevResult")
    if not isinstance(result, dict):
        result = _cached_result(request)
    traces = read_traces(request.network, request.container, request.ifname, result)
    ours = host_link(identity(request.network, request.container, request.ifname))
    return None if traces is None or any(name == ours for name, _mac in traces.links) else traces


def _cached_result(request: Request) -> Json:
    """The result in libcni's cache: DEL has no prevResult before 0.4.0 of the specification."""
    try:
        with open(f"{CACHE}/{request.network}-{request.container}-{request.ifname}", encoding="utf-8") as file:
            document = loads(file.read())
        return document.get("result") if isinstance(document, dict) else None
    except (OSError, ValueError):
        return None


def read_traces(network: str, container: str, ifname: str, result: Json) -> Traces | None:
    """The traces that a result of any version tells, None for anything else."""
    if not isinstance(result, dict):
        return None
    try:
        fields = Fields(result)
        entries = list(fields.sections("interfaces"))
        links = [(entry.text("name"), entry.text("mac")) for entry in entries if not entry.text("sandbox")]
        addresses = tuple(ip.address.address for ip in parse_ips(fields, len(entries)))
    except CniError:
        return None
    return Traces(network, container, ifname, addresses, tuple(links))


def clean_up(host: Host, request: Request) -> None:
    """Removes its link, rules and leases. What cannot be removed is said on stderr, with the command that does it."""
    traces = traces_of(request)
    if traces is not None:
        remove_links(own_links(host, traces, ("veth", "ifb")))
        clean_rules(host, request, traces)
        clean_leases(request, traces.addresses)


def clean_rules(host: Host, request: Request, traces: Traces) -> None:
    """Removes its rules. Those that name only an address stay if another container has that address now."""
    held = LeaseFiles(lease_folder(request), asked=False)

    def is_its(address: Address) -> bool:
        if host.store.claims.lease_holder(lease_name(address)):
            return False
        return not held.holder(address, traces.container, traces.ifname)

    remove_rules(host, traces.replace(addresses=tuple(filter(is_its, traces.addresses))))


def clean_ports(host: Host, request: Request) -> None:
    """Removes the rules of `portmap` behind somebody else's main plugin."""
    remove_rules(host, Traces(request.network, request.container, request.ifname, ports_only=True))


def clean_forwarding(host: Host, request: Request) -> None:
    """Removes the rules of `firewall` behind somebody else's main plugin."""
    netlink = host.table.netlink
    traces = traces_of(request)
    if traces and any(rules.has_chain(netlink, rules.Chain(family, "filter", FORWARD)) for family in ("ip", "ip6")):
        clean_rules(host, request, traces)


def clean_leases(request: Request, addresses: tuple[Address, ...] = ()) -> None:
    """Removes lease files, for `host-local`; without `addresses`, all of the container's."""
    folder = lease_folder(request)
    for address in addresses or listed(folder):
        leave(folder, address, request.container, request.ifname)


def own_links(host: Host, traces: Traces, kinds: tuple[str, ...] = ("veth",)) -> list[str]:
    """Its links on the host, which name and MAC address tell: the ends of its pairs, and with kind `ifb` the device of
    `bandwidth`. The bridge serves others too."""
    found = []
    for name, mac in traces.links:
        link = get_link(host.rtnl, name) if name else None
        if link is not None and link.kind in kinds and format_mac(link.mac) == mac.lower():
            found.append(name)
    return found


def remove_stale_leases(request: Request, valid: set[str]) -> None:
    """Removes, as the reference's own GC, the lease files of all who are not among the valid attachments."""
    folder = lease_folder(request)
    containers = {ident.split("/")[1] for ident in valid}
    for address in listed(folder):
        container, _, ifname = holder_of(folder, address).partition(" ")
        known = identity(request.network, container, ifname) in valid if ifname else container in containers
        if not known:
            leave(folder, address, container, ifname)


def listed(folder: str) -> list[Address]:
    """The addresses that have lease files."""
    found = []
    for name in posix.listdir(folder) if is_folder(folder) else ():
        try:
            found.append(parse_address(name))
        except ValueError:
            continue
    return found


def remove_rules(host: Host, traces: Traces) -> None:
    """Removes the rules and chains of these traces; what others change meanwhile is tried again."""
    netlink = host.table.netlink
    for tried in range(1, TRIES + 1):
        there = rules.tables(netlink)
        doomed = [rule for table in TABLES if table in there for rule in rules.rules(netlink, *table)]
        doomed = [rule for rule in doomed if traces.has_rule(rule)]
        nat = [table for table in (("ip", "nat"), ("ip6", "nat")) if table in there]
        chains = [chain for table in nat for chain in rules.chains(netlink, *table) if traces.has_chain(chain)]
        try:
            rules.delete(netlink, doomed, chains)
            break
        except KernelError as error:
            if tried == TRIES:
                for rule in doomed:
                    left_over(f"{error.strerror}: nft delete rule {rule.chain} handle {rule.handle}")
    remove_legacy(traces)


def forward_drops(netlink: Netlink, table: tuple[str, str]) -> bool:
    """Whether a chain of the table drops what no rule accepts, as Docker's does; then its exceptions are needed."""
    payloads = netlink.dump(GETCHAIN, nfgen(rules.FAMILIES[table[0]]))
    return any((chain.family, chain.table) == table and chain.drops_forward for chain in map(read_chain, payloads))


def remove_legacy(traces: Traces) -> None:
    """Removes the traces in the older iptables' tables, which nft does not see."""
    for program, names in LEGACY.items():
        try:
            with open(names, encoding="ascii") as file:
                tables = [table for table in file.read().split() if table in ("nat", "filter")]
        except OSError:
            continue
        for table in tables:
            _remove_legacy(program, table, traces)


def _remove_legacy(program: str, table: str, traces: Traces) -> None:
    from shlex import join, split
    from subprocess import CalledProcessError, run

    wanted = [program, "-w", "5", "-t", table, "-S"]
    try:
        listed = run(wanted, capture_output=True, text=True, check=True).stdout
    except (OSError, ValueError, CalledProcessError):
        left_over(f"{program} is needed to look at the table {table} of the older iptables: {join(wanted)}")
        return
    lines = [split(line) for line in listed.splitlines()]
    doomed = [words for words in lines if words[0] == "-A" and traces.has_legacy(words)]
    commands = [["-D", *words[1:]] for words in doomed]
    commands += [["-X", words[1]] for words in lines if words[0] == "-N" and words[1] in traces.chains]
    for words in commands:
        done = run([program, "-w", "5", "-t", table, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            left_over(f"{done.stderr.strip()}: {join([program, '-t', table, *words])}")


def left_over(problem: str) -> None:
    say(f"left behind by a container of the reference plugins: {problem}")
