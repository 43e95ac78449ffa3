"""VLANs of a bridge: a port's native VLAN and trunk, the bridge's own membership, the host's link in a VLAN.

Only bridges that filter VLANs know them. Ours filter from the start if a network asks for a VLAN; somebody else's is
left as it is, because filtering would cut off or join its other ports. A port's VLANs go with the port. The numbers are
from the kernel's include/uapi/linux/if_bridge.h and if_link.h.
"""

from __future__ import annotations

import errno
from sys import byteorder

from cni.kernel import rtnetlink
from cni.kernel.links import Link
from cni.kernel.rtnetlink import (
    IFF_UP,
    IFINFO,
    IFLA_EXT_MASK,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINK,
    IFLA_LINKINFO,
)
from cni.model.attachment import Attachment
from cni.model.wire import Wire
from cni.protocol.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError, kernel_refused
from nft.framing import NLA, NLA_TYPE_MASK, attr, attr_name, attr_u32, attributes, walk
from nft.netlink import Netlink, is_missing
from nft.stdlib import Struct

AF_BRIDGE = 7
IFLA_AF_SPEC, IFLA_BRIDGE_FLAGS, IFLA_BRIDGE_VLAN_INFO = 26, 0, 2
BRIDGE_FLAGS_SELF = 2
IFLA_VLAN_ID = 1
IFLA_BR_VLAN_FILTERING, IFLA_BR_VLAN_DEFAULT_PVID = 7, 39
PVID, UNTAGGED, RANGE_BEGIN, RANGE_END = 0x2, 0x4, 0x8, 0x10
RTEXT_FILTER_BRVLAN = 1 << 1
NATIVE = 1  # the native VLAN of a trunk without `vlan`, as in the reference bridge
_VLAN = Struct("=HH")  # flags, number


def filter_vlans(index: int) -> bytes:
    data = attr(IFLA_BR_VLAN_FILTERING, b"\x01")
    info = attr_name(IFLA_INFO_KIND, "bridge") + attr(IFLA_INFO_DATA, data)
    return IFINFO.pack(0, 0, index, 0, 0) + attr(IFLA_LINKINFO, info)


def new_vlan(name: str, bridge: int, number: int) -> bytes:
    """A link in a VLAN of the bridge. It gets the bridge's MAC address and MTU (vlan_dev_init)."""
    data = attr(IFLA_VLAN_ID, number.to_bytes(2, byteorder))
    info = attr_name(IFLA_INFO_KIND, "vlan") + attr(IFLA_INFO_DATA, data)
    body = IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP) + attr_name(IFLA_IFNAME, name)
    return body + attr_u32(IFLA_LINK, bridge) + attr(IFLA_LINKINFO, info)


def vlans(index: int, spans: list[tuple[int, int, int]], own: bool = False) -> bytes:
    """A message with (flags, first, last) spans, which RTM_SETLINK adds to a port and RTM_DELLINK removes; with `own`,
    for the bridge's own membership."""
    packed = attr(IFLA_BRIDGE_FLAGS, BRIDGE_FLAGS_SELF.to_bytes(2, byteorder)) if own else b""
    for flags, first, last in spans:
        if first == last:
            packed += attr(IFLA_BRIDGE_VLAN_INFO, _VLAN.pack(flags, first))
        else:
            packed += attr(IFLA_BRIDGE_VLAN_INFO, _VLAN.pack(flags | RANGE_BEGIN, first))
            packed += attr(IFLA_BRIDGE_VLAN_INFO, _VLAN.pack(flags | RANGE_END, last))
    return IFINFO.pack(AF_BRIDGE, 0, index, 0, 0) + attr(IFLA_AF_SPEC, packed)


def list_vlans() -> bytes:
    return IFINFO.pack(AF_BRIDGE, 0, 0, 0, 0) + attr_u32(IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN)


def read_vlans(payload: bytes) -> tuple[int, dict[int, int]]:
    """(link index, flags by VLAN number) of one port."""
    index = IFINFO.unpack_from(payload)[2]
    found = {}
    for (_length, kind), body in walk(attributes(payload, IFINFO.size).get(IFLA_AF_SPEC, b""), NLA):
        if kind & NLA_TYPE_MASK == IFLA_BRIDGE_VLAN_INFO:
            flags, number = _VLAN.unpack_from(body)
            found[number] = flags & (PVID | UNTAGGED)
    return index, found


