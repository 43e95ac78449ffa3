"""What `doctor` checks besides packets' ways: the host as a whole, and containers against each other.

Each check takes the world and returns steps; a healthy host gives no finding. `conf_checks` looks at CNI's folders,
`cluster_checks` at other nodes, `link_checks` at links and what is at their other end.
"""

from __future__ import annotations

import os
import re

from cni.kernel.listeners import reserver
from cni.model.config import DEFAULT_BRIDGE
from cni.model.ports import collide
from cni.operate import conf_checks, foreign_rules, link_checks, pools
from cni.operate.walk.drops import dropped
from cni.operate.walk.kernel import Kernel
from cni.operate.walk.packet import Packet
from cni.operate.walk.remedy import Traffic
from cni.operate.walk.sockets import Process, processes_of
from cni.operate.walk.step import Step, stop, warn
from cni.operate.walk.world import World
from nft.addresses import Address
from nft.fastpath import lacking
from nft.netlink import NETLINK_NETFILTER, Netlink

MIN_KERNEL = (5, 10)
FULL = 0.9  # the share of the connection tracker's table that counts as full


def libraries(_world: World | None = None) -> list[Step]:
    """Finds an nft or libnftables that could not load the table."""
    from nft.errors import LoadError
    from nft.libnftables import run_text
    from nft.version import refuse_old

    try:
        refuse_old()
        run_text("")
    except LoadError as problem:
        return [
            stop(
                "library",
                str(problem),
                "the first container of a host, and repair, need it",
                *([f"# {problem.hint}"] if problem.hint else []),
            )
        ]
    return []


def state_folder(_world: World) -> list[Step]:
    """Finds a state folder in which no record can be written any more: then no container can be attached."""
    from cni.operate.repair import this_host

    host = this_host()
    root = host.store.folder.root
    host.close()
    try:
        room = os.statvfs(root)
    except OSError:
        return []  # it is made by the first ADD
    because = "every ADD needs to write there; attached containers go on working meanwhile"
    if room.f_flag & os.ST_RDONLY:
        return [
            stop(
                "state",
                f"the file system of {root} is read-only",
                because,
                f"# mount -o remount,rw, or see: findmnt -T {root}",
            )
        ]
    if not room.f_bavail or (room.f_files and not room.f_favail):
        what = "no space" if not room.f_bavail else "no inode"
        return [
            stop(
                "state",
                f"{what} is left on the file system of {root}",
                because,
                f"# free some; see: df -h {root}; df -i {root}",
            )
        ]
    return []


def versions(_world: World) -> list[Step]:
    found = []
    kernel = _numbers(os.uname().release)[:2]
    if kernel < MIN_KERNEL:
        found.append(warn("version", f"Linux {os.uname().release} is older than {_dotted(MIN_KERNEL)}", "not tested"))
    return found


