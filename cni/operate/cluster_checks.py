"""What `doctor` knows about clusters: flannel's lease on this host, and the nodes to whose pods a route leads.

It looks only at the host itself: the lease's file, routes, neighbours, our records. It does not miss a node without a
route; only the orchestrator knows how many there should be.
"""

from __future__ import annotations

from cni.model.attachment import OPEN, Attachment
from cni.model.flannel import FlannelLease, parse_subnet_env
from cni.operate import conf_checks
from cni.operate.document import Document
from cni.operate.walk.step import Step, stop, warn
from cni.operate.walk.world import World
from cni.verbs.delegate import SUBNET_FILE
from nft.addresses import Address, Prefix, parse_prefix

OVERLAYS = ("flannel.", "flannel-v6.")  # links of flanneld's backend vxlan; the number is the VNI
# How many bits of the prefix two nodes' pod subnets may differ in: /24 of one /16, /64 of one /48.
NEIGHBOURHOOD = {4: 8, 6: 16}


def flannel(world: World) -> list[Step]:
    files = [(document, path) for document in conf_checks.documents() for path in _lease_files(document)]
    found = [step for document, path in files for step in _of_lease(world, document, path)]
    return found + (_overlays(world) if files else [])


def _overlays(world: World) -> list[Step]:
    because = "no pod of another node can be reached; the kernel has removed its routes"
    again = "systemctl restart flanneld  # it makes the routes again"
    return [
        stop("overlay", f"{link.name} is down", because, f"ip link set {link.name} up", again)
        for link in world.kernel.links.values()
        if link.name.startswith(OVERLAYS) and not link.up
    ]


def _lease_files(document: Document) -> list[str]:
    """The paths of the lease files that the document's networks use as they are."""
    found = []
    for plugin in document.plugins:
        ipam = plugin.get("ipam")
        if isinstance(ipam, dict) and ipam.get("type") == "flannel":
            found.append(str(plugin.get("subnetFile") or SUBNET_FILE))
    return found


def _of_lease(world: World, document: Document, path: str) -> list[Step]:
    try:
        with open(path, encoding="utf-8") as file:
            lease = parse_subnet_env(file.read())
    except OSError as error:
        what = f"{document.path}: flannel has no lease on this host: {path}: {error.strerror}"
        return [stop("lease", what, "an ADD to this network fails until there is one", "systemctl start flanneld")]
    except ValueError as problem:
        what = f"{path} is not a lease of flannel: {problem}"
        return [stop("lease", what, "an ADD to this network fails", "systemctl restart flanneld  # it writes the file")]
    found = []
    for item in world.items:
        if item.network == document.name:
            found += [*_outside(item, lease), *_too_large(world, item, lease, path)]
            found += [_masqueraded(item, one, path) for one in lease.networks if _is_lacking(item, one)]
    return found


def _outside(item: Attachment, lease: FlannelLease) -> list[Step]:
    versions = {subnet.version for subnet in lease.subnets}
    strange = [
        address
        for address in item.addresses
        if address.version in versions and not any(address in subnet for subnet in lease.subnets)
    ]
    if not strange:
        return []
    subnets = ", ".join(map(str, lease.subnets))
    because = f"flanneld has {subnets} by now, and other nodes route nothing else here"
    return [warn("old-lease", f"{item.ident} has {strange[0]}, of an earlier lease", because, _again(item))]


def _too_large(world: World, item: Attachment, lease: FlannelLease, path: str) -> list[Step]:
    port = world.kernel.links.get(item.link)
    if not lease.mtu or port is None or port.mtu <= lease.mtu:
        return []
    what = f"the MTU of {item.ident} is {port.mtu}, of flannel's way to other nodes {lease.mtu} ({path})"
    return [warn("mtu", what, "larger packets need ICMP to come through, or are lost", _again(item))]


def nodes(world: World) -> list[Step]:
    """Checks routes by another machine to what looks like that node's pods."""
    found: list[Step] = []
    networks = {item.network: item for item in world.items if item.kind.own_link}
    for dst, _table, link, kind, via in world.kernel.routes:
        if kind != "unicast" or via is None:
            continue
        near = [item for item in networks.values() if link != item.bridge and _is_beside(dst, item)]
        if near and world.kernel.neighbours.get((link, via), ("", ""))[0] == "FAILED":
            found.append(_silent(dst, via, link))
        for item in near:
            if item.mode(dst.version) == OPEN and _is_lacking(item, dst):
                found.append(_masqueraded(item, dst, f"the route by {via}"))
    return found


def _is_beside(dst: Prefix, item: Attachment) -> bool:
    """Whether the destination is as large as the network's own subnet, and near it."""
    for lease in item.leases:
        own = lease.address.network
        if (own.version, own.length) == (dst.version, dst.length) and own != dst:
            common = max(own.length - NEIGHBOURHOOD[own.version], 1)
            if dst.address in Prefix(own.address, common):
                return True
    return False


def _is_lacking(item: Attachment, dst: Prefix) -> bool:
    """Whether the attachment's packets to there are masqueraded, because no exception holds the destination."""
    if item.address_of(dst.version) is None or not item.is_masqueraded(dst.version):
        return False
    return not any(one.length <= dst.length and dst.address in one for one in map(parse_prefix, item.direct))


def _masqueraded(item: Attachment, dst: Prefix, source: str) -> Step:
    return warn(
        "exceptions",
        f"what {item.network} sends to {dst} has the host's address, not the pod's",
        f"by {source} these are pods of other nodes; nonMasqueradeCIDRs of the network has nothing that holds them",
        f'# write "{dst}", or the whole cluster\'s network, for nonMasqueradeCIDRs, and start the containers again',
    )


def _silent(dst: Prefix, via: Address, link: str) -> Step:
    what = f"{via} on {link}, by which the pods of {dst} are reached, does not answer"
    because = "that node is down, or the route leads to another address than it has"
    return warn("node", what, because, f"ip neigh flush to {via} dev {link}", f"ping -c 1 {via}")


def _again(item: Attachment) -> str:
    return f"# start {item.container} again"


CHECKS = (flannel, nodes)
