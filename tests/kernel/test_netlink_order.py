"""Several changes by one send: made in their order, and the kernel's refusal of one is told."""

from __future__ import annotations

import pytest
from support.scratch import Host

from cni.kernel import rtnetlink
from nft.errors import KernelError
from nft.netlink import Netlink

MACS = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")
MULTICAST = b"\x03\0\0\0\0\x01"


def set_macs(host: Host, *macs: bytes) -> None:
    index = host.link("d0")["ifindex"]
    with host.entered():
        rtnl = Netlink()
    try:
        rtnl.ask_in_turn(rtnetlink.RTM_NEWLINK, [rtnetlink.tune(index, {}, mac, 0, None) for mac in macs])
        rtnl.ask(rtnetlink.RTM_NEWLINK, rtnetlink.set_up(index))  # its own answer is not mistaken for an earlier one
    finally:
        rtnl.close()


@pytest.mark.parametrize("order", [MACS, MACS[::-1], MACS[:1]])
def test_the_last_one_stays(host: Host, order: tuple[bytes, ...]) -> None:
    host.run("ip", "link", "add", "d0", "type", "bridge")
    set_macs(host, *order)
    link = host.link("d0")
    assert link["address"] == order[-1].hex(":") and "UP" in link["flags"]


@pytest.mark.parametrize("order", [(MULTICAST, MACS[0]), (MACS[0], MULTICAST), (MULTICAST, MULTICAST)])
def test_a_refusal_is_told(host: Host, order: tuple[bytes, ...]) -> None:
    host.run("ip", "link", "add", "d0", "type", "bridge")
    with pytest.raises(KernelError):
        set_macs(host, *order)
