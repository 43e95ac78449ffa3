"""Finds configured networks without a free address: they refuse the next container's ADD, as STATUS says too.

The holders may have ended: containers without a DEL, and lease files of the reference host-local.
"""

from __future__ import annotations

from cni.model.config import Network
from cni.operate import conf_checks
from cni.operate.lint import network_of
from cni.operate.walk.step import Step, stop
from cni.operate.walk.world import World
from cni.protocol.errors import CniError
from cni.verbs.status import refuse_exhausted


def exhausted(world: World) -> list[Step]:
    """Finds configured networks without a free address."""
    from cni.operate.repair import this_host

    found = []
    for document in conf_checks.documents():
        for plugin in document.plugins if document.name else ():
            try:
                network, request = network_of(document, plugin)
            except CniError:
                continue  # `nftcni check` says why
            host = this_host()
            try:
                refuse_exhausted(host.handles, request, network.ipam)
            except CniError as error:
                found += _full(world, network, document.path, error)
            finally:
                host.close()
    return found


def _full(world: World, network: Network, path: str, error: CniError) -> list[Step]:
    ended = [item for item in world.items if item.network == network.name and world.is_ended(item)]
    what = f"{path}: the network {network.name} has {error.msg}"
    if ended:
        because = f"{len(ended)} of its containers have ended without a DEL and hold theirs"
        return [stop("pool", what, because, "nftcni gc")]
    if any(len(ranges) == 1 and ranges[0].first == ranges[0].last for ranges in network.ipam.range_sets):
        return []  # the network is made for one container
    return [stop("pool", what, error.details, f"# give it a larger subnet in {path}, or end containers")]
