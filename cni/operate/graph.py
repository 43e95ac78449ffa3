"""Draw the networks of this host: uplinks, bridges, containers, published ports; what `doctor` finds broken is red.

It prints text, or with --svg a picture, which the program dot of the package graphviz draws. --dot prints dot's input.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from cni.model.attachment import Attachment
    from cni.operate.walk.world import World

HELP = "the networks of this host as a picture"
EXAMPLES = ("nftcni graph", "nftcni graph --svg >networks.svg", "nftcni graph --dot | dot -Tpng >networks.png")
RED, PALE_RED, GREY = "#c62828", "#ffebee", "#607d8b"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--svg", action="store_true", help="as SVG (needs graphviz)")
    form.add_argument("--dot", action="store_true", help="in graphviz's language")
    parser.add_argument("--output", metavar="FILE", help="into a file")


def run(arguments: argparse.Namespace) -> int:
    import sys

    from cni.operate.repair import this_host
    from cni.operate.walk.world import World

    with this_host().transaction("drawing the networks") as host:
        world = World(host)
    try:
        picture = Picture(world)
        make = svg if arguments.svg else dot_text if arguments.dot else plain
        text = make(picture)
    finally:
        world.close()
    if arguments.output:
        with open(arguments.output, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        sys.stdout.write(text)
    return 0


class Picture:
    """What is drawn: the names of things, and what is broken about each, in words."""

    def __init__(self, world: World) -> None:
        from cni.operate.doctor import of_attachment
        from cni.operate.listing import container_names_of
        from cni.operate.walk.step import findings

        self.world = world
        self.names = container_names_of(world.items)
        self.broken = {item.ident: findings(of_attachment(world, item)) for item in world.items}
        self.bridges: dict[str, list[Attachment]] = {}
        for item in world.items:
            self.bridges.setdefault(item.bridge or "-", []).append(item)

    def label(self, item: Attachment) -> str:
        from cni.operate.screen import short_id

        return self.names.get(item.container) or short_id(item.container)

    def uplinks(self) -> list[tuple[str, list[str]]]:
        return [(name, self.gateways(name)) for name in self.world.uplinks]

    def gateways(self, bridge: str) -> list[str]:
        from cni.operate.walk.world import is_link_local

        prefixes = self.world.kernel.addresses_of(bridge)
        return [str(prefix) for prefix in prefixes if not is_link_local(prefix.address)]

    def bridge_is_broken(self, bridge: str) -> bool:
        link = self.world.kernel.links.get(bridge)
        return link is None or not link.up


def plain(picture: Picture) -> str:
    """The picture as text."""
    from cni.operate.listing import port_words
    from cni.operate.screen import paint

    lines = []
    for name, addresses in picture.uplinks():
        lines.append(f"{paint(name, 'bold')}  {' '.join(addresses)}")
    for place, (bridge, items) in enumerate(sorted(picture.bridges.items()), 1):
        trunk, trunk_bar = _twig(place == len(picture.bridges))
        broken = picture.bridge_is_broken(bridge)
        state = paint("missing" if bridge not in picture.world.kernel.links else "down", "red") if broken else ""
        said = f"{paint(bridge, 'red' if broken else 'bold')}  {' '.join(picture.gateways(bridge))} {state}"
        lines += ["│", f"{trunk} {said.rstrip()}"]
        for number, item in enumerate(items, 1):
            twig, bar = _twig(number == len(items))
            problems = picture.broken[item.ident]
            inside = " ".join(map(str, item.addresses))
            ports = port_words(item)
            said = f"{item.network}/{picture.label(item)}  {inside}" + (f"  [{ports}]" if ports != "-" else "")
            lines.append(f"{trunk_bar} {twig} {paint(said, 'red' if problems else 'green')}")
            lines += [f"{trunk_bar} {bar}    {paint('✗ ' + step.what, 'red')}" for step in problems]
    return "\n".join(lines or ["nothing is attached"]) + "\n"


def _twig(last: bool) -> tuple[str, str]:
    """The line that leads to a twig, and the prefix of the lines below it."""
    return ("└─", "  ") if last else ("├─", "│ ")


def dot_text(picture: Picture) -> str:
    """The picture in graphviz's language (https://graphviz.org/doc/info/lang.html)."""
    lines = [
        'digraph "nftcni" {',
        "rankdir=LR",
        'node [shape=box, style="rounded,filled", fillcolor=white, fontname="sans-serif"]',
    ]
    lines.append(f'edge [arrowhead=none, color="{GREY}", fontname="sans-serif", fontsize=10]')
    for name, addresses in picture.uplinks():
        lines.append(_node(f"link {name}", [name, *addresses], "#eceff1"))
    for bridge, items in sorted(picture.bridges.items()):
        broken = picture.bridge_is_broken(bridge)
        state = ["missing" if bridge not in picture.world.kernel.links else "down"] if broken else []
        lines.append(_node(f"link {bridge}", [bridge, *picture.gateways(bridge), *state], "#e3f2fd", broken))
        for uplink, _addresses in picture.uplinks():
            lines.append(f"{_quoted('link ' + uplink)} -> {_quoted('link ' + bridge)}")
        for item in items:
            problems = picture.broken[item.ident]
            texts = [
                f"{item.network}/{picture.label(item)}",
                *map(str, item.addresses),
                *(f"✗ {one.what}" for one in problems),
            ]
            lines.append(_node(item.ident, texts, "#e8f5e9", bool(problems)))
            colour = f' color="{RED}" penwidth=2' if problems else ""
            lines.append(
                f"{_quoted(f'link {bridge}')} -> {_quoted(item.ident)} [label={_quoted(_ports(item))}{colour}]"
            )
    return "\n".join([*lines, "}"]) + "\n"


def _ports(item: Attachment) -> str:
    from cni.operate.listing import port_words

    words = port_words(item)
    return "" if words == "-" else "\n".join(words.split(" "))


def _node(key: str, texts: list[str], colour: str, broken: bool = False) -> str:
    edge = f', color="{RED}", fontcolor="{RED}", penwidth=2' if broken else f', color="{GREY}"'
    fill = PALE_RED if broken else colour
    return f'{_quoted(key)} [label={_quoted(chr(10).join(texts))}, fillcolor="{fill}"{edge}]'


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def svg(picture: Picture) -> str:
    """The picture as SVG. Raises CniError 5 without graphviz's dot."""
    import shutil
    import subprocess

    from cni.protocol.errors import IO_FAILURE, CniError

    if shutil.which("dot") is None:
        raise CniError(
            IO_FAILURE, "dot, which draws the picture, is not installed", "apt-get install graphviz, or use --dot"
        )
    done = subprocess.run(["dot", "-Tsvg"], input=dot_text(picture), capture_output=True, text=True, check=False)
    if done.returncode:
        raise CniError(IO_FAILURE, f"dot: {done.stderr.strip()}")
    return done.stdout
