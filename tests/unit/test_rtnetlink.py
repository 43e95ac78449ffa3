"""Our rtnetlink bytes against pyroute2's, message by message, and our reader against its encoder."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni.kernel import rtnetlink
from cni.kernel.links import read_link
from nft import framing
from nft.addresses import parse_address, parse_mac, parse_prefix
from nft.framing import NLMSG

MAC, OTHER = "02:11:22:33:44:55", "02:66:77:88:99:aa"
NAME = "veth0123456789a"


def theirs(kind: Any, attrs: list[Any], **fields: int) -> bytes:
    """The payload that pyroute2 encodes, without its netlink header."""
    message = kind()
    for key, value in fields.items():
        message[key] = value
    message["attrs"] = attrs
    message.encode()
    return bytes(message.data)[NLMSG.size :]


def link(attrs: list[Any], **fields: int) -> bytes:
    return theirs(ifinfmsg, attrs, **{"family": 0, **fields})


LINKS = {
    "get": (rtnetlink.get_link("eth0"), link([("IFLA_IFNAME", "eth0"), ("IFLA_EXT_MASK", 8)])),
    "delete": (rtnetlink.link_named(NAME), link([("IFLA_IFNAME", NAME)])),
    "bridge": (
        rtnetlink.new_bridge("br0", parse_mac(MAC), 1500),
        link(
            [
                ("IFLA_IFNAME", "br0"),
                ("IFLA_ADDRESS", MAC),
                ("IFLA_MTU", 1500),
                ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]}),
            ],
            flags=1,
            change=1,
        ),
    ),
    "veth": (
        rtnetlink.new_veth(NAME, parse_mac(MAC), 9000, 7, "eth0", parse_mac(OTHER), 11),
        link(
            [
                ("IFLA_IFNAME", NAME),
                ("IFLA_ADDRESS", MAC),
                ("IFLA_MTU", 9000),
                ("IFLA_MASTER", 7),
                (
                    "IFLA_LINKINFO",
                    {
                        "attrs": [
                            ("IFLA_INFO_KIND", "veth"),
                            (
                                "IFLA_INFO_DATA",
                                {
                                    "attrs": [
                                        (
                                            "VETH_INFO_PEER",
                                            {
                                                "attrs": [
                                                    ("IFLA_IFNAME", "eth0"),
                                                    ("IFLA_ADDRESS", OTHER),
                                                    ("IFLA_MTU", 9000),
                                                    ("IFLA_NET_NS_FD", 11),
                                                ]
                                            },
                                        )
                                    ]
                                },
                            ),
                        ]
                    },
                ),
            ],
            flags=1,
            change=1,
        ),
    ),
    "port": (
        rtnetlink.set_port(9, True, False),
        link(
            [
                ("IFLA_GROUP", 0),
                (
                    "IFLA_LINKINFO",
                    {
                        "attrs": [
                            ("IFLA_INFO_SLAVE_KIND", "bridge"),
                            (
                                "IFLA_INFO_SLAVE_DATA",
                                {"attrs": [("IFLA_BRPORT_MODE", 1), ("IFLA_BRPORT_ISOLATED", 0)]},
                            ),
                        ]
                    },
                ),
            ],
            index=9,
        ),
    ),
    "up": (rtnetlink.set_up(9), link([], index=9, flags=1, change=1)),
    "group": (rtnetlink.group(77), link([("IFLA_GROUP", 77)])),
    "into-group": (rtnetlink.set_group("eth0", 77), link([("IFLA_IFNAME", "eth0"), ("IFLA_GROUP", 77)])),
    "tune": (
        rtnetlink.tune(9, {rtnetlink.IFF_PROMISC: True, rtnetlink.IFF_ALLMULTI: False}, parse_mac(MAC), 1400, 77),
        link([("IFLA_ADDRESS", MAC), ("IFLA_MTU", 1400), ("IFLA_TXQLEN", 77)], index=9, flags=0x100, change=0x300),
    ),
}


@pytest.mark.parametrize("name", LINKS)
def test_link_messages(name: str) -> None:
    ours, pyroute2 = LINKS[name]
    assert ours == pyroute2


@pytest.mark.parametrize(
    ("text", "flags", "attrs", "family"),
    [
        (
            "10.88.0.2/24",
            0,
            [("IFA_LOCAL", "10.88.0.2"), ("IFA_ADDRESS", "10.88.0.2"), ("IFA_BROADCAST", "10.88.0.255")],
            2,
        ),
        ("10.88.0.2/32", 0, [("IFA_LOCAL", "10.88.0.2"), ("IFA_ADDRESS", "10.88.0.2")], 2),
        (
            "fd00::2/64",
            rtnetlink.IFA_F_NODAD,
            [("IFA_LOCAL", "fd00::2"), ("IFA_ADDRESS", "fd00::2"), ("IFA_FLAGS", 2)],
            10,
        ),
    ],
)
def test_address_messages(text: str, flags: int, attrs: list[Any], family: int) -> None:
    prefix = parse_prefix(text)
    expected = theirs(ifaddrmsg, attrs, family=family, prefixlen=prefix.length, flags=flags, scope=0, index=5)
    assert rtnetlink.address(5, prefix, flags) == expected


@pytest.mark.parametrize(
    ("dst", "gateway", "options", "fields", "attrs"),
    [
        ("0.0.0.0/0", "10.88.0.1", {}, {}, [("RTA_OIF", 5), ("RTA_GATEWAY", "10.88.0.1")]),
        ("192.0.2.0/24", None, {}, {"scope": 253}, [("RTA_DST", "192.0.2.0"), ("RTA_OIF", 5)]),
        ("::/0", "fd00::1", {}, {"family": 10}, [("RTA_OIF", 5), ("RTA_GATEWAY", "fd00::1")]),
        (
            "192.0.2.0/24",
            "10.88.0.1",
            {"priority": 7, "mtu": 1400, "advmss": 1360, "table": 500},
            {"table": 0},
            [
                ("RTA_DST", "192.0.2.0"),
                ("RTA_OIF", 5),
                ("RTA_GATEWAY", "10.88.0.1"),
                ("RTA_PRIORITY", 7),
                ("RTA_METRICS", {"attrs": [("RTAX_MTU", 1400), ("RTAX_ADVMSS", 1360)]}),
                ("RTA_TABLE", 500),
            ],
        ),
    ],
)
def test_route_messages(
    dst: str, gateway: str | None, options: dict[str, int], fields: dict[str, int], attrs: list[Any]
) -> None:
    prefix = parse_prefix(dst)
    common = {"family": 2, "dst_len": prefix.length, "table": 254, "proto": 4, "scope": 0, "type": 1, "flags": 0}
    ours = rtnetlink.route(5, prefix, parse_address(gateway) if gateway else None, options)
    assert ours == theirs(rtmsg, attrs, **{**common, **fields})


def test_the_header_of_a_message() -> None:
    message = ifinfmsg()
    message["header"].update({"type": 16, "flags": 0x605, "sequence_number": 9, "pid": 0})
    message["attrs"] = [("IFLA_IFNAME", "eth0")]
    message.encode()
    assert framing.message(16, 0x605, 9, rtnetlink.link_named("eth0")) == bytes(message.data)


def test_reading_a_link_that_pyroute2_wrote() -> None:
    payload = link(
        [
            ("IFLA_IFNAME", "veth1"),
            ("IFLA_ADDRESS", MAC),
            ("IFLA_MTU", 1400),
            ("IFLA_MASTER", 3),
            ("IFLA_LINK", 8),
            ("IFLA_TXQLEN", 1000),
            (
                "IFLA_LINKINFO",
                {
                    "attrs": [
                        ("IFLA_INFO_KIND", "veth"),
                        ("IFLA_INFO_SLAVE_KIND", "bridge"),
                        ("IFLA_INFO_SLAVE_DATA", {"attrs": [("IFLA_BRPORT_MODE", 1), ("IFLA_BRPORT_ISOLATED", 1)]}),
                    ]
                },
            ),
        ],
        index=4,
        flags=1,
    )
    found = read_link(payload)
    assert (found.index, found.name, found.kind, found.mac) == (4, "veth1", "veth", parse_mac(MAC))
    assert (found.mtu, found.master, found.peer, found.queue) == (1400, 3, 8, 1000)
    assert found.up and found.hairpin and found.isolated


@given(st.binary(max_size=200))
def test_readers_bear_any_bytes(data: bytes) -> None:
    assert isinstance(framing.attributes(data), dict)
    for _kind, _flags, _sequence, body in framing.messages(data):
        assert len(body) <= len(data)


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=50)))
def test_attributes_come_back(parts: dict[int, bytes]) -> None:
    assert framing.attributes(b"".join(framing.attr(kind, data) for kind, data in parts.items())) == parts
