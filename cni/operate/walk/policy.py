"""The rules of policy routing (`ip rule`): which of them apply to a packet, and which one ends it.

`kernel` reads them once. The kernel itself tells where a packet goes; this tells why it goes nowhere. Numbers are from
include/uapi/linux/fib_rules.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cni.kernel.rtnetlink import RT_TABLE_MAIN
from cni.operate.walk.packet import NUMBERS, Packet
from nft.addresses import Address, Prefix, parse_address

TO_TABLE, GOTO, BLACKHOLE, UNREACHABLE, PROHIBIT = 1, 2, 6, 7, 8  # FR_ACT_*
INVERT = 2  # FIB_RULE_INVERT
ENDING = {BLACKHOLE: "blackhole", UNREACHABLE: "unreachable", PROHIBIT: "prohibit"}
NONE = 0xFFFFFFFF  # the value of an absent suppress_prefixlength
LOCAL, MAIN, DEFAULT = 255, RT_TABLE_MAIN, 253  # RT_TABLE_*
TABLES = {LOCAL: "local", MAIN: "main", DEFAULT: "default"}
UNKNOWN = ("FRA_L3MDEV", "FRA_TUN_ID")  # conditions that no packet of a walk meets

Route = tuple[Prefix, int, str, str, "Address | None"]  # destination, table, link, kind, gateway


@dataclass(frozen=True)
class Rule:
    """A rule. `text` is its form for `ip rule add` and `del`; the other fields are its conditions, None for none."""

    priority: int
    action: int
    table: int
    target: int
    text: str
    inverted: bool = False
    source: Prefix | None = None
    destination: Prefix | None = None
    iif: str = ""
    mark: tuple[int, int] | None = None
    proto: int | None = None
    sports: tuple[int, int] | None = None
    dports: tuple[int, int] | None = None
    suppress: int = NONE
    never: bool = False

    @property
    def takes_all(self) -> bool:
        conditions = (self.source, self.destination, self.mark, self.proto, self.sports, self.dports)
        return not (self.never or self.inverted or self.iif) and conditions == (None,) * len(conditions)

    def takes(self, packet: Packet, iif: str) -> bool:
        """Whether the rule applies to the packet; `iif` is "lo" for one of the host's own."""
        if self.never:
            return False
        value, mask = self.mark or (0, 0)
        known = (
            self.source is None or packet.saddr in self.source,
            self.destination is None or packet.daddr in self.destination,
            not self.iif or self.iif == iif,
            (packet.mark or 0) & mask == value,
            self.proto is None or self.proto == NUMBERS.get(packet.proto),
            self.sports is None or self.sports[0] <= packet.sport <= self.sports[1],
            self.dports is None or self.dports[0] <= packet.dport <= self.dports[1],
        )
        return all(known) != self.inverted


def read_rule(item: Any) -> Rule:
    """A rule from pyroute2's message."""
    attr = item.get_attr
    priority, action = attr("FRA_PRIORITY") or 0, item["action"]
    table = attr("FRA_TABLE") or item["table"]
    words = ["not"] if item["flags"] & INVERT else []
    prefixes: dict[str, Prefix | None] = {"from": None, "to": None}
    for key, word, length in (("FRA_SRC", "from", "src_len"), ("FRA_DST", "to", "dst_len")):
        if attr(key) and item[length]:
            prefixes[word] = Prefix(parse_address(attr(key)), item[length])
            words.append(f"{word} {prefixes[word]}")
    mark, mask = attr("FRA_FWMARK"), attr("FRA_FWMASK")
    if mark or mask not in (None, 0, NONE):
        words.append(f"fwmark {hex(mark or 0)}" + (f"/{hex(mask)}" if mask not in (None, NONE) else ""))
    names = {number: name for name, number in NUMBERS.items()}
    for key, word in (("FRA_IIFNAME", "iif"), ("FRA_OIFNAME", "oif"), ("FRA_IP_PROTO", "ipproto")):
        if attr(key):
            words.append(f"{word} {names.get(attr(key), attr(key)) if word == 'ipproto' else attr(key)}")
    ranges = {word: _range(attr(key)) for key, word in (("FRA_SPORT_RANGE", "sport"), ("FRA_DPORT_RANGE", "dport"))}
    words += [f"{word} {ends[0]}" + f"-{ends[1]}" * (ends[0] != ends[1]) for word, ends in ranges.items() if ends]
    users = _range(attr("FRA_UID_RANGE"))
    if users:
        words.append(f"uidrange {users[0]}-{users[1]}")
    goto, suppress = attr("FRA_GOTO") or 0, attr("FRA_SUPPRESS_PREFIXLEN")
    suppress = NONE if suppress is None else suppress
    if action == TO_TABLE:
        words.append(f"lookup {TABLES.get(table, table)}")
        words += [f"suppress_prefixlength {suppress}"] if suppress != NONE else []
    else:
        words.append(f"goto {goto}" if action == GOTO else ENDING.get(action, "nop"))
    return Rule(
        priority,
        action,
        table,
        goto,
        " ".join(words),
        bool(item["flags"] & INVERT),
        prefixes["from"],
        prefixes["to"],
        attr("FRA_IIFNAME") or "",
        None if mark is None and mask is None else ((mark or 0), NONE if mask is None else mask),
        attr("FRA_IP_PROTO"),
        ranges["sport"],
        ranges["dport"],
        suppress,
        bool(attr("FRA_OIFNAME") or item["tos"] or users or any(attr(key) for key in UNKNOWN)),
    )


def _range(words: Any) -> tuple[int, int] | None:
    """(first, last) of pyroute2's `80:90`."""
    ends = str(words).split(":") if words else []
    return (int(ends[0]), int(ends[1])) if len(ends) == 2 else None


def ended_by(rules: list[Rule], routes: list[Route], packet: Packet, iif: str) -> tuple[Rule, Route | None] | None:
    """The rule that ends the packet, and the route in its table that does so, None if the rule itself does. It follows
    the kernel (fib_rules_lookup). None if a route leads on, or there is no route at all."""
    skip_to = 0
    for rule in rules:
        if rule.priority < skip_to or not rule.takes(packet, iif or "lo"):
            continue
        if rule.action in ENDING:
            return rule, None
        if rule.action == GOTO:
            skip_to = rule.target
        if rule.action != TO_TABLE:
            continue
        found = [route for route in routes if route[1] == rule.table and packet.daddr in route[0]]
        best = max(found, key=lambda route: route[0].length, default=None)
        if best is None or best[3] == "throw" or (rule.suppress != NONE and best[0].length <= rule.suppress):
            continue
        return (rule, best) if best[3] in ENDING.values() else None
    return None


def looks_up(rules: list[Rule], table: int) -> bool:
    """Whether a rule leads every packet to the table, as the kernel's own rules do."""
    return any(
        rule.table == table and rule.action == TO_TABLE and rule.takes_all and rule.suppress == NONE for rule in rules
    )
