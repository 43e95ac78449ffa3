"""Traffic control and VLAN messages against pyroute2's, byte for byte or decoded by it; readers against encoders."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from cni.kernel import loopback_guard, qdisc, vlans
from cni.model.wire import Wire, wire_from
from nft.framing import NLMSG
from nft.framing import message as framed


def encoded(kind: Any, attrs: list[Any], **fields: int) -> bytes:
    """The payload that pyroute2 encodes, without its netlink header."""
    message = kind()
    for key, value in fields.items():
        message[key] = value
    message["attrs"] = attrs
    message.encode()
    return bytes(message.data)[NLMSG.size :]


def decoded(payload: bytes) -> Any:
    message = tcmsg(framed(qdisc.RTM_NEWQDISC, 0, 1, payload))
    message.decode()
    return message


def nested(*attrs: Any) -> dict[str, Any]:
    return {"attrs": list(attrs)}


def test_token_bucket() -> None:
    """25 ms of the rate may wait, as the reference plugin has it."""
    found = decoded(qdisc.token_bucket(7, qdisc.Bucket(10**6, 10**5)))
    assert (found["index"], found["handle"], found["parent"]) == (7, 1 << 16, 0xFFFFFFFF)
    assert found.get_attr("TCA_KIND") == "tbf"
    options = found.get_attr("TCA_OPTIONS")
    parms = options.get_attr("TCA_TBF_PARMS")
    assert (parms["rate"], parms["limit"]) == (10**6, 25_000 + 10**5)


def test_a_rate_beyond_32_bits() -> None:
    payload = qdisc.token_bucket(7, qdisc.Bucket(1 << 33, 10**5))
    assert qdisc.read_bucket(payload) == (1 << 33, qdisc.Bucket(1 << 33, 10**5).limit)


@given(st.integers(1, (1 << 36) - 1), st.integers(1, (1 << 32) - 1))
def test_a_bucket_is_read_as_it_was_written(rate: int, burst: int) -> None:
    bucket = qdisc.Bucket(rate, burst)
    assert qdisc.read_bucket(qdisc.token_bucket(1, bucket)) == (rate, bucket.limit)


def test_ingress_and_deletions() -> None:
    kind = [("TCA_KIND", "ingress")]
    place = {"family": 0, "index": 7, "handle": 0xFFFF0000, "parent": 0xFFFFFFF1, "info": 0}
    assert qdisc.ingress(7) == encoded(tcmsg, kind, **place)
    assert qdisc.ingress_of(7) == encoded(tcmsg, [], **place)
    assert qdisc.root(7) == encoded(tcmsg, [], family=0, index=7, handle=0, parent=0xFFFFFFFF, info=0)


def test_redirection() -> None:
    payload = qdisc.redirection(7, 9)
    found = decoded(payload)
    assert (found["index"], found["parent"]) == (7, 0xFFFF0000)
    assert found["info"] == qdisc.PRIORITY << 16 | socket.htons(3), "ETH_P_ALL"
    assert loopback_guard.PRIORITY < qdisc.PRIORITY, "behind the guard"
    assert found.get_attr("TCA_KIND") == "u32"
    options = found.get_attr("TCA_OPTIONS")
    assert options.get_attr("TCA_U32_SEL")["nkeys"] == 1
    action = options.get_attr("TCA_U32_ACT").get_attr("TCA_ACT_PRIO_1")
    assert action.get_attr("TCA_ACT_KIND") == "mirred"
    parms = action.get_attr("TCA_ACT_OPTIONS").get_attr("TCA_MIRRED_PARMS")
    assert (parms["eaction"], parms["ifindex"], parms["action"]) == (1, 9, 4)
    assert qdisc.redirects_to(payload, 9) and not qdisc.redirects_to(payload, 8)


def test_the_device() -> None:
    wanted = [
        ("IFLA_IFNAME", "bwp0"),
        ("IFLA_ADDRESS", "02:11:22:33:44:55"),
        ("IFLA_MTU", 1400),
        ("IFLA_LINKINFO", nested(("IFLA_INFO_KIND", "ifb"))),
    ]
    assert qdisc.new_ifb("bwp0", bytes.fromhex("021122334455"), 1400) == encoded(
        ifinfmsg, wanted, family=0, flags=1, change=1
    )


def vlan(flags: int, number: int) -> tuple[str, dict[str, int]]:
    return ("IFLA_BRIDGE_VLAN_INFO", {"flags": flags, "vid": number})


@pytest.mark.parametrize(
    ("spans", "infos"),
    [
        ([(6, 100, 100)], [vlan(6, 100)]),
        ([(0, 10, 20), (6, 1, 1)], [vlan(8, 10), vlan(16, 20), vlan(6, 1)]),
    ],
)
def test_vlans(spans: list[tuple[int, int, int]], infos: list[Any]) -> None:
    spec = ("IFLA_AF_SPEC", nested(*infos))
    message = ifinfmsg()
    message["family"], message["index"] = vlans.AF_BRIDGE, 7
    message["attrs"] = [spec]
    message.encode()
    assert vlans.vlans(7, spans) == bytes(message.data)[NLMSG.size :]


def test_the_bridges_own_vlan_and_the_hosts_link_in_it() -> None:
    message = ifinfmsg()
    message["family"], message["index"] = vlans.AF_BRIDGE, 7
    message["attrs"] = [("IFLA_AF_SPEC", nested(("IFLA_BRIDGE_FLAGS", 2), vlan(0, 10)))]
    message.encode()
    assert vlans.vlans(7, [(0, 10, 10)], own=True) == bytes(message.data)[NLMSG.size :]
    data = nested(("IFLA_VLAN_ID", 10))
    info = ("IFLA_LINKINFO", nested(("IFLA_INFO_KIND", "vlan"), ("IFLA_INFO_DATA", data)))
    attributes = [("IFLA_IFNAME", "br0.10"), ("IFLA_LINK", 7), info]
    assert vlans.new_vlan("br0.10", 7, 10) == encoded(ifinfmsg, attributes, family=0, flags=1, change=1)


def test_vlans_are_read_one_by_one() -> None:
    payload = vlans.vlans(7, [(0, 30, 30), (6, 5, 5)])
    assert vlans.read_vlans(payload) == (7, {30: 0, 5: 6})


@pytest.mark.parametrize(
    ("wire", "spans"),
    [
        (Wire(vlan=100), [(6, 100, 100)]),
        (Wire(trunk=((10, 20), (30, 30))), [(0, 10, 20), (0, 30, 30), (6, 1, 1)]),
        (Wire(vlan=15, trunk=((10, 20),)), [(0, 10, 20), (6, 15, 15)]),
    ],
)
def test_which_vlans_a_port_has(wire: Wire, spans: list[tuple[int, int, int]]) -> None:
    assert vlans.wanted(wire) == spans


def test_filtering() -> None:
    data = nested(("IFLA_BR_VLAN_FILTERING", 1))
    info = ("IFLA_LINKINFO", nested(("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", data)))
    assert vlans.filter_vlans(7) == encoded(ifinfmsg, [info], family=0, index=7)


@given(st.builds(Wire, st.integers(0, 99), st.integers(0, 99), vlan=st.integers(0, 4094), promisc=st.booleans()))
def test_a_wire_is_read_as_it_was_written(wire: Wire) -> None:
    assert wire_from(wire.document()) == wire
    tagged = wire.replace(trunk=((1, 5), (7, 7)))
    assert wire_from(tagged.document()) == tagged