def wanted(wire: Wire) -> list[tuple[int, int, int]]:
    """(flags, first, last) of the VLANs that the port should have. The native VLAN comes last, because the trunk may
    hold it as well."""
    native = wire.vlan or NATIVE
    return [(0, first, last) for first, last in wire.trunk] + [(PVID | UNTAGGED, native, native)]


def numbers(wire: Wire) -> dict[int, int]:
    return {number: flags for flags, first, last in wanted(wire) for number in range(first, last + 1)}


def require_filtering(rtnl: Netlink, name: str, ours: bool) -> None:
    """Makes our bridge filter VLANs. Raises CniError 2 if the kernel cannot, 7 if somebody else's bridge does not."""
    payload = rtnl.ask(rtnetlink.RTM_GETLINK, rtnetlink.get_link(name))
    info = attributes(attributes(payload, IFINFO.size).get(IFLA_LINKINFO, b""))
    data = attributes(info.get(IFLA_INFO_DATA, b""))
    if data.get(IFLA_BR_VLAN_FILTERING, b"\0") == b"\x01":
        return
    if not ours:
        raise CniError(
            INVALID_CONFIG,
            f"vlan: the bridge {name}, which others made, does not filter VLANs",
            f"ask its owner to run: ip link set {name} type bridge vlan_filtering 1",
        )
    try:
        rtnl.ask(rtnetlink.RTM_NEWLINK, filter_vlans(IFINFO.unpack_from(payload)[2]))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            what = "vlan: bridges of this kernel have no VLANs (BRIDGE_VLAN_FILTERING)"
            raise CniError(UNSUPPORTED_FIELD, what) from None
        raise kernel_refused(f"having the bridge {name} filter VLANs", error) from None


def tag(rtnl: Netlink, item: Attachment, port: Link) -> None:
    """Gives the port the VLANs that the record asks for. May be repeated. Raises CniError 5."""
    try:
        rtnl.ask(rtnetlink.RTM_SETLINK, vlans(port.index, wanted(item.wire)))
        default = _default_vlan(rtnl, item.master)
        if default and not item.wire.default_vlan and default not in numbers(item.wire):
            _take(rtnl, port, default)
    except OSError as error:
        raise kernel_refused(f"setting the VLANs of {item.link} on {item.master}", error) from None


def _take(rtnl: Netlink, port: Link, number: int) -> None:
    try:
        rtnl.ask(rtnetlink.RTM_DELLINK, vlans(port.index, [(0, number, number)]))
    except OSError as error:
        if not is_missing(error):
            raise


def _default_vlan(rtnl: Netlink, bridge: str) -> int:
    """The VLAN that the bridge gives each new port, 0 for none."""
    payload = rtnl.ask(rtnetlink.RTM_GETLINK, rtnetlink.get_link(bridge))
    info = attributes(attributes(payload, IFINFO.size).get(IFLA_LINKINFO, b""))
    return int.from_bytes(attributes(info.get(IFLA_INFO_DATA, b"")).get(IFLA_BR_VLAN_DEFAULT_PVID, b""), byteorder)


def held_vlans(rtnl: Netlink, index: int) -> dict[int, int]:
    """Flags by VLAN number, of a port or of a bridge itself. The kernel can only list all ports."""
    return dict(map(read_vlans, rtnl.dump(rtnetlink.RTM_GETLINK, list_vlans()))).get(index, {})


def vlan_problems(rtnl: Netlink, item: Attachment, port: Link) -> list[str]:
    """The differences from the record, as sentences."""
    held = held_vlans(rtnl, port.index)
    found = []
    for number, flags in numbers(item.wire).items():
        if held.get(number) != flags:
            state = "lacks" if number not in held else "has otherwise"
            found.append(f"the port {item.link} {state} the VLAN {number}")
    more = sorted(held.keys() - numbers(item.wire).keys())
    if more and not item.wire.default_vlan:
        found.append(f"the port {item.link} has the VLAN {more[0]} as well")
    return found
