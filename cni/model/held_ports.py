"""Which of its ports an attachment may have beside all others on the host.

The claims of the state folder say who holds a port (`cni.state.claims`); `cni.kernel.listeners` asks the kernel for
processes of the host.
"""

from __future__ import annotations

from cni.model.attachment import Attachment
from cni.model.ports import Occupied, PortMapping, by_claim
from cni.protocol.errors import PORT_TAKEN, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.model.ports import Holders


def without_shared_ports(held: Holders, item: Attachment) -> Attachment:
    """The record with the ports that its container's other attachments hold moved to `standby`. Runtimes ask all of a
    container's networks for all of its ports, in parallel (go-cni, podman): the first attachment publishes them, the
    others wait. `held` says who has them now."""
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


def refuse_held_ports(held: Holders, item: Attachment) -> None:
    """Raises CniError 100 for a port that another container holds. This includes a wildcard against a single address of
    the same port, which the table's map would accept."""
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
