"""An attachment's projection into links: the bridge, the veth pair, addresses, routes, and the sysctls they need.

Each function makes or removes one thing and may be repeated. The order belongs to the verbs, the bytes to `wire`.
"""

from __future__ import annotations

import errno
import os
import time

from . import sysctl, wire
from .errors import IFNAME_TAKEN, INVALID_CONFIG, IO_FAILURE, CniError, kernel_refused
from .ip import Prefix, link_local
from .names import derived_mac
from .netlink import KernelError, Netlink, is_missing
from .netns import Inside
from .record import Attachment
from .spec import Route
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


FORWARDING_SECONDS = 1.0  # with the spanning tree protocol on, a port takes half a minute; nobody waits for that


class Link(Value):
    """What RTM_GETLINK says of one link, as far as it matters. `peer` is the other end's index."""

    index: int
    name: str
    kind: str
    mac: bytes
    mtu: int
    up: bool
    master: int
    peer: int
    hairpin: bool
    isolated: bool
    forwarding: bool
    flags: int
    queue: int


def get_link(rtnl: Netlink, name: str) -> Link | None:
    try:
        return read_link(rtnl.ask(wire.RTM_GETLINK, wire.get_link(name)))
    except OSError as error:
        if is_missing(error):
            return None
        raise


def read_link(payload: bytes) -> Link:
    _family, _type, index, flags, _change = wire.IFINFO.unpack_from(payload)
    found = wire.attributes(payload, wire.IFINFO.size)
    info = wire.attributes(found.get(wire.IFLA_LINKINFO, b""))
    port = wire.attributes(info.get(wire.IFLA_INFO_SLAVE_DATA, b""))
    return Link(
        index=index,
        name=_text(found.get(wire.IFLA_IFNAME, b"")),
        kind=_text(info.get(wire.IFLA_INFO_KIND, b"")),
        mac=found.get(wire.IFLA_ADDRESS, b""),
        mtu=_number(found.get(wire.IFLA_MTU, b"")),
        up=bool(flags & wire.IFF_UP),
        master=_number(found.get(wire.IFLA_MASTER, b"")),
        peer=_number(found.get(wire.IFLA_LINK, b"")),
        hairpin=port.get(wire.IFLA_BRPORT_MODE) == b"\x01",
        isolated=port.get(wire.IFLA_BRPORT_ISOLATED) == b"\x01",
        forwarding=port.get(wire.IFLA_BRPORT_STATE) == bytes([wire.BR_STATE_FORWARDING]),
        flags=flags,
        queue=_number(found.get(wire.IFLA_TXQLEN, b"")),
    )


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _number(raw: bytes) -> int:
    from sys import byteorder

    return int.from_bytes(raw, byteorder)


def bridge_mac(name: str) -> bytes:
    """The same at every start of one host, different on two hosts whose bridges may share a wire (machine-id(5))."""
    try:
        with open("/etc/machine-id", encoding="utf-8") as file:
            host = file.read().strip()
    except (OSError, ValueError):
        host = os.uname().nodename
    return derived_mac("bridge", host, name)


def create_bridge(rtnl: Netlink, name: str, mtu: int) -> None:
    """With a MAC address of its own: otherwise it takes, and changes with, the lowest of its ports'.

    With its link-local address at once: until the kernel has made one in its own time, and while that is tentative, up
    to two seconds after the first container came, it asks for no neighbour and so forwards no IPv6 (ndisc_send_ns,
    ipv6_get_lladdr).
    """
    mac = bridge_mac(name)
    try:
        rtnl.ask(wire.RTM_NEWLINK, wire.new_bridge(name, mac, mtu), wire.CREATE)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise kernel_refused(f"creating the bridge {name}", error) from None
    for key in ("accept_ra", "accept_dad"):
        sysctl.write(f"ipv6/conf/{name}/{key}", "0")
    link = get_link(rtnl, name)
    if link is not None and sysctl.read(f"ipv6/conf/{name}/disable_ipv6") == "0":
        _repeatable(rtnl, wire.RTM_NEWADDR, wire.address(link.index, link_local(mac), wire.IFA_F_NODAD), name)


def check_bridge(link: Link, name: str) -> None:
    if link.kind != "bridge":
        other = "" if link.name == name else f" (another name of {link.name})"
        raise CniError(
            INVALID_CONFIG,
            f'bridge: "{name}"{other} exists and is {link.kind or "a plain device"}, not a bridge',
            "choose another name for the key bridge, or remove that link",
        )


def ready_bridge(rtnl: Netlink, bridge: Link, item: Attachment, note: Callable[[Prefix], None]) -> list[Prefix]:
    """Up, with its gateway addresses and sysctls. `note(address)` is told before an address is added; returns those
    that were not there before."""
    if not bridge.up:
        rtnl.ask(wire.RTM_NEWLINK, wire.set_up(bridge.index))
    set_host_sysctls(item)
    added = []
    for prefix in item.gateways:
        try:
            note(prefix)
            flags = wire.IFA_F_NODAD if prefix.version == 6 else 0
            rtnl.ask(wire.RTM_NEWADDR, wire.address(bridge.index, prefix, flags), wire.CREATE)
            added.append(prefix)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise kernel_refused(f"adding {prefix} to the bridge {bridge.name}", error) from None
    return added


def set_host_sysctls(item: Attachment) -> None:
    for key, value in host_sysctls(item):
        if sysctl.read(key) not in (value, ""):
            sysctl.write(key, value)


