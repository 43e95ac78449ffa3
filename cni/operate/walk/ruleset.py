"""The host's packet filters as values: the chains of all tables with their rules, as `nft -j` prints them.

`judge` decides what a rule does to a packet; `iptables_save` adds rules that iptables wrote, in the same form.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cni.operate.screen import CannotLook

Json = Any


@dataclass
class Rule:
    """A rule: its expressions as JSON, and its handle."""

    exprs: list[Json]
    handle: int = 0
    text: str = ""


@dataclass
class Chain:
    """A chain with its rules; `hook` is "" for one that is no base chain."""

    family: str
    table: str
    name: str
    type: str = ""
    hook: str = ""
    prio: int = 0
    policy: str = "accept"
    devices: tuple[str, ...] = ()
    rules: list[Rule] = field(default_factory=list)
    tool: str = "nft"  # or the program that wrote it: iptables, iptables-legacy, ...

    def __str__(self) -> str:
        return f"chain {self.name} of table {self.family} {self.table}" + (f" ({self.tool})" * (self.tool != "nft"))


Sets = dict[tuple[str, str, str], Json]


@dataclass
class Ruleset:
    """All chains and sets of one network namespace."""

    chains: dict[tuple[str, str, str, str], Chain] = field(default_factory=dict)
    sets: Sets = field(default_factory=dict)
    owned: set[tuple[str, str]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    kept: dict[int, Any] = field(default_factory=dict)

    def base(self, hook: str, families: tuple[str, ...], device: str = "") -> list[Chain]:
        """A hook's base chains in the order in which the kernel asks them: of two with the same priority, the younger
        one comes first (nf_hook_entries_grow), while the listing has the older one first."""
        found = [
            chain
            for chain in self.chains.values()
            if chain.hook == hook and chain.family in families and (not device or device in chain.devices)
        ]
        found.reverse()
        return sorted(found, key=lambda chain: chain.prio)

    def chain(self, beside: Chain, name: str) -> Chain | None:
        return self.chains.get((beside.tool, beside.family, beside.table, name))

    def named_set(self, chain: Chain, name: str) -> Json:
        return self.sets.get((chain.family, chain.table, name))

    def once(self, key: int, make: Callable[[], Any]) -> Any:
        """What `make` returns for a part of this ruleset, made once."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def add(self, chain: Chain) -> None:
        self.chains[(chain.tool, chain.family, chain.table, chain.name)] = chain

    def without_table(self, family: str, table: str) -> None:
        self.chains = {
            key: chain for key, chain in self.chains.items() if (chain.family, chain.table) != (family, table)
        }


def program(*words: str) -> str:
    """A program's output. Raises CannotLook."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotLook(f"{words[0]}: {error}") from None
    if done.returncode:
        raise CannotLook(f"{' '.join(words)}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout


def read_ruleset(text: str) -> Ruleset:
    """The ruleset from the JSON of `nft -j list ruleset`."""
    found = Ruleset()
    for item in json.loads(text or '{"nftables": []}')["nftables"]:
        if "table" in item and "owner" in str(item["table"].get("flags", "")):
            found.owned.add((item["table"]["family"], item["table"]["name"]))
        elif "chain" in item:
            found.add(_chain(item["chain"]))
        elif "set" in item or "map" in item:
            value = item.get("set") or item["map"]
            found.sets[(value["family"], value["table"], value["name"])] = value
        elif "rule" in item:
            rule = item["rule"]
            chain = found.chains.get(("nft", rule["family"], rule["table"], rule["chain"]))
            if chain is not None:
                chain.rules.append(Rule(rule.get("expr", []), rule.get("handle", 0)))
    return found


def _chain(item: Json) -> Chain:
    devices = item.get("dev", ())
    return Chain(
        item["family"],
        item["table"],
        item["name"],
        item.get("type", ""),
        item.get("hook", ""),
        item.get("prio", 0),
        item.get("policy", "accept"),
        (devices,) if isinstance(devices, str) else tuple(devices),
    )


def add_devices(rules: Ruleset, text: str) -> None:
    """Adds chains' devices from `nft list chains`: before 1.0.7, the JSON of a chain on a device does not name it."""
    table, chain = ("", ""), None
    for line in text.splitlines():
        words = line.replace('"', "").split()
        if words[:1] == ["table"]:
            table = (words[1], words[2])
        elif words[:1] == ["chain"]:
            chain = rules.chains.get(("nft", *table, words[1]))
        elif chain is not None and not chain.devices and ("device" in words or "devices" in words):
            start = words.index("device" if "device" in words else "devices") + 1
            end = words.index("priority")
            chain.devices = tuple(word.strip("{},=") for word in words[start:end] if word.strip("{},="))


def lacks_devices(rules: Ruleset) -> bool:
    return any(chain.hook in ("ingress", "egress") and not chain.devices for chain in rules.chains.values())
