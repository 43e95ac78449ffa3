"""An attachment's projection into links: the veth pair, and the container's addresses, routes and sysctls.

Each function makes one thing and may be repeated; `harden` is for every new link of ours. The bridge is `cni.bridge`,
looking links up `links`, taking them away `deletion`; the order belongs to the verbs, the bytes to `rtnetlink`.
"""

from __future__ import annotations

import errno
import time

from cni.kernel import rtnetlink, sysctl
from cni.kernel.links import Link, get_link
from cni.kernel.netns import Inside
from cni.kernel.routes import add_route, repeatable
from cni.model.attachment import Attachment
from cni.model.names import derived_mac
from cni.protocol.errors import IFNAME_TAKEN, IO_FAILURE, CniError, kernel_refused
from cni.protocol.log import say
from nft.addresses import link_local
from nft.errors import KernelError
from nft.netlink import Netlink

FORWARDING_SECONDS = 1.0  # with the spanning tree protocol on, a port takes half a minute; nobody waits for that


def harden(rtnl: Netlink, name: str, mac: bytes) -> None:
    """Prepares a new link of ours, so that neighbours cannot configure it.

    It gets its link-local address at once. The kernel would make one later and keep it tentative, for up to two seconds
    after the first container; until then the host solicits no neighbour there and forwards no IPv6 (ndisc_send_ns,
    ipv6_get_lladdr).
    """
    sysctl.refuse_advertisements(name)
    sysctl.loosen_reverse_path(name)
    for key in ("accept_redirects", "accept_dad"):
        sysctl.try_to_write(f"ipv6/conf/{name}/{key}", "0")
    link = get_link(rtnl, name)
    if link is not None and sysctl.read(f"ipv6/conf/{name}/disable_ipv6") == "0":
        payload = rtnetlink.address(link.index, link_local(mac), rtnetlink.IFA_F_NODAD)
        repeatable(rtnl, rtnetlink.RTM_NEWADDR, payload, name)


def create_veth(rtnl: Netlink, item: Attachment, bridge: Link, netns: int) -> None:
    host_mac = derived_mac("host", item.ident)
    payload = rtnetlink.new_veth(item.link, host_mac, item.mtu, bridge.index, item.ifname, item.mac, netns)
    try:
        rtnl.ask(rtnetlink.RTM_NEWLINK, payload, rtnetlink.CREATE)
    except OSError as error:
        raise _veth_error(error, item) from None
    finish_port(rtnl, item, bridge)


def _veth_error(error: OSError, item: Attachment) -> CniError:
    if error.errno == errno.EEXIST:
        return CniError(
            IFNAME_TAKEN,
            f'CNI_IFNAME: the container already has an interface "{item.ifname}" that is not of this network',
        )
    if error.errno == errno.EXFULL:
        return CniError(
            IO_FAILURE,
            f"the bridge {item.master} is full: a Linux bridge has at most 1023 ports",
            "spread the containers over several networks with a bridge each",
        )
    return kernel_refused(f"creating {item.ifname} in {item.sandbox} and {item.link} on {item.master}", error)


def finish_port(rtnl: Netlink, item: Attachment, bridge: Link) -> None:
    """Puts the host end into its bridge, with the port's flags, which the kernel takes only once the port exists, and
    without IPv6 of its own: what comes in by a port, the bridge has."""
    port = get_link(rtnl, item.link)
    if port is None:
        raise CniError(IO_FAILURE, f"the link {item.link} of {item.ident} is gone")
    if port.master != bridge.index:
        rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.set_master(port.index, bridge.index))
    rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.set_port(port.index, item.hairpin, item.port_isolation))
    if not port.up:  # of a DEL or GC that was killed, or by hand
        rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.set_up(port.index))
    sysctl.disable_ipv6(item.link)


def is_pair(port: Link, item: Attachment, netns: int) -> bool:
    """Whether the host end and the container's interface of the record are two ends of one pair."""
    with Inside(netns):
        inside = Netlink()
    link = get_link(inside, item.ifname)
    inside.close()
    return link is not None and link.peer == port.index and link.index == port.peer and link.mac == item.mac


