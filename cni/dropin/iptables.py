"""Answers as `iptables` for programs that know nothing else: what it would say about our published ports. Read-only.

nerdctl runs `iptables` before `run -p` to learn which host ports are taken (ReadIPTables in its pkg/portutil), and
gives up without it. conf/install --iptables-answers puts this in its place on hosts without iptables. It lists the
built-in chains, all empty, and the chain in which the reference portmap keeps its ports, without container IDs, because
nerdctl would try to delete rules with one. It refuses every change except one that our table makes anyway
(`is_guaranteed`).
"""

from __future__ import annotations

import os
import sys

from cni.protocol.errors import kernel_refused
from nft.addresses import BITS, from_packed
from nft.elements import PROTOCOL_NAMES, Element, pack, unpack
from nft.foreign import forward_drops
from nft.schema import IFNAME, SETS
from nft.table import Table

PORT_CHAIN = "CNI-HOSTPORT-DNAT"
BUILT_IN = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "raw": ("PREROUTING", "OUTPUT"),
}
NO_SUCH_CHAIN = "No chain/target/match by that name."  # go-iptables and others look for these words
OTHER, PARAMETER = 1, 2  # exit statuses of iptables


class Refusal(Exception):
    """The answer is an exit status and a message on stderr."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def main() -> None:
    """Answers one call, or runs the real iptables. Never returns."""
    name = os.path.basename(sys.argv[0])
    real = real_program(name)
    if real:
        os.execv(real, [name, *sys.argv[1:]])
    version = 6 if name.startswith("ip6") else 4
    try:
        lines = answer(version, sys.argv[1:])
    except Refusal as refusal:
        sys.stderr.write(f"{name}: {refusal}\n")
        sys.exit(refusal.status)
    except OSError as error:
        sys.stderr.write(f"{name}: {kernel_refused('reading the published ports', error)}\n")
        sys.exit(OTHER)
    sys.stdout.write("".join(line + "\n" for line in lines))


def real_program(name: str) -> str:
    """The iptables of a package that was installed later, "" for none: ours comes first in PATH but must not hide it.
    Links to ours, of this or an earlier installation, all lead to a file called iptables-answers."""
    for folder in os.environ.get("PATH", os.defpath).split(":"):
        path = os.path.join(folder, name)
        ours = os.path.basename(os.path.realpath(path)) == os.path.basename(os.path.realpath(sys.argv[0]))
        if folder and not ours and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


def answer(version: int, words: list[str]) -> list[str]:
    """The lines of a listing, or the version. Raises Refusal."""
    if words and words[0] in ("--version", "-V"):
        return [f"ip{'6' if version == 6 else ''}tables v1.8.9 (nf_tables) read-only answers of nftcni"]
    if is_guaranteed(words):
        return []
    table, chain, listing, number = parse(words)
    if not listing:
        raise Refusal(
            PARAMETER,
            f"'{' '.join(words)}' is refused: this host has no iptables, nftcni only answers which ports it publishes. "
            "Use nft to see or change rules.",
        )
    known = [*BUILT_IN[table], *([PORT_CHAIN] if table == "nat" else [])]
    if chain and chain not in known:
        raise Refusal(OTHER, NO_SUCH_CHAIN)
    chains = [chain] if chain else known
    lines = [f"-P {name} ACCEPT" if name in BUILT_IN[table] else f"-N {name}" for name in chains]
    rules = port_rules(version) if PORT_CHAIN in chains else []
    return (rules[number - 1 : number] if rules else []) if number else lines + rules


def parse(words: list[str]) -> tuple[str, str, bool, int]:
    """(table, chain, whether it is `-S`, rule number) of one of the few command lines that we answer. Raises
    Refusal."""
    table, chain, listing, number = "filter", "", False, 0
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in ("-t", "--table") and rest:
            table = rest.pop(0)
        elif word in ("-w", "--wait"):
            if rest and rest[0].isdigit():
                rest.pop(0)
        elif word in ("-S", "--list-rules"):
            listing = True
            if rest and not rest[0].startswith("-"):
                chain = rest.pop(0)
                if rest and rest[0].isdigit():
                    number = int(rest.pop(0))
        elif word not in ("-n", "--numeric"):
            return table, "", False, 0
    if table not in BUILT_IN:
        raise Refusal(PARAMETER, f"the table '{table[:40]}' is not known here")
    return table, chain, listing, number


def is_guaranteed(words: list[str]) -> bool:
    """Whether our table already does what this change asks for. Before any plugin runs, Nomad's client asks for a chain
    of its own in `filter`, and for a rule in it that accepts what leaves by its bridge (setupAdminChain of its
    networking_bridge_linux.go). A chain to which nobody jumps has no effect, so we may say that it exists; and nothing
    here drops what goes to a network that is not isolated. No other rule is acknowledged, and none on a host where
    somebody drops those packets."""
    rest = [word for word in words if word not in ("-w", "--wait")]
    if rest[:1] in (["-t"], ["--table"]):
        if rest[1:2] != ["filter"]:
            return False
        rest = rest[2:]
    if len(rest) < 2 or rest[1] in BUILT_IN["filter"] or not is_chain_name(rest[1]):
        return False
    if rest[0] in ("-N", "--new-chain"):
        return len(rest) == 2
    if rest[0] not in ("-C", "--check", "-A", "--append"):
        return False
    match = dict(zip(rest[2::2], rest[3::2]))
    if len(rest) % 2 or not match.keys() <= {"-o", "-d", "-j"} or match.get("-j") != "ACCEPT" or "-o" not in match:
        return False
    return len(match) * 2 == len(rest) - 2 and lets_through(match["-o"])


def is_chain_name(text: str) -> bool:
    return text.replace("-", "").replace("_", "").isalnum() and not text.startswith("-") and len(text) < 29


def lets_through(bridge: str) -> bool:
    """Whether neither our table nor another one drops what goes to the bridge. Takes no lock."""
    table = Table()
    name = pack((IFNAME,), (bridge,))
    closing = [kind for kind in ("isolated", "closed", "apart") if kind in SETS]
    held = any(name in element.key for element in table.elements(tuple(closing)))
    return not held and not forward_drops(table.netlink, [bridge])


def port_rules(version: int) -> list[str]:
    sets = (f"dnat{version}", f"dnat{version}_ip")
    return [_rule(version, element) for element in Table().elements(sets)]


def _rule(version: int, element: Element) -> str:
    key, data = SETS[element.set]
    *host_ip, protocol, port = unpack(key, element.key)
    target, target_port = unpack(data, element.data)
    assert isinstance(protocol, int) and isinstance(port, int) and isinstance(target_port, int)
    name = PROTOCOL_NAMES.get(protocol, str(protocol))
    destination = f"-d {_text(host_ip[0])}/{BITS[version]} " if host_ip else ""
    to = f"[{_text(target)}]" if version == 6 else _text(target)
    return (
        f"-A {PORT_CHAIN} {destination}-p {name} -m {name} --dport {port} -j DNAT --to-destination {to}:{target_port}"
    )


def _text(packed: object) -> str:
    assert isinstance(packed, bytes), "addresses are unpacked as bytes"
    return str(from_packed(packed))
