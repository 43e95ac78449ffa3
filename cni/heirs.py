"""Ports that pass from one interface of a container to the next when the first goes (`podman network disconnect`)."""

from __future__ import annotations

from .host import Host
from .ports import PortMapping


def hand_over(host: Host, heirs: dict[str, list[PortMapping]]) -> None:
    """To attachments that still stand; one that cannot lead the port anywhere keeps waiting."""
    for ident, waiting in heirs.items():
        before = host.record(ident)
        if before is None or not before.done:
            continue
        taken = tuple(
            mapping
            for mapping in waiting
            if mapping in before.standby and mapping.host_ip and before.address_of(mapping.host_ip.version)
        )
        left = tuple(mapping for mapping in before.standby if mapping not in taken)
        item = before.replace(mappings=before.mappings + taken, standby=left)
        for mapping in taken:
            host.state.unclaim(mapping.claim, f"{mapping.host_ip}={ident}")
        host.state.begin(item.replace(done=False))
        host.add_elements(item, again=True)
        if any(mapping.protocol == "udp" for mapping in taken):
            from nft.conntrack import forget_new_ports

            forget_new_ports(taken, item.addresses, host.is_local)
        host.state.update(item)
