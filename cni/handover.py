"""Ports that pass from one interface of a container to the next when the first goes (`podman network disconnect`)."""

from __future__ import annotations

from cni.host import Host
from cni.model.attachment import Attachment
from cni.model.ports import PortMapping, collide


def hand_over(host: Host, heirs: dict[str, list[PortMapping]]) -> None:
    """To attachments that still stand; one that cannot lead the port anywhere keeps waiting.

    The claim comes last: after a kill in between the port is found waited for again, and everything before is repeated.
    """
    for ident, waiting in heirs.items():
        before = host.record(ident)
        if before is None or not before.done:
            continue
        taken = tuple(
            mapping
            for mapping in waiting
            if mapping in before.standby + before.mappings
            and mapping.host_ip
            and before.address_of(mapping.host_ip.version)
        )
        left = tuple(mapping for mapping in before.standby if mapping not in taken)
        item = before.replace(mappings=tuple(dict.fromkeys(before.mappings + taken)), standby=left)
        host.state.update(item)
        host.add_elements(item, again=True)
        host.forget_flows_to(taken, item.addresses)
        for mapping in taken:
            host.state.promote(mapping.claim, f"{mapping.host_ip}={ident}")


def waiting_in_vain(host: Host, item: Attachment) -> list[PortMapping]:
    """What it waits for although nobody publishes it."""
    return [
        mapping
        for mapping in item.standby
        if mapping.host_ip
        and item.address_of(mapping.host_ip.version)
        and not any(collide(ip, mapping.host_ip) for ip, _holder in host.state.port_holders(mapping.claim))
    ]
