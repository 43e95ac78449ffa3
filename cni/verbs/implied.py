"""What a configuration of our own type leaves to the host: the MTU of the way out, and whether to set a default route.

Only missing keys are decided here; under the reference plugins' names, their defaults hold. Nothing is changed.
"""

from __future__ import annotations

from cni.host import Host
from cni.kernel import rtnetlink
from cni.kernel.links import get_link, read_link
from cni.kernel.netns import Inside
from cni.kernel.routes import default_links
from cni.model.config import LEAST_MTU, Network
from cni.model.names import is_first
from cni.protocol.request import Request
from nft.netlink import Netlink

ETHERNET = 1500  # the kernel's own for a veth pair


def with_implied(host: Host, request: Request, network: Network, netns: int) -> Network:
    """The network with its missing keys decided."""
    if request.role:
        return network
    if not network.mtu:
        network = network.replace(mtu=_implied_mtu(host, network))
    if network.default_implied and not is_first(request.ifname):
        network = network.replace(is_further=True, has_default=_default_versions(request.ifname, netns))
    return network


def _implied_mtu(host: Host, network: Network) -> int:
    """The bridge's MTU, else that of the default route's link (1400 under a VPN); 0 for the usual one."""
    bridge = get_link(host.rtnl, network.bridge) if network.bridge else None
    if bridge is not None:
        mtu = bridge.mtu
    else:
        ways = [link for version in (4, 6) for link in default_links(host.rtnl, version)]
        if not ways:
            return 0
        mtu = read_link(host.rtnl.ask(rtnetlink.RTM_GETLINK, rtnetlink.get_link_at(ways[0]))).mtu
    versions = {ranges[0].subnet.version for ranges in network.ipam.range_sets}
    mtu = min(max(mtu, *(LEAST_MTU[version] for version in versions or {4})), 65535)
    return 0 if mtu == ETHERNET else mtu


def _default_versions(ifname: str, netns: int) -> tuple[int, ...]:
    """The IP versions for which the container has a default route by another interface, on another network."""
    with Inside(netns):
        inside = Netlink()
    own = get_link(inside, ifname)
    index = own.index if own else 0
    found = tuple(version for version in (4, 6) if {*default_links(inside, version)} - {index})
    inside.close()
    return found
