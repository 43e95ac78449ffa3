"""Free what containers left behind that ended without a DEL: their addresses, ports and table elements.

A runtime that lost its state never calls DEL, and one that speaks cniVersion 1.0.0 never calls GC. An attachment counts
as ended if the path of its namespace leads nowhere and the host end of its link, which goes with the namespace, is gone
too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from cni.host import Host
    from cni.model.attachment import Attachment

HELP = "free what containers left that ended without a DEL"
EXAMPLES = ("nftcni gc --dry-run", "nftcni gc")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only tell")


def run(arguments: argparse.Namespace) -> int:
    from cni.operate.repair import describe, this_host

    with this_host().transaction("freeing what ended containers left") as host:
        items = host.records()
        gone = [(item, why) for item in items for why in [why_ended(host, item)] if why]
        if gone and not arguments.dry_run:
            free(host, [item for item, _why in gone])
        for item, why in gone:
            print(f"{'would free' if arguments.dry_run else 'freed'} {describe(item)}: {why}")
        print(f"{len(gone)} of {len(items)} attachments had ended without DEL")
    return 0


def why_ended(host: Host, item: Attachment) -> str:
    """Why the attachment counts as ended; "" if it lives, or may live."""
    import os

    from cni.kernel.links import get_link
    from cni.kernel.netns import open_netns
    from cni.protocol.errors import INVALID_NETNS, CniError

    if item.kind.own_link and get_link(host.rtnl, item.link) is not None:
        return ""
    if not item.sandbox:
        return ""
    try:
        netns = open_netns(item.sandbox)
    except CniError as error:
        if error.code != INVALID_NETNS:
            raise
        return f"its namespace {item.sandbox} is gone"
    try:
        moved = item.kind.own_link and _has_its_interface(item, netns)
    finally:
        os.close(netns)
    # Another process may have an ended one's number by now; a veth pair ends only with its namespace.
    if item.kind.own_link and item.sandbox.startswith("/proc/") and not moved:
        return f"its link {item.link} is gone, and {item.sandbox} is another process by now"
    return ""


def _has_its_interface(item: Attachment, netns: int) -> bool:
    """Whether the namespace has its interface: then it lives, and the host end was renamed or moved away."""
    from cni.kernel.links import get_link
    from cni.kernel.netns import Inside
    from nft.netlink import Netlink

    with Inside(netns):
        inside = Netlink()
    link = get_link(inside, item.ifname)
    inside.close()
    return link is not None and link.mac == item.mac


def free(host: Host, items: list[Attachment]) -> None:
    """Detaches these attachments and says what it cannot free."""
    from cni.verbs.garbage import detach_many

    for network in {item.network for item in items}:
        detach_many(host, network, [item for item in items if item.network == network])
    for item in items:
        if item.delegate:
            print(f"{item.ident}: its addresses are for the IPAM plugin {item.delegate} to free")
