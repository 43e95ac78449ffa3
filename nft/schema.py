"""The table's proper names and the types of its sets: said once, used by the text, the elements and the wire format.

What an element of each set means is said here; who has which elements is its users' affair.
"""

from __future__ import annotations

TABLE = "nftcni"
FAST_PATH = "fast_path"  # the flowtable and its chain (`nft.fastpath`)

# Field kinds of keys and data, each padded to four bytes where it is part of a concatenation.
PROTO, PORT, ADDR4, ADDR6, IFNAME = "inet_proto", "inet_service", "ipv4_addr", "ipv6_addr", "ifname"
FAMILY, MAC = "nf_proto", "ether_addr"
VERDICT = "verdict"
TARGET = "integer"  # a neighbour advertisement's address: nft 1.0.6 has no name for the field

# name: (key fields, data fields); no data fields makes a set, some make a map.
SETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "attachments": ((ADDR6,), ()),  # no address: 16 bytes that stand for one attachment
    # Links of the host that lead to containers.
    "bridges": ((IFNAME,), ()),  # ours: everybody behind it is a container, known or not
    "same_net": ((IFNAME, IFNAME), ()),  # what stays on one link is let through
    "apart": ((IFNAME, IFNAME), ()),  # but for containers whose ports are isolated from each other
    "routed": ((FAMILY, IFNAME), ()),  # those of ours that the host forwards for; the others are internal
    "closed": ((FAMILY, IFNAME), ()),  # only published ports are reached from outside
    "isolated": ((IFNAME,), ()),  # ... and from other networks
    "masquerading": ((FAMILY, IFNAME), ()),  # whoever is not known on a bridge of ours is masqueraded as well
    "gates": ((IFNAME, MAC), ()),  # a bridge's own MAC address: what is sent there is for the host to route
    "unrouted": ((FAMILY, IFNAME), ()),  # links of a host that was no router before us
    "routing": ((FAMILY, IFNAME), ()),  # ... and of these the ones that forwarded on their own what came in by them
    # A container's addresses on its link.
    "containers4": ((IFNAME, ADDR4), ()),  # its answers come back to this host
    "containers6": ((IFNAME, ADDR6), ()),
    "guests4": ((IFNAME, ADDR4), ()),  # its gateway is another machine
    "guests6": ((IFNAME, ADDR6), ()),
    "cross4": ((IFNAME, ADDR4), ()),  # the link of its other network, where it would answer by the wrong interface
    "cross6": ((IFNAME, ADDR6), ()),
    "self4": ((ADDR4, ADDR4), ()),  # itself, where br_netfilter leaves no name of the link it came by
    "self6": ((ADDR6, ADDR6), ()),
    "masq4": ((ADDR4,), ()),
    "masq6": ((ADDR6,), ()),
    "shown4": ((ADDR4,), ()),  # whoever asks its published ports, nobody's address is changed
    "shown6": ((ADDR6,), ()),
    "hidden4": ((ADDR4,), ()),  # ... everybody's is
    "hidden6": ((ADDR6,), ()),
    "fast4": ((IFNAME, ADDR4), ()),  # its established flows pass by the flowtable (`nft.fastpath`)
    "fast6": ((IFNAME, ADDR6), ()),
    "fast_links": ((IFNAME,), ()),  # where such containers are
    "direct4": ((IFNAME, ADDR4), ()),  # prefixes that are never masqueraded
    "direct6": ((IFNAME, ADDR6), ()),
    # Published ports.
    "opened4": ((ADDR4, PROTO, PORT), ()),  # at the container's own address
    "opened6": ((ADDR6, PROTO, PORT), ()),
    "dnat4": ((PROTO, PORT), (ADDR4, PORT)),
    "dnat4_ip": ((ADDR4, PROTO, PORT), (ADDR4, PORT)),
    "dnat6": ((PROTO, PORT), (ADDR6, PORT)),
    "dnat6_ip": ((ADDR6, PROTO, PORT), (ADDR6, PORT)),
    # Those of them that only some packets reach: the chain that says which (`nft.conditions`).
    "gated4": ((PROTO, PORT), (VERDICT,)),
    "gated4_ip": ((ADDR4, PROTO, PORT), (VERDICT,)),
    "gated6": ((PROTO, PORT), (VERDICT,)),
    "gated6_ip": ((ADDR6, PROTO, PORT), (VERDICT,)),
}
# In the table of family bridge: what a container's port may send to the bridge.
LAYER2: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "guarded": ((IFNAME,), ()),  # the ports that are looked at
    "checked": ((IFNAME,), ()),  # the ports that let no other MAC address pass than their own
    "own_macs": ((IFNAME, MAC), ()),
    "holds4": ((IFNAME, ADDR4), ()),
    "holds6": ((IFNAME, ADDR6), ()),
    "advertised": ((IFNAME, TARGET), ()),  # the same addresses once more
    "taken_macs": ((MAC,), ()),  # of all containers and bridges: nobody else may have them
    "taken4": ((ADDR4,), ()),
    "taken6": ((ADDR6,), ()),
    "taken_targets": ((TARGET,), ()),
}
SETS.update(LAYER2)
GATES = ("gated4", "gated4_ip", "gated6", "gated6_ip")  # the verdict maps
INTERVALS = ("direct4", "direct6")  # the last field of their keys is a prefix


COMMENT_LIMIT = 128  # characters; nft's own parser takes no more (NFTNL_UDATA_COMMENT_MAXLEN)