def host_sysctls(item: Attachment) -> list[tuple[str, str]]:
    """Forwarding, and on the bridge route_localnet, without which 127.0.0.1 cannot reach a published port."""
    wanted = []
    if item.is_gateway and item.address_of(4):
        wanted.append(("ipv4/ip_forward", "1"))
        if item.bridge:
            wanted.append((f"ipv4/conf/{item.bridge}/route_localnet", "1"))
    if item.is_gateway and item.address_of(6):
        if item.own_link:
            wanted.append((f"ipv6/conf/{item.bridge}/disable_ipv6", "0"))
        wanted.append(("ipv6/conf/all/forwarding", "1"))
    return wanted


def create_veth(rtnl: Netlink, item: Attachment, bridge: Link, netns: int) -> None:
    host_mac = derived_mac("host", item.ident)
    payload = wire.new_veth(item.link, host_mac, item.mtu, bridge.index, item.ifname, item.mac, netns)
    try:
        rtnl.ask(wire.RTM_NEWLINK, payload, wire.CREATE)
    except OSError as error:
        raise _veth_error(error, item) from None
    finish_port(rtnl, item)


def _veth_error(error: OSError, item: Attachment) -> CniError:
    if error.errno == errno.EEXIST:
        return CniError(
            IFNAME_TAKEN,
            f'CNI_IFNAME: the container already has an interface "{item.ifname}" that is not of this network',
        )
    if error.errno == errno.EXFULL:
        return CniError(
            IO_FAILURE,
            f"the bridge {item.bridge} is full: a Linux bridge has at most 1023 ports",
            "spread the containers over several networks with a bridge each",
        )
    return kernel_refused(f"creating {item.ifname} in {item.sandbox} and {item.link} on {item.bridge}", error)


def finish_port(rtnl: Netlink, item: Attachment) -> None:
    """The port's flags, which the kernel takes only once the port exists, and no router advertisements on it."""
    port = get_link(rtnl, item.link)
    if port is None:
        raise CniError(IO_FAILURE, f"the link {item.link} of {item.ident} is gone")
    rtnl.ask(wire.RTM_NEWLINK, wire.set_port(port.index, item.hairpin, item.port_isolation))
    sysctl.write(f"ipv6/conf/{item.link}/accept_ra", "0")


def is_pair(port: Link, item: Attachment, netns: int) -> bool:
    """Whether the host end and the container's interface of the record are two ends of one pair."""
    with Inside(netns):
        inside = Netlink()
    link = get_link(inside, item.ifname)
    inside.close()
    return link is not None and link.peer == port.index and link.index == port.peer and link.mac == item.mac


def configure_container(item: Attachment, netns: int) -> Netlink:
    """Addresses, link up, routes, inside the namespace. Returns a socket in there, for `announce`."""
    with Inside(netns):
        rtnl = Netlink()
        try:
            link = get_link(rtnl, item.ifname)
            if link is None:
                raise CniError(IO_FAILURE, f"the interface {item.ifname} in {item.sandbox} is gone")
            for key, value in container_sysctls(item):
                sysctl.write(key, value)
            loopback = get_link(rtnl, "lo")
            if loopback is not None and not loopback.up:
                rtnl.ask(wire.RTM_NEWLINK, wire.set_up(loopback.index))
            for lease in item.leases:
                flags = wire.IFA_F_NODAD if lease.address.version == 6 and not item.dad else 0
                _repeatable(rtnl, wire.RTM_NEWADDR, wire.address(link.index, lease.address, flags), lease.address)
            if item.link_up:
                rtnl.ask(wire.RTM_NEWLINK, wire.set_up(link.index))
            for route in item.routes:
                payload = wire.route(link.index, route.dst, route.gw, dict(route.options))
                # Behind one to the same place by another interface, which may go: a container on two networks.
                _repeatable(rtnl, wire.RTM_NEWROUTE, payload, route_text(route), wire.APPEND)
            return rtnl
        except KernelError as error:
            raise kernel_refused(f"configuring {item.ifname} in {item.sandbox}", error) from None


def announce(rtnl: Netlink, item: Attachment, inside: Netlink) -> None:
    """Unsolicited ARP and neighbour advertisements for all addresses, so that neighbours forget who had them before.

    arp_notify and ndisc_notify make the kernel send them when the link comes up, but then the bridge port is not
    forwarding yet (the bridge hears of the carrier by linkwatch, a work queue) and drops them. They make it send them,
    too, when the MAC address is set, even to what it is (NETDEV_CHANGEADDR in devinet.c and ndisc.c).
    """
    end = time.monotonic() + FORWARDING_SECONDS
    while True:
        port = get_link(rtnl, item.link)
        if port is None or port.forwarding or time.monotonic() > end:
            break
        time.sleep(0.0001)
    link = get_link(inside, item.ifname)
    if link is not None:
        inside.ask(wire.RTM_NEWLINK, wire.tune(link.index, {}, item.mac, 0, None))


def container_sysctls(item: Attachment) -> list[tuple[str, str]]:
    wanted = [(f"ipv4/conf/{item.ifname}/arp_notify", "1")]
    if item.address_of(6) is None:
        return wanted
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


def route_text(route: Route) -> str:
    return f"{route.dst} via {route.gw}" if route.gw else str(route.dst)


def _repeatable(rtnl: Netlink, kind: int, payload: bytes, what: object, flags: int = wire.CREATE) -> None:
    try:
        rtnl.ask(kind, payload, flags)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise kernel_refused(f"adding {what}", error) from None