def configure_container(item: Attachment, netns: int) -> Netlink:
    """Sets addresses, link and routes inside the namespace. Returns a socket in there, for `announce`."""
    with Inside(netns):
        rtnl = Netlink()
        try:
            link = get_link(rtnl, item.ifname)
            if link is None:
                raise CniError(IO_FAILURE, f"the interface {item.ifname} in {item.sandbox} is gone")
            for key, value in container_sysctls(item):
                _write_inside(key, value)
            loopback = get_link(rtnl, "lo")
            if loopback is not None and not loopback.up:
                rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.set_up(loopback.index))
            for lease in item.leases:
                flags = rtnetlink.IFA_F_NODAD if lease.address.version == 6 and not item.dad else 0
                flags |= rtnetlink.IFA_F_NOPREFIXROUTE if item.is_ptp else 0
                payload = rtnetlink.address(link.index, lease.address, flags)
                repeatable(rtnl, rtnetlink.RTM_NEWADDR, payload, lease.address)
            if item.link_up:
                rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.set_up(link.index))
            for route in item.inner_routes:
                add_route(rtnl, link.index, route, item.source_of(route))
            return rtnl
        except KernelError as error:
            raise kernel_refused(f"configuring {item.ifname} in {item.sandbox}", error) from None


def _write_inside(key: str, value: str) -> None:
    """Enabling IPv6 must succeed. A failed precaution against router advertisements is logged, the rest is optional."""
    setting = key.rpartition("/")[2], value
    if setting == ("disable_ipv6", "0"):
        sysctl.write(key, value)
    elif not sysctl.try_to_write(key, value) and setting in PRECAUTIONS:
        say(f"/proc/sys is read-only: net/{key} is not {value} in the container")


def announce(rtnl: Netlink, item: Attachment, inside: Netlink) -> None:
    """Sends unsolicited ARP and neighbour advertisements for all addresses, so that neighbours forget earlier owners.

    arp_notify and ndisc_notify make the kernel send them when the link comes up, but then the bridge port is not
    forwarding yet (the bridge hears of the carrier by linkwatch, a work queue) and drops them. The kernel also sends
    them when the MAC address is set, even to its present value (NETDEV_CHANGEADDR in devinet.c and ndisc.c).
    """
    end = time.monotonic() + FORWARDING_SECONDS
    while True:
        port = get_link(rtnl, item.link)
        if port is None or port.forwarding or time.monotonic() > end:
            break
        time.sleep(0.0001)
    link = get_link(inside, item.ifname)
    if link is not None:
        inside.ask(rtnetlink.RTM_NEWLINK, rtnetlink.tune(link.index, {}, item.mac, 0, None))


# Against neighbours' router advertisements, in networks without IPv6.
PRECAUTIONS = (("disable_ipv6", "1"), ("accept_ra", "0"), ("accept_redirects", "0"))


def container_sysctls(item: Attachment) -> list[tuple[str, str]]:
    wanted = [(f"ipv4/conf/{item.ifname}/arp_notify", "1")]
    if item.address_of(6) is None:
        # No rule would cover the IPv6 that a neighbour's router advertisement brings (CVE-2020-10749).
        off = item.leases and not item.uplink
        return [*wanted, (f"ipv6/conf/{item.ifname}/disable_ipv6", "1")] if off else wanted
    if not item.uplink:
        wanted.append((f"ipv6/conf/{item.ifname}/accept_ra", "0"))
        wanted.append((f"ipv6/conf/{item.ifname}/accept_redirects", "0"))
    dad = "1" if item.dad else "0"
    return wanted + [
        (f"ipv6/conf/{item.ifname}/{key}", value)
        for key, value in (
            ("disable_ipv6", "0"),
            ("keep_addr_on_down", "1"),
            ("accept_dad", dad),
            ("enhanced_dad", dad),
            ("ndisc_notify", "1"),
        )
    ]
