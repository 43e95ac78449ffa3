"""The table's proper names and the types of its sets: said once, used by the text, the elements and the wire format."""

from __future__ import annotations

TABLE = "nftcni"

# Field kinds of keys and data, each padded to four bytes where it is part of a concatenation.
PROTO, PORT, ADDR4, ADDR6, IFNAME = "inet_proto", "inet_service", "ipv4_addr", "ipv6_addr", "ifname"

# name: (key fields, data fields); no data fields makes a set, some make a map.
SETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "attachments": ((ADDR6,), ()),  # no address: 16 bytes that stand for one attachment
    "bridges": ((IFNAME,), ()),
    "isolated": ((IFNAME,), ()),
    "same_net": ((IFNAME, IFNAME), ()),
    "own4": ((ADDR4, IFNAME), ()),
    "own6": ((ADDR6, IFNAME), ()),
    "masq4": ((ADDR4,), ()),
    "masq6": ((ADDR6,), ()),
    "shown4": ((ADDR4,), ()),  # whoever asks its published ports, nobody's address is changed
    "shown6": ((ADDR6,), ()),
    "hidden4": ((ADDR4,), ()),  # ... everybody's is
    "hidden6": ((ADDR6,), ()),
    "dnat4": ((PROTO, PORT), (ADDR4, PORT)),
    "dnat4_ip": ((ADDR4, PROTO, PORT), (ADDR4, PORT)),
    "dnat6": ((PROTO, PORT), (ADDR6, PORT)),
    "dnat6_ip": ((ADDR6, PROTO, PORT), (ADDR6, PORT)),
}


COMMENT_LIMIT = 128  # characters; nft's own parser takes no more (NFTNL_UDATA_COMMENT_MAXLEN)
