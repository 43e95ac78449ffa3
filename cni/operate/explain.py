"""Follow a packet to a published port, or every packet of a container, and say where it ends and what to do.

Every step is the kernel's own answer: the table's element, the address, every chain of every table that could drop the
packet, routes and policy rules both ways, rp_filter, forwarding, the bridge's port, the neighbour; then inside the
container its address, its routes, its own firewall, and who listens.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from cni.model.attachment import Attachment
    from cni.operate.walk.step import Step
    from cni.operate.walk.world import World
    from cni.operate.ways import Way

HELP = "why a port or a container does not answer, step by step"
EXAMPLES = (
    "nftcni explain 8080",
    "nftcni explain 53/udp --from 198.51.100.2",
    "nftcni explain web",
    "nftcni explain 8080 --live",
)
SCHEMA = "nftcni/explain/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="PORT[/PROTOCOL]|CONTAINER", help="a host port, or a container's name or ID")
    parser.add_argument("--from", dest="client", metavar="ADDRESS", help="who asks (a neighbour of this host)")
    parser.add_argument("--live", action="store_true", help="also send one packet, and trace it through the rules")
    parser.add_argument("--json", action="store_true", help="for programs (schema nftcni/explain)")


def run(arguments: argparse.Namespace) -> int:
    from cni.operate.repair import this_host
    from cni.operate.walk.world import World

    with this_host().transaction("explaining") as host:
        world = World(host)
    try:
        ways = _ways(world, arguments.what, arguments.client or "")
        if arguments.live:
            from cni.operate.live import probe

            ways += probe(world, arguments.what)
    finally:
        world.close()
    if arguments.json:
        from cni.operate.screen import print_json

        print_json(document(ways))
    else:
        _print(ways)
    return 1 if any(step.is_finding for way in ways for step in way.steps) else 0


def _ways(world: World, words: str, client_words: str) -> list[Way]:
    from cni.operate.ways import Way, container_ways, opened_ways, parse_port, published_ways
    from cni.protocol.errors import INVALID_CONFIG, CniError
    from nft.addresses import parse_address

    try:
        client = world.client_at(parse_address(client_words)) if client_words else None
    except ValueError as problem:
        raise CniError(INVALID_CONFIG, f'--from "{client_words}": {problem}') from None
    port, protocol = parse_port(words)
    if port:
        found = [
            (follow, item, mapping)
            for item in world.items
            for ports, follow in ((item.mappings, published_ways), (item.opened, opened_ways))
            for mapping in ports
            if mapping.host_port == port and protocol in ("", mapping.protocol)
        ]
        if not found:
            from cni.operate.unpublished import unpublished

            return [Way(f"host port {words}", unpublished(world, port, protocol or "tcp"))]
        ways = [way for follow, item, mapping in found for way in follow(world, item, mapping, client)]
        if not ways:
            from cni.operate.walk.step import stop

            published = ", ".join(sorted({str(mapping) for _follow, _item, mapping in found}))
            because = f"{client_words} can ask none of these addresses"
            ways = [
                Way(f"host port {words}", [stop("unpublished", f"the port is published on {published} only", because)])
            ]
        return ways
    items = _named(world, words)
    if not items:
        raise CniError(
            INVALID_CONFIG, f'neither a port nor an attached container: "{words}"', "nftcni list shows all containers"
        )
    return [way for item in items for way in container_ways(world, item, client)]


def _named(world: World, words: str) -> list[Attachment]:
    from cni.operate.container_names import container_names

    named = {container for container, name in container_names().items() if name in (words, f"default/{words}")}
    found = [item for item in world.items if item.container in named]
    return found or list(world.of_container(words))


def document(ways: list[Way]) -> dict[str, object]:
    """The JSON document of the schema nftcni/explain."""
    from cni.operate.ways import step_document

    return {
        "schema": SCHEMA,
        "ways": [{"title": way.title, "steps": [step_document(step) for step in way.steps]} for way in ways],
        "well": not any(step.is_finding for way in ways for step in way.steps),
    }


def _print(ways: list[Way]) -> None:
    from cni.operate.screen import paint
    from cni.operate.walk.drops import CONDITION
    from cni.operate.ways import FILTERS

    for number, way in enumerate(ways):
        if number:
            print()
        print(paint(way.title, "bold"))
        stopped = False
        for step in dict.fromkeys(way.steps):
            print_step(step, first=step.verdict == "stop" and not stopped)
            stopped = stopped or step.verdict == "stop"
        if any(step.kind in (*FILTERS, CONDITION) and not step.is_finding for step in way.steps):
            print("  it ends there, and somebody's rules want it so")
        elif not stopped:
            print(
                "  the packet arrives, and so does its answer"
                if not way.title.startswith("host port")
                else "  that is all there is"
            )
    sys.stdout.flush()


def print_step(step: Step, first: bool = True) -> None:
    from cni.operate.screen import OF_VERDICT, paint

    word = {"stop": "stops here" if first else "would stop"}.get(step.verdict, step.verdict)
    print(f"  {paint(word.ljust(10), OF_VERDICT[step.verdict])}  {step.what}")
    if step.because:
        print(f"              because: {step.because}")
    for number, command in enumerate(step.remedy):
        print(f"              {'do:     ' if not number else '        '} {command}")
