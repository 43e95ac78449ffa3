"""Which of the ports that an attachment asks for it may have, by the claims of all others. Nothing is written here."""

from __future__ import annotations

from cni.host import Host
from cni.model.attachment import Attachment
from cni.model.ports import Occupied, PortMapping, by_claim
from cni.protocol.errors import PORT_TAKEN, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.state.claims import Holders


def without_shared_ports(held: Holders, item: Attachment) -> Attachment:
    """Runtimes ask every network of a container for all of its ports, in parallel (go-cni, podman): whichever
    attachment is first publishes them, the others wait for them. `held` is who has them by now."""
    if not held:
        return item
    container = item.ident.split("/")[1]
    waiting: dict[PortMapping, None] = {}
    for port, own in by_claim(item.mappings).items():
        others = {
            host_ip
            for host_ip, holder in held.get(port, ())
            if holder != item.ident and holder.split("/")[1:2] == [container]
        }
        waiting.update(dict.fromkeys(mapping for mapping in own if others and mapping.host_ip in others))
    if not waiting:
        return item
    left = tuple(mapping for mapping in item.mappings if mapping not in waiting)
    return item.replace(mappings=left, standby=tuple(mapping for mapping in item.mappings if mapping in waiting))


def refuse_taken_ports(host: Host, item: Attachment, held: Holders, allow_bound: bool) -> None:
    """Raises CniError 100 for a port of another container, or of a process of the host."""
    refuse_held_ports(held, item)
    if item.mappings:
        from cni.kernel.listeners import refuse_bound_ports

        refuse_bound_ports(host.rtnl, item.mappings, allow_bound)


def refuse_held_ports(held: Holders, item: Attachment) -> None:
    """Also a wildcard against a specific address of the same port, which no map key can refuse."""
    for port, own in by_claim(item.mappings).items() if held else ():
        holders = [(host_ip, holder) for host_ip, holder in held.get(port, ()) if holder != item.ident]
        others = Occupied(holders)
        for mapping in own if holders else ():
            assert mapping.host_ip is not None, "records hold concrete host addresses only"
            met = others.find(mapping.host_ip)
            if met is not None:
                network, container, ifname = str(met[1]).split("/")
                raise CniError(
                    PORT_TAKEN,
                    f"host port {mapping} is taken by network {network}, container {container}, interface {ifname} "
                    f"(on {met[0]})",
                    "publish another port, or remove that container; if it has ended without DEL: "
                    f"nftcni forget {network}/{container}",
                )
