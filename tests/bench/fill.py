"""Puts attachments on the host it is called in: records, leases, ports and table elements, by the plugin's own modules.

Links are made for none of them (`worker` makes some): 10 000 ADDs would take minutes, and what is to be measured is the
state folder and the table at that size. Called as `fill.py CODE DATADIR NETWORKS EACH`, by the system's interpreter.
"""

from __future__ import annotations

import sys

code, data_dir, networks, each = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
sys.path.insert(0, code)

from cni.host import Host  # noqa: E402
from cni.model.attachment import Attachment, Lease  # noqa: E402
from cni.model.names import derived_mac  # noqa: E402
from cni.model.ports import ANY, PortMapping  # noqa: E402
from nft.addresses import Address, Prefix, parse_address  # noqa: E402

FIRST_PORT = 10000


def attachment(network: int, index: int) -> Attachment:
    base = parse_address(f"10.{100 + network}.0.0").number
    port = FIRST_PORT + 2 * (network * each + index)
    name = f"filled{network}-{index:058d}"
    return Attachment(
        network=f"fill{network}",
        container=name,
        ifname="eth0",
        sandbox=f"/run/netns/{name}",
        bridge=f"br-fill{network}",
        mac=derived_mac("container", name),
        leases=(Lease(Prefix(Address(4, base + 2 + index), 16), Address(4, base + 1)),),
        mappings=tuple(PortMapping("tcp", ANY[4], port + offset, 80 + offset) for offset in (0, 1)),
        done=True,
    )


def main() -> None:
    host = Host(data_dir)
    host.lock()
    for network in range(networks):
        for index in range(each):
            item = attachment(network, index)
            host.store.begin(item)
        host.store.claims.remember_last(f"fill{network}", 0, item.leases[0].address.address)
        host.store.bridges.note(f"br-fill{network}", "created")
    host.rebuild_table()


main()
