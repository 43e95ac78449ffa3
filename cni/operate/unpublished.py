"""Explains a host port that no container publishes: who has it, and which container was probably meant."""

from __future__ import annotations

from cni.operate.walk.kernel import Kernel
from cni.operate.walk.packet import Packet
from cni.operate.walk.sockets import processes_of
from cni.operate.walk.step import Step, note, ok, stop
from cni.operate.walk.world import World


def unpublished(world: World, port: int, proto: str) -> list[Step]:
    """The steps that explain why nothing answers on the port."""
    steps = [note("element", f"no container of this host publishes {port}/{proto}")]
    for item in world.items:
        for mapping in item.standby:
            if (mapping.host_port, mapping.protocol) == (port, proto):
                steps.append(note("standby", f"{item.ident} waits for it: another interface of that container has it"))
    held = [one for one in world.kernel.listeners if (one.port, one.proto) == (port, proto)]
    processes = processes_of({one.inode for one in held})
    for one in held:
        steps.append(ok("listener", f"{processes.get(one.inode, 'a process of the host')} listens on {one}"))
    stolen = _translation(world, port, proto)
    if stolen:
        steps.append(note("foreign-dnat", stolen))
    if held or stolen:
        return steps
    meant = []
    for item in world.items:
        inside = world.inside(item)
        if isinstance(inside, Kernel) and any((one.port, one.proto) == (port, proto) for one in inside.listeners):
            meant.append(item)
    if meant:
        names = ", ".join(item.ident for item in meant)
        hint = f"{names} listens on {port} inside: start it with -p {port}:{port}"
    elif world.items:
        hint = "nftcni ports lists what is published"
    else:
        hint = (
            "no container is attached at all; without portMappings in the network's capabilities no port is passed on"
        )
    return [*steps, stop("not-published", f"nobody has {port}/{proto} on this host", hint, "nftcni ports")]


def _translation(world: World, port: int, proto: str) -> str:
    for client in [*world.clients(4), *world.clients(6)]:
        target = world.host_address(client)
        if target is None:
            continue
        packet = Packet(proto, client.address, target, port).at(client.link, "")
        for verdict in world.judge.pass_hook("prerouting", packet):
            if verdict.word in ("dnat", "redirect"):
                return f"{verdict} leads it to {packet.daddr}:{packet.dport}"
    return ""