def _numbers(text: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def before_the_first(world: World) -> list[Step]:
    """Before anything is attached: whether the first container of the configured networks would be served."""
    if world.items:
        return []
    networks = conf_checks.our_networks()
    bridges = tuple(sorted({bridge for bridge, _subnets in networks} - {""})) or (DEFAULT_BRIDGE,)
    subnets = tuple(subnet for _bridge, subnets in networks for subnet in subnets)
    found = []
    for version in sorted({subnet.version for subnet in subnets}) or [4]:
        for client in world.clients(version):
            inside = next(
                (Address(version, one.first + 2) for one in subnets if one.version == version), Address(version, 2)
            )
            published = Packet("tcp", client.address, inside, 80, status=frozenset({"dnat"}), natted=True)
            for packet in (
                published.at(client.link, bridges[0]),
                Packet("tcp", inside, client.address, 443).at(bridges[0], client.link),
            ):
                for verdict in world.judge.pass_hook("forward", packet):
                    if verdict.drops and verdict.certain:
                        traffic = Traffic(bridges, subnets, world.traffic.others, world.uplinks)
                        found.append(dropped(world.kernel.rules, verdict, packet, traffic))
    if world.kernel.sysctl("ipv4/ip_forward") == "1" and world.kernel.sysctl("ipv4/conf/default/forwarding") == "0":
        command = "sysctl -w net.ipv4.conf.default.forwarding=1"
        found.append(
            warn("link-forwarding", "net/ipv4/conf/default/forwarding is 0", "a new bridge would not forward", command)
        )
    return found


def unread_rules(world: World) -> list[Step]:
    return [warn("unread", said, "what these rules do to packets is not known") for said in world.kernel.rules.notes]


def listeners_on_published_ports(world: World) -> list[Step]:
    """Finds processes that listen on published ports; the runtimes' own reservers do so on purpose."""
    allowed = conf_checks.networks_with("allowBoundPorts")
    items = [item for item in world.items if item.network not in allowed]
    ports = {(mapping.host_port, mapping.protocol) for item in items for mapping in item.mappings}
    held = [one for one in world.kernel.listeners if (one.port, one.proto) in ports]
    processes = processes_of({one.inode for one in held})
    found = []
    for one in held:
        process = processes.get(one.inode)
        if process is not None and reserver(process.name, process.command.split()):
            continue
        for item in items:
            for mapping in item.mappings:
                same = (mapping.host_port, mapping.protocol) == (one.port, one.proto)
                if (
                    same
                    and mapping.host_ip
                    and (collide(one.address, mapping.host_ip) or _dual(one.address, mapping.host_ip))
                ):
                    who = str(process) if process else "a process of the host"
                    found.append(
                        warn(
                            "listener",
                            f"{who} listens on {one}/{one.proto}, which {item.ident} publishes as {mapping}",
                            "clients reach the container; they no longer reach the process",
                            _end(process, one.port),
                        )
                    )
    return found


def _dual(address: Address, other: Address) -> bool:
    return address.version == 6 and address.is_unspecified and other.version == 4 and other.is_unspecified


def _end(process: Process | None, port: int) -> str:
    if process is None:
        return f"ss -lnp sport = :{port}"
    try:
        with open(f"/proc/{process.pid}/cgroup", encoding="ascii", errors="replace") as file:
            units = re.findall(r"/system\.slice/([^/\s]+\.service)", file.read())
    except OSError:
        units = []
    return f"systemctl stop {units[-1]}" if units else f"kill {process.pid}"


def addresses_inside_networks(world: World) -> list[Step]:
    """Finds addresses of the host inside a containers' network. A /32 (flannel.1, cilium_host) brings no route."""
    found = []
    for name, prefix in world.kernel.addresses:
        if name in world.bridges or prefix.length == (32 if prefix.version == 4 else 128):
            continue
        for item in world.items:
            if any(prefix.address in lease.address.network for lease in item.leases) and name != item.bridge:
                found.append(
                    warn(
                        "overlap",
                        f"the host's {name} has {prefix}, inside the network {item.network} of containers",
                        "both cannot be reached; give one of them another subnet",
                        f"ip addr del {prefix} dev {name}",
                    )
                )
                break
    return found


def duplicate_addresses(world: World) -> list[Step]:
    """Finds a container that also has another one's address."""
    leased = {(item.bridge, address): item for item in world.items for address in item.addresses if item.bridge}
    found = []
    for item in world.items:
        inside = world.inside(item)
        if not isinstance(inside, Kernel):
            continue
        for prefix in inside.addresses_of(item.ifname):
            owner = leased.get((item.bridge, prefix.address))
            if owner is not None and owner.sandbox != item.sandbox:
                found.append(
                    stop(
                        "duplicate",
                        f"{item.ident} has {prefix.address} too, which is {owner.ident}'s",
                        "whoever answers first gets the packets; it was added by hand",
                        f"nsenter --net={item.sandbox} ip addr del {prefix} dev {item.ifname}",
                        f"ip neigh flush to {prefix.address} dev {item.bridge}",
                    )
                )
    return found


def conntrack(world: World) -> list[Step]:
    """Finds a connection tracker's table that is nearly full."""
    count, limit = (world.kernel.sysctl(f"netfilter/nf_conntrack_{key}") for key in ("count", "max"))
    if count.isdigit() and limit.isdigit() and int(limit) and int(count) >= FULL * int(limit):
        return [
            warn(
                "conntrack",
                f"the connection tracker has {count} of at most {limit} entries",
                "new connections are dropped when it is full",
                f"sysctl -w net.netfilter.nf_conntrack_max={2 * int(limit)}",
            )
        ]
    return []


def fast_path(world: World) -> list[Step]:
    """Finds networks that ask for it on a kernel without flowtables, and a flowtable that listens on the wrong
    links."""
    slow = "flows that come in by another link go the usual way"
    found = [warn("fast-path", one, slow, "nftcni repair") for one in world.beside_the_fast_path]
    asking = conf_checks.files_with("fastPath")
    missing = lacking(Netlink(NETLINK_NETFILTER)) if asking else []
    if missing:
        said = f"fastPath in {', '.join(asking)}: this kernel lacks {', '.join(missing)}"
        modules = [re.sub(r".*\((.*)\)", r"\1", one) for one in missing]
        found.append(stop("fast-path", said, "an ADD to that network is refused", f"modprobe -a {' '.join(modules)}"))
    return found


def ended(world: World) -> list[Step]:
    """Finds containers whose namespace is gone although nobody called DEL."""
    from cni.operate.walk.inside import Inside

    found = []
    for item in world.items:
        inside = world.inside(item) if item.done else ""
        if isinstance(inside, str) and item.done:
            found.append(Inside(world, item).ended(inside))
    return found


CHECKS = (
    libraries,
    state_folder,
    versions,
    conf_checks.folders,
    conf_checks.in_use,
    pools.exhausted,
    before_the_first,
    unread_rules,
    listeners_on_published_ports,
    addresses_inside_networks,
    duplicate_addresses,
    *link_checks.CHECKS,
    conntrack,
    fast_path,
    foreign_rules.leftovers,
    ended,
)
