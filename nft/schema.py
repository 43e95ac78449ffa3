"""The table's name and the types of its sets, for the text, the elements and the messages alike.

The comments say what an element of each set means; callers know who has which elements.
"""

from __future__ import annotations

from .digest import digest

TABLE = "nftcni"
FAST_PATH = "fast_path"  # the flowtable and its chain (`nft.fastpath`)
WHEN = "when_"  # how the names of the conditions' chains begin

# The kinds of fields in keys and data; in a concatenation each is padded to four bytes.
PROTO, PORT, ADDR4, ADDR6, IFNAME = "inet_proto", "inet_service", "ipv4_addr", "ipv6_addr", "ifname"
FAMILY, MAC = "nf_proto", "ether_addr"
VERDICT = "verdict"
TARGET = "integer"  # a neighbour advertisement's address: nft 1.0.6 has no name for the field

# name: (key fields, data fields). A set has no data fields, a map has some.
SETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "attachments": ((ADDR6,), ()),  # not an address: 16 bytes that stand for one attachment
    # The host's links that lead to containers.
    "bridges": ((IFNAME,), ()),  # ours: everybody behind it is a container, known or not
    "same_net": ((IFNAME, IFNAME), ()),  # packets that stay on one link are let through
    "apart": ((IFNAME, IFNAME), ()),  # except between containers whose ports are isolated from each other
    "routed": ((FAMILY, IFNAME), ()),  # bridges of ours that the host forwards for; the others are internal
    "closed": ((FAMILY, IFNAME), ()),  # the outside reaches published ports only
    "isolated": ((IFNAME,), ()),  # ... and so do other networks
    "masquerading": ((FAMILY, IFNAME), ()),  # unknown machines on this bridge of ours are masqueraded as well
    "bridge_macs": ((IFNAME, MAC), ()),  # a bridge's and its ports' own MAC addresses: frames to them are the host's
    "vlan_bridges": ((IFNAME,), ()),  # bridges of ours that have VLANs whose gateway is this host
    "vlans": ((IFNAME,), ()),  # ... and the links of those VLANs
    "unrouted": ((FAMILY, IFNAME), ()),  # links of a host that was not a router before us
    "routing": ((FAMILY, IFNAME), ()),  # ... and those of them whose own forwarding was on
    # A container's addresses on its link.
    "containers4": ((IFNAME, ADDR4), ()),  # this host is its router, so its answers come back here
    "containers6": ((IFNAME, ADDR6), ()),
    "guests4": ((IFNAME, ADDR4), ()),  # its gateway is another machine
    "guests6": ((IFNAME, ADDR6), ()),
    "cross4": ((IFNAME, ADDR4), ()),  # on its other network's link, where it would answer by the wrong interface
    "cross6": ((IFNAME, ADDR6), ()),
    "self4": ((ADDR4, ADDR4), ()),  # a container that asks itself: with br_netfilter the incoming link has no name
    "self6": ((ADDR6, ADDR6), ()),
    "masq4": ((ADDR4,), ()),
    "masq6": ((ADDR6,), ()),
    "shown4": ((ADDR4,), ()),  # clients of its published ports keep their addresses
    "shown6": ((ADDR6,), ()),
    "hidden4": ((ADDR4,), ()),  # ... or are all masqueraded
    "hidden6": ((ADDR6,), ()),
    "fast4": ((IFNAME, ADDR4), ()),  # its established flows go through the flowtable (`nft.fastpath`)
    "fast6": ((IFNAME, ADDR6), ()),
    "fast_links": ((IFNAME,), ()),  # bridges of such containers
    "direct4": ((IFNAME, ADDR4), ()),  # destinations that are never masqueraded
    "direct6": ((IFNAME, ADDR6), ()),
    # Published ports.
    "opened4": ((ADDR4, PROTO, PORT), ()),  # at the container's own address
    "opened6": ((ADDR6, PROTO, PORT), ()),
    "dnat4": ((PROTO, PORT), (ADDR4, PORT)),
    "dnat4_ip": ((ADDR4, PROTO, PORT), (ADDR4, PORT)),
    "dnat6": ((PROTO, PORT), (ADDR6, PORT)),
    "dnat6_ip": ((ADDR6, PROTO, PORT), (ADDR6, PORT)),
    # Published ports with a condition, and the chain that holds it (`nft.conditions`).
    "gated4": ((PROTO, PORT), (VERDICT,)),
    "gated4_ip": ((ADDR4, PROTO, PORT), (VERDICT,)),
    "gated6": ((PROTO, PORT), (VERDICT,)),
    "gated6_ip": ((ADDR6, PROTO, PORT), (VERDICT,)),
}
# The sets of the table of family bridge: what a container's port may send to the bridge.
LAYER2: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "guarded": ((IFNAME,), ()),  # the ports whose frames are checked
    "checked": ((IFNAME,), ()),  # the ports that let only their own MAC address pass
    "own_macs": ((IFNAME, MAC), ()),
    "holds4": ((IFNAME, ADDR4), ()),
    "holds6": ((IFNAME, ADDR6), ()),
    "advertised": ((IFNAME, TARGET), ()),  # the addresses of holds6 once more
    "taken_macs": ((MAC,), ()),  # the MAC addresses of all containers and bridges: nobody else may use them
    "taken4": ((ADDR4,), ()),
    "taken6": ((ADDR6,), ()),
    "taken_targets": ((TARGET,), ()),
}
SETS.update(LAYER2)
GATES = ("gated4", "gated4_ip", "gated6", "gated6_ip")  # the verdict maps
INTERVALS = ("direct4", "direct6")  # the last field of their keys is a prefix
COMMENT_LIMIT = 128  # characters; nft's own parser allows no more (NFTNL_UDATA_COMMENT_MAXLEN)


def condition_chain(text: str) -> str:
    """The name of the chain that holds a condition, which ports with the same condition share."""
    return WHEN + digest("condition", text, size=4).hex()
