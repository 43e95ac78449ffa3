"""Find everything that keeps this host from serving containers, each finding with its remedy. Changes nothing.

It follows a packet to every published port and out of every container, as `explain` does for one, and checks the host
as a whole: CNI's folders, listeners, leftovers of other plugins, libraries, limits, other nodes.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from cni.model.attachment import Attachment
    from cni.operate.walk.step import Step
    from cni.operate.walk.world import World

HELP = "what is wrong on this host, with the commands that mend it"
EXAMPLES = ("nftcni doctor", "nftcni doctor --json", "nftcni doctor || echo something is wrong")
SCHEMA = "nftcni/doctor/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs (schema nftcni/doctor)")


def run(arguments: argparse.Namespace) -> int:
    from cni.operate.repair import this_host
    from cni.operate.screen import CannotLook
    from cni.operate.walk.step import findings
    from cni.operate.walk.world import World

    with this_host().transaction("examining the host") as host:
        try:
            world = World(host)
        except CannotLook as error:
            return _without_looking(error)
    try:
        found = findings([*of_host(world), *of_attachments(world)])
    except CannotLook as error:
        return _without_looking(error)
    finally:
        world.close()
    found = merged(found)
    count = len(world.items)
    if arguments.json:
        from cni.operate.screen import print_json
        from cni.operate.ways import step_document

        steps = [step_document(step) for step in found]
        print_json({"schema": SCHEMA, "attachments": count, "findings": steps, "well": not found})
    else:
        for step in found:
            _print(step)
        print(f"{count} attachments, {len(found)} findings" if found else f"{count} attachments, all well")
        sys.stdout.flush()
    return 1 if found else 0


def _without_looking(error: Exception) -> int:
    """Reports what is known without the kernel: which library is missing."""
    from cni.operate.host_checks import libraries

    for step in libraries():
        _print(step)
    sys.stdout.flush()
    sys.stderr.write(f"nftcni doctor: could not look: {error}\n")
    return 2


def of_host(world: World) -> list[Step]:
    from cni.operate import cluster_checks, host_checks

    return [step for check in (*host_checks.CHECKS, *cluster_checks.CHECKS) for step in check(world)]


def of_attachments(world: World) -> list[Step]:
    return [*(step for item in world.items for step in of_attachment(world, item)), *_among(world)]


def of_attachment(world: World, item: Attachment) -> list[Step]:
    from cni.operate.ways import container_ways

    return [step for way in container_ways(world, item, None) for step in way.steps]


def _among(world: World) -> list[Step]:
    from cni.operate.walk.siblings import between

    one_of_each = {item.bridge: item for item in world.items if item.bridge}
    return [step for item in one_of_each.values() for step in between(world, item)]


def merged(found: list[Step]) -> list[Step]:
    """Merges findings with the same remedy: a chain may drop several packets by several rules."""
    kept: dict[object, Step] = {}
    for step in found:
        own = not step.remedy or step.remedy[0].startswith(("nftcni", "#"))
        kept.setdefault((step.kind, step.what) if own else step.remedy, step)
    return list(kept.values())


def _print(step: Step) -> None:
    from cni.operate.screen import paint

    print(f"- {paint(step.what, 'red' if step.verdict == 'stop' else 'yellow')}")
    if step.because:
        print(f"    because: {step.because}")
    for number, command in enumerate(step.remedy):
        print(f"    {'do:     ' if not number else '        '} {command}")
