"""Take over running containers of the reference plugins while their connections go on.

libcni's cache says what each container was asked for and got. For one container after the other, it writes the record,
renames the host end and adds table elements; only then the old rules go. A translated connection keeps its translation,
which is in the connection tracker. What is left alone is printed with the reason. It can be run again at any time.
"""

# This is the command's help too. `leftovers` removes rules that nobody needs; `cni.model.conversion` translates a
# chain's keys.

from __future__ import annotations

import base64
import json
import os

from cni.bridge import ensure_bridge, with_place
from cni.host import Host
from cni.kernel import sysctl
from cni.kernel.links import get_link, port_names
from cni.kernel.netns import Inside, open_netns
from cni.kernel.pair import container_sysctls, finish_port, is_pair
from cni.localnet import guard_port
from cni.model.attachment import Attachment, Lease, lease_name
from cni.model.config import parse_network
from cni.model.conversion import NotConverted, convert
from cni.model.plan import complete_routes, plan_attachment, refuse_held_ports, with_delegated, without_shared_ports
from cni.model.reference import Traces
from cni.operate.leftovers import remove_leftovers
from cni.operate.renaming import rename, restore_bridge, restore_port
from cni.operate.repair import table_differences, this_host
from cni.predecessor import forward_drops, own_links, read_traces, remove_rules
from cni.protocol.errors import CniError
from cni.protocol.fields import Fields
from cni.protocol.request import Request
from cni.protocol.results import parse_previous, parse_result
from cni.protocol.spec import Result
from cni.state.lease_files import LeaseFiles
from cni.state.leases import lease_folder
from cni.withdrawal import delete_elements
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

CACHES = (
    "/var/lib/cni/results",
    "/var/lib/cni/cache/results",
)  # libcni's default, and the folder that some runtimes give it


class LeftAlone(Exception):
    """Why a container stays with the reference plugins."""


class Cached(Value):
    """One attachment from the cache. `link` is its host end's present name, "" if the container is gone."""

    path: str
    conflist: dict[str, Any]
    capabilities: dict[str, Any]
    result: dict[str, Any]
    traces: Traces
    link: str

    @property
    def name(self) -> str:
        return f"{self.traces.network}/{self.traces.container}/{self.traces.ifname}"


HELP = "take over the running containers of the reference plugins"
EXAMPLES = ("nftcni migrate --dry-run", "nftcni migrate")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only tell")


def run(arguments: argparse.Namespace) -> int:
    return migrate(arguments.dry_run)


def migrate(dry_run: bool = False) -> int:
    """Migrates all. Returns 1 if a running container was left alone, or something went wrong."""
    with this_host().transaction("migrating") as host:
        found = cached(host)
        living = [entry for entry in found if entry.link]
        left: list[Cached] = []
        for entry in living:
            try:
                item = planned(host, entry)
                if not dry_run:
                    take_over(host, entry, item)
                ports = " ".join(f"{mapping}->{mapping.container_port}" for mapping in item.mappings)
                addresses = " ".join(str(lease.address) for lease in item.leases)
                print(f"{'would take' if dry_run else 'took'} over {entry.name}  {addresses}  {ports}".rstrip())
            except (LeftAlone, CniError, OSError) as problem:
                left.append(entry)
                print(f"left alone {entry.name}: {problem}")
        dead = [entry.traces for entry in found if not entry.link]
        items = host.records()
        if not dry_run and table_differences(host, items):  # containers that shared a bridge before it was ours
            host.rebuild_table()
        for line in remove_leftovers(host, [entry.traces for entry in left], dead, dry_run):
            print(line)
    verb = "to take over" if dry_run else "taken over"
    print(f"{len(living) - len(left)} {verb}, {len(left)} left alone, {len(found) - len(living)} are gone")
    return 1 if left else 0


def cached(host: Host) -> list[Cached]:
    """The reference plugins' attachments to a bridge; other plugins' are not ours to judge."""
    found = []
    for folder in CACHES:
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            entry = _read(host, f"{folder}/{name}")
            item = host.record(entry.name) if entry is not None else None
            if entry is not None and (item is None or not item.done):  # unfinished: a migration was killed
                found.append(entry)
    return found


def _read(host: Host, path: str) -> Cached | None:
    """The attachment in a cache file, None for anything but one of the reference bridge plugin."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        conflist = json.loads(base64.b64decode(document["config"]))
        names = (document["networkName"], document["containerId"], document["ifName"])
        traces = read_traces(*names, document["result"])
        main = (conflist.get("plugins") or [conflist])[0]["type"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    if traces is None or main != "bridge":
        return None
    links = own_links(host, traces)
    capabilities = document.get("capabilityArgs")
    return Cached(
        path,
        conflist,
        capabilities if isinstance(capabilities, dict) else {},
        document["result"],
        traces,
        links[0] if links else _renamed(host, traces),
    )


def _renamed(host: Host, traces: Traces) -> str:
    """The host end's name after a migration that was killed behind renaming it, "" if there was none."""
    item = host.record(f"{traces.network}/{traces.container}/{traces.ifname}")
    return item.link if item is not None and not item.done and get_link(host.rtnl, item.link) else ""


