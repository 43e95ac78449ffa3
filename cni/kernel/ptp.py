"""A point-to-point attachment's projection into links: a veth pair without a bridge, the host's addresses and routes.

The host end has only the gateway's address (/32, /128) and a route to each of the container's addresses. The container
reaches everything through the gateway, its own subnet too, so containers share no layer 2. Each function may be
repeated. `pair` configures the inside of the container, with `Attachment.inner_routes`.
"""

from __future__ import annotations

import errno

from cni.kernel import rtnetlink, sysctl
from cni.kernel.dumps import read_addresses
from cni.kernel.links import Link, get_link
from cni.kernel.routes import look_up, repeatable
from cni.model.attachment import Attachment
from cni.model.names import derived_mac
from cni.protocol.errors import ADDRESS_TAKEN, IFNAME_TAKEN, IO_FAILURE, CniError, kernel_refused
from cni.protocol.spec import Interface, Result, ResultAddress
from nft.addresses import BITS, format_mac, host_prefix, link_local
from nft.netlink import Netlink


def create_pair(rtnl: Netlink, item: Attachment, netns: int) -> Link:
    """Makes the pair, its peer in the container's namespace. Returns the host end. Raises CniError."""
    mac = derived_mac("host", item.ident)
    payload = rtnetlink.new_veth(item.link, mac, item.mtu, 0, item.ifname, item.mac, netns)
    try:
        rtnl.ask(rtnetlink.RTM_NEWLINK, payload, rtnetlink.CREATE)
    except OSError as error:
        if error.errno == errno.EEXIST:
            what = f'CNI_IFNAME: the container already has an interface "{item.ifname}" that is not of this network'
            raise CniError(IFNAME_TAKEN, what) from None
        raise kernel_refused(f"creating {item.ifname} in {item.sandbox} and {item.link}", error) from None
    return host_end(rtnl, item)


def host_end(rtnl: Netlink, item: Attachment) -> Link:
    """The host end. Raises CniError 5 if it is missing."""
    port = get_link(rtnl, item.link)
    if port is None:
        raise CniError(IO_FAILURE, f"the link {item.link} of {item.ident} is gone")
    return port


def configure_host_end(rtnl: Netlink, item: Attachment, port: Link) -> None:
    """Gives the host end its addresses, sysctls and routes. Raises CniError 102 for an address that the host reaches by
    another link."""
    if not port.up:
        rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.set_up_again(port.index))
    if item.address_of(6) is not None or not sysctl.disable_ipv6(item.link):
        sysctl.refuse_advertisements(item.link)
    sysctl.loosen_reverse_path(item.link)
    if item.address_of(6) is not None and sysctl.read(f"ipv6/conf/{item.link}/disable_ipv6") == "0":
        # The kernel's own link-local address comes two seconds later, after duplicate address detection; until then the
        # host asks for no neighbour and forwards nothing to it (ndisc_send_ns).
        payload = rtnetlink.address(port.index, link_local(port.mac), rtnetlink.IFA_F_NODAD)
        repeatable(rtnl, rtnetlink.RTM_NEWADDR, payload, item.link)
    for prefix in item.gateways:
        flags = rtnetlink.IFA_F_NODAD if prefix.version == 6 else 0
        repeatable(rtnl, rtnetlink.RTM_NEWADDR, rtnetlink.address(port.index, prefix, flags), prefix)
    for address in item.addresses:
        way = look_up(rtnl, address, rtnetlink.RTM_F_FIB_MATCH)
        if way is not None and way.length == BITS[address.version] and way.link != port.index:
            raise CniError(ADDRESS_TAKEN, f"the host reaches {address} by another link already, not by {item.link}")
        dst = host_prefix(address)
        payload = rtnetlink.route(port.index, dst, None, {"scope": rtnetlink.RT_SCOPE_LINK})
        repeatable(rtnl, rtnetlink.RTM_NEWROUTE, payload, dst)


def host_end_problems(rtnl: Netlink, item: Attachment) -> list[str]:
    """The differences from the record, as sentences."""
    port = get_link(rtnl, item.link)
    if port is None:
        return [f"the link {item.link} is missing"]
    found = [] if port.up else [f"the link {item.link} is down"]
    have = read_addresses(rtnl, port.index)
    found += [f"{item.link} lacks the gateway address {prefix}" for prefix in item.gateways if prefix not in have]
    for address in item.addresses:
        way = look_up(rtnl, address)
        if way is None or way.link != port.index:
            found.append(f"the host does not reach {address} by {item.link}")
    return found


def result_of(item: Attachment, port: Link) -> Result:
    """What the runtime is told: both ends, and all addresses on the container's."""
    interfaces = (
        Interface(item.link, format_mac(port.mac), port.mtu),
        Interface(item.ifname, format_mac(item.mac), port.mtu, item.sandbox),
    )
    ips = tuple(ResultAddress(lease.address, lease.gateway, 1) for lease in item.leases)
    return Result(interfaces, ips, item.routes, item.dns)
