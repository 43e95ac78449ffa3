"""Free what one container holds on this host, if its runtime will never call DEL for it.

It is refused for a container that lives, because its addresses and ports could then go to another one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

HELP = "free what one container left that ended without a DEL"
EXAMPLES = ("nftcni forget bridge/web", "nftcni forget --force bridge/web")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "container", metavar="NETWORK/CONTAINER", help="as nftcni list prints it, with or without /INTERFACE"
    )
    parser.add_argument("--force", action="store_true", help="also if it lives: it loses its network")


def run(arguments: argparse.Namespace) -> int:
    import sys

    from cni.operate.ended import free, why_ended
    from cni.operate.repair import describe, this_host

    wanted = arguments.container
    with this_host().transaction(f"forgetting {wanted}") as host:
        found = [item for item in host.records() if wanted in (item.ident, item.ident.rpartition("/")[0])]
        if not found:
            sys.stderr.write(f"nftcni forget: {wanted} is not attached (nftcni list shows all containers)\n")
            return 1
        living = [item for item in found if not why_ended(host, item)]
        if living and not arguments.force:
            for item in living:
                place = f"its namespace {item.sandbox} or its link {item.link} still exists"
                sys.stderr.write(
                    f"nftcni forget: {item.ident} lives: {place}; stop it with its runtime, or use --force\n"
                )
            return 1
        freed = [f"freed {describe(item)}: {why_ended(host, item) or 'although it lives'}" for item in found]
        free(host, found)
    print("\n".join(freed))
    return 0