def planned(host: Host, entry: Cached) -> Attachment:
    """The record that it will have. Raises LeftAlone, and CniError for what ADD would refuse as well."""
    try:
        document: dict[str, Any] = convert(entry.conflist)
    except NotConverted as refusal:
        raise LeftAlone(str(refusal)) from None
    plugin = {**document.get("plugins", [document])[0], "name": entry.traces.network, "prevResult": entry.result}
    asked = {key: value for key, value in entry.capabilities.items() if key in plugin.get("capabilities", {})}
    version = str(entry.conflist.get("cniVersion") or "0.1.0")
    sandbox = next((str(item["sandbox"]) for item in entry.result.get("interfaces", ()) if item.get("sandbox")), "")
    request = Request(
        *("ADD", "", entry.traces.container, sandbox, entry.traces.ifname, {}, ()),
        *(version, entry.traces.network, "", {**plugin, "runtimeConfig": asked}),
    )
    previous, network = parse_previous(request), parse_network(request)
    told = parse_result(Fields(entry.result), len(entry.result.get("interfaces", ())))
    ips = tuple(ip for ip in told.ips if ip.address in previous.addresses)
    leases = tuple(Lease(ip.address, ip.gateway) for ip in ips)
    routes = complete_routes(told.routes, leases, network.default_versions)
    item = plan_attachment(request, network, leases)
    if network.ipam.delegate:
        item = with_delegated(item, network, Result((), ips, routes, item.dns))
    folder = lease_folder(request)
    held = LeaseFiles(folder, asked=False)
    item = item.replace(mac=previous.mac, routes=routes, lease_folder=held.kept_for(item.leases))
    if not previous.mac or not item.leases:
        raise LeftAlone("its result lacks an address or the interface's MAC address")
    for address in item.addresses:
        holder = host.store.claims.lease_holder(lease_name(address))
        holder = "" if holder == item.ident else holder
        holder = holder or held.holder(address, item.container, item.ifname)
        if holder:
            raise LeftAlone(f"its address {address} is leased to {holder}")
    item = with_place(host, item)
    ports = host.store.claims.holders(item.mappings)
    item = without_shared_ports(ports, item)
    refuse_held_ports(ports, item)
    _check_bridge(host, entry, item)
    return item.replace(done=False)


def _check_bridge(host: Host, entry: Cached, item: Attachment) -> None:
    port, bridge = get_link(host.rtnl, entry.link), get_link(host.rtnl, item.master)
    if bridge is None or port is None or port.master != bridge.index:
        raise LeftAlone(f"its link {entry.link} is not a port of the bridge {item.master}")


def take_over(host: Host, entry: Cached, item: Attachment) -> None:
    """Takes one container over. After a kill, the next run goes on from there; after an error, the container is the
    reference plugins' as before."""
    item = item.replace(made=_own_bridge(host, item))
    host.store.begin(item)
    try:
        rename(host, entry.link, item.link)
        restore_bridge(host, item)
        restore_port(host, item)
        host.add_elements(item, again=True)
        finish_port(host.rtnl, item, ensure_bridge(host, item))
        guard_port(host.handles, item)
        set_container_sysctls(host, item)
        host.store.update(item.replace(done=True))
    except Exception:
        host.try_roll_back()
        delete_elements(host.handles, item, host.is_last(item))
        rename(host, item.link, entry.link)
        host.remove_record(item.replace(lease_folder=""))
        if host.store.is_last(item):
            host.store.drop_bridge(item)
        raise
    dropped = any(forward_drops(host.table.netlink, (family, "filter")) for family in ("ip", "ip6"))
    remove_rules(host, entry.traces.replace(addresses=()) if dropped else entry.traces)


def set_container_sysctls(host: Host, item: Attachment) -> None:
    """Sets the interface's sysctls as ADD would, if the namespace is still where it was."""
    try:
        netns = open_netns(item.sandbox)
    except CniError:
        return
    port = get_link(host.rtnl, item.link)
    if port is not None and is_pair(port, item, netns):
        with Inside(netns):
            for key, value in container_sysctls(item):
                sysctl.write(key, value)


def _own_bridge(host: Host, item: Attachment) -> bool:
    """Whether the bridge counts as made by us: all of its ports are containers that are ours or about to be."""
    bridge = get_link(host.rtnl, item.master)
    if bridge is None or host.store.bridges.knows(item.master, "created"):
        return bridge is not None
    known = {*(entry.link for entry in cached(host)), *host.store.bridges.ports(item.master)}
    strangers = set(port_names(host.rtnl, item.master)) - known
    if not strangers:
        host.store.bridges.note(item.master, "created")
    return not strangers
