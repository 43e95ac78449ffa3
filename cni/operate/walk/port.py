"""The bridge's port that leads to a container, and the host's entry for the container's MAC address."""

from __future__ import annotations

from cni.model.attachment import Attachment
from cni.operate.walk.kernel import Kernel, Link
from cni.operate.walk.step import Step, ok, stop
from nft.addresses import Address

FORWARDING = 3  # BR_STATE_FORWARDING of include/uapi/linux/if_bridge.h
LOCKED = 39  # IFLA_BRPORT_LOCKED of include/uapi/linux/if_link.h, for which pyroute2 before 0.7.4 has no name


def port_steps(kernel: Kernel, item: Attachment, port: Link) -> list[Step]:
    """Checks that the port forwards frames."""
    if port.of_port("STATE", FORWARDING) == FORWARDING or not port.carrier:
        return [ok("port", f"{item.link} is a port of {item.master}, both up"), *_flags(kernel, item, port)]
    blocked = stop(
        "port-state",
        f"the port {item.link} of {item.master} does not forward",
        "spanning tree or somebody holds it in another state",
        f"ip link set {item.master} type bridge stp_state 0",
        f"bridge link set dev {item.link} state {FORWARDING}",
    )
    return [blocked, *_flags(kernel, item, port)]


def _flags(kernel: Kernel, item: Attachment, port: Link) -> list[Step]:
    """The steps of flags that keep frames from a port although it forwards (bridge(8))."""
    told = f"the port {port.name} of {item.master}"
    steps = []
    if port.of_port("LEARNING", 1) == 0 and port.of_port("UNICAST_FLOOD", 1) == 0:
        command = f"bridge link set dev {port.name} learning on flood on"
        because = "the bridge sends it only frames to addresses that somebody has entered"
        steps.append(stop("port-flags", f"{told} has learning and flood off", because, command))
    if port.of_port("BCAST_FLOOD", 1) == 0:
        command = f"bridge link set dev {port.name} bcast_flood on"
        steps.append(stop("port-flags", f"{told} has bcast_flood off", "no ARP of siblings gets there", command))
    if kernel.port_attribute(port, LOCKED) == b"\x01":
        command = f"bridge link set dev {port.name} locked off"
        because = "the bridge takes a frame from it only if the sender is in its table already (802.1X)"
        steps.append(stop("port-flags", f"{told} is locked", because, command))
    return steps


def neighbour_steps(kernel: Kernel, item: Attachment, address: Address, inside: Kernel | str) -> list[Step]:
    """Checks the host's entry for the container. A container may have changed its MAC address, or have a second link
    there (macvlan)."""
    state, mac = kernel.neighbours.get((item.bridge, address), ("", ""))
    own = item.mac.hex(":")
    known = {own} if isinstance(inside, str) else {own, *(link.mac for link in inside.links.values())}
    if mac and mac not in known and state in ("PERMANENT", "REACHABLE", "STALE"):
        return [
            stop(
                "neighbour",
                f"the host takes {mac} for {address} on {item.bridge}, the container has {own}",
                "a permanent entry" if state == "PERMANENT" else "another machine answers for this address",
                f"ip neigh del {address} dev {item.bridge}",
            )
        ]
    return [ok("neighbour", f"{address} is {mac} on {item.bridge}")] if mac else []
