"""ADD: turns the request into a record, and the record into an attachment."""

from __future__ import annotations

from cni.bridge import with_place
from cni.host import Host
from cni.kernel.netns import open_netns
from cni.model.attachment import Attachment
from cni.model.choice import choose
from cni.model.config import Network, parse_network
from cni.model.names import identity
from cni.model.plan import plan_attachment, refuse_held_ports, without_shared_ports
from cni.protocol.fields import Fields
from cni.protocol.request import Request
from cni.protocol.spec import Result
from cni.state.leases import HeldLeases
from cni.verbs.attach import attach, refuse_taken_ports
from cni.verbs.delegate import with_lease
from cni.verbs.implied import with_implied

FOR_PORTS = ("cni.kernel.listeners", "cni.kernel.loopback_guard")


def add(request: Request) -> Result:
    """The result. Raises CniError, and leaves nothing of the attachment behind then, or a record for DEL to work
    from."""
    network = parse_network(with_lease(request))
    netns = open_netns(request.netns)
    ident = identity(request.network, request.container, request.ifname)
    ahead = ("nft.ruleset", *(FOR_PORTS if network.mappings else ()))
    with Host(request.data_dir).transaction(f"ADD of {ident}", *ahead) as host:
        return _add(host, request, network, netns, ident)


def _add(host: Host, request: Request, network: Network, netns: int, ident: str) -> Result:
    before = host.record(ident)
    network = with_implied(host, request, network, netns)
    if network.wire.vlan:
        from cni.adoption import in_vlan

        network = in_vlan(host, network)
    if network.asks_firewall:
        from cni.verbs.host_firewall import refuse_admin_chain, zone_asked

        fields = Fields(request.document)
        refuse_admin_chain(host.table.netlink, fields)
        network = network.replace(zone=zone_asked(fields))
    if network.condition4 or network.condition6:
        from cni.conditions import refuse_invalid

        refuse_invalid(host.handles, network.condition4, network.condition6)
    if network.fast_path:
        from cni.fastpath import refuse_lacking

        refuse_lacking(host.handles)
    if network.ipam.delegate:
        from cni.verbs.delegated import add_delegated

        return add_delegated(host, request, network, netns, before)
    network, held = _placed(host, request, network, before)
    held.files.lock()
    leases = choose(network.ipam, held, before.leases if before else ())
    planned = plan_attachment(request, network, leases).replace(lease_folder=held.files.kept_for(leases))
    planned = with_place(host, planned)
    ports = host.store.claims.holders(planned.mappings)
    item = without_shared_ports(ports, planned)
    if before is not None:
        if before.replace(done=False) == item:
            refuse_held_ports(ports, item)
            host.store.begin(item)  # a killed DEL may have freed some of it
            held.files.unlock()
            return attach(host, item, netns, again=True)
        from cni.verbs.delete import detach

        detach(host, before)
        ports = host.store.claims.holders(item.mappings)
    refuse_taken_ports(host, item, ports, network.allow_bound_ports)
    if not host.store.folder.has("attachments", request.network):
        from cni.adoption import refuse_shared

        refuse_shared(host, item)
    held.remember(network.ipam, leases)
    host.store.begin(item)
    held.files.remember(leases)
    held.files.unlock()
    return attach(host, item, netns)


def _placed(host: Host, request: Request, network: Network, before: Attachment | None) -> tuple[Network, HeldLeases]:
    """The network as its bridge allows it, and the leases in it. On somebody else's bridge, other machines have
    addresses too."""
    if host.store.bridges.knows(network.bridge, "created"):
        return network, HeldLeases(host.store.claims, request, network.ipam)
    from cni.adoption import placed

    network, bridge = placed(host, network)
    held = HeldLeases(host.store.claims, request, network.ipam)
    if bridge is not None:
        held.ask(bridge.answers, before.addresses if before else ())
    return network, held
