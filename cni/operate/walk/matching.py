"""Decides whether a rule's match holds for the packet: yes, no, or None if that cannot be told from here.

The expressions are those of libnftables' JSON (libnftables-json(5)). `HostQueries` answers what they ask about the
host.
"""

from __future__ import annotations

from typing import Any, Protocol

from cni.operate.walk import tcp_flags
from cni.operate.walk.packet import NUMBERS, REQUEST, Packet
from cni.operate.walk.ruleset import Chain, Json, Ruleset
from cni.operate.walk.tcp_flags import TcpFlags, flags_of, masked
from nft.addresses import Address, Prefix, parse_address

UNKNOWN = object()
ETHER_TYPES = {4: ("ip", 0x0800), 6: ("ip6", 0x86DD)}


class HostQueries(Protocol):
    """What rules may ask about the host."""

    def address_type(self, address: Address) -> str: ...

    def reverse_path(self, packet: Packet, same_link: bool) -> str: ...

    def link_kind(self, name: str) -> str: ...

    def bridge_of(self, port: str) -> str: ...

    def link_group(self, name: str) -> int: ...


class Flags(frozenset):  # type: ignore[type-arg]
    """A value that matches if it has one of the wanted flags: ct state, ct status."""


def evaluate(expr: Json, packet: Packet, host: HostQueries) -> Any:
    """The value of an expression, UNKNOWN if it depends on more than is known, None if the packet lacks the field."""
    if not isinstance(expr, dict):
        return parse_value(expr)
    (kind, body), *_ = expr.items()
    if kind in ("meta", "payload", "ct", "fib"):
        return {"meta": _meta, "payload": _payload, "ct": _ct, "fib": _fib}[kind](body, packet, host)
    if kind == "concat":
        parts = [evaluate(part, packet, host) for part in body]
        if any(part is None for part in parts):
            return None
        return UNKNOWN if any(part is UNKNOWN for part in parts) else tuple(parts)
    if kind in ("&", "|", "^", "<<", ">>"):
        one = evaluate(body[0], packet, host)
        if isinstance(one, TcpFlags) and kind == "&":
            found = masked(one, body[1])
            return UNKNOWN if found is None else found
        other = evaluate(body[1], packet, host)
        if not isinstance(one, int) or not isinstance(other, int):
            return UNKNOWN
        return {"&": one & other, "|": one | other, "^": one ^ other}.get(
            kind, one << other if kind == "<<" else one >> other
        )
    return UNKNOWN


def _meta(body: Json, packet: Packet, host: HostQueries) -> Any:
    key = body["key"]
    if packet.proto == "arp" and key in ("l4proto", "nfproto", "protocol"):
        return {"l4proto": None, "nfproto": UNKNOWN, "protocol": "arp"}[key]
    if key in ("iifname", "iif"):
        return packet.iif
    if key in ("oifname", "oif"):
        return packet.oif
    if key in ("ibrname", "obrname", "ibridgename", "obridgename"):
        return host.bridge_of(packet.iif if key[0] == "i" else packet.oif)
    if key in ("iifkind", "oifkind"):
        return host.link_kind(packet.iif if key[0] == "i" else packet.oif)
    if key in ("iifgroup", "oifgroup"):
        return host.link_group(packet.iif if key[0] == "i" else packet.oif) or "default"
    if key in ("iiftype", "oiftype"):
        return "loopback" if (packet.iif if key[0] == "i" else packet.oif) == "lo" else "ether"
    simple = {
        "l4proto": NUMBERS.get(packet.proto, UNKNOWN),
        "nfproto": f"ipv{packet.version}",
        "protocol": ETHER_TYPES[packet.version][0],
        "mark": UNKNOWN if packet.mark is None else packet.mark,
        "ipsec": False,  # the followed packet is not encrypted
        "secpath": False,
        "pkttype": "multicast" if packet.daddr.is_multicast else "broadcast" if packet.kind == REQUEST else "host",
    }
    return simple.get(key, UNKNOWN)


def _payload(body: Json, packet: Packet, host: HostQueries) -> Any:
    protocol, key = body.get("protocol"), body.get("field")
    if packet.proto == "arp" and protocol != "ether":
        return _arp(str(key), packet) if protocol == "arp" else None
    if protocol in ("ip", "ip6"):
        if protocol != packet.family:
            return None
        number = NUMBERS.get(packet.proto, UNKNOWN)
        return {"saddr": packet.saddr, "daddr": packet.daddr, "protocol": number, "nexthdr": number}.get(key, UNKNOWN)
    if protocol in ("tcp", "udp", "sctp", "udplite", "dccp", "th"):
        if protocol not in (packet.proto, "th"):
            return None
        if packet.kind:
            return UNKNOWN
        if key == "flags":
            return flags_of(packet)
        return {"sport": packet.sport, "dport": packet.dport}.get(key, UNKNOWN)
    if protocol == "ether":
        return ("arp" if packet.proto == "arp" else ETHER_TYPES[packet.version][0]) if key == "type" else UNKNOWN
    if protocol == packet.proto == "icmpv6":
        return packet.kind if key == "type" else UNKNOWN
    return None if protocol in ("arp", "vlan", "icmp", "icmpv6", "igmp") else UNKNOWN


def _arp(key: str, packet: Packet) -> Any:
    fields = {"operation": packet.kind, "saddr ip": packet.saddr, "daddr ip": packet.daddr}
    return {**fields, "htype": 1, "ptype": "ip", "hlen": 6, "plen": 4}.get(key, UNKNOWN)


def _ct(body: Json, packet: Packet, _host: HostQueries) -> Any:
    key = body["key"].split()[-1]
    if not packet.tracked:
        return Flags(("untracked",)) if key == "state" else None
    if "dir" in body and key in ("saddr", "daddr", "proto-src", "proto-dst"):
        if body["dir"] != "original":
            return UNKNOWN
        saddr, daddr, sport, dport = packet.original
        return {"saddr": saddr, "daddr": daddr, "proto-src": sport, "proto-dst": dport}[key]
    simple = {
        "state": Flags((packet.state,)),
        "status": Flags(packet.status),
        "direction": packet.direction,
        "mark": UNKNOWN if packet.ct_mark is None else packet.ct_mark,
        "protocol": NUMBERS.get(packet.proto, UNKNOWN),
        "l3proto": f"ipv{packet.version}",
        "zone": 0,
    }
    return simple.get(key, UNKNOWN)


def _fib(body: Json, packet: Packet, host: HostQueries) -> Any:
    flags = body.get("flags", [])
    flags = [flags] if isinstance(flags, str) else flags
    if body.get("result") == "type":
        return host.address_type(packet.daddr if "daddr" in flags else packet.saddr)
    if "saddr" in flags and body.get("result") in ("oif", "oifname"):
        return host.reverse_path(packet, "iif" in flags) or False
    return UNKNOWN


def parse_value(value: Json) -> Any:
    """A constant of a rule as a value, with addresses parsed."""
    if isinstance(value, str):
        if value in NUMBERS:
            return NUMBERS[value]
        if value[:1].isdigit() or ":" in value:
            try:
                return parse_address(value)
            except ValueError:
                pass
        if value.startswith("0x"):
            return int(value, 16)
    return value


def holds(match: Json, packet: Packet, host: HostQueries, rules: Ruleset, chain: Chain) -> bool | None:
    """Whether one `match` statement holds, None if unknown."""
    value = evaluate(match["left"], packet, host)
    if value is None:
        return False  # nft adds the condition that the packet has the field
    op, right = match.get("op", "=="), match["right"]
    if value is UNKNOWN:
        return None
    if isinstance(value, TcpFlags):
        return tcp_flags.holds(op, value, right)
    if op in ("<", ">", "<=", ">="):
        wanted = parse_value(right)
        if not isinstance(value, int) or not isinstance(wanted, int):
            return None
        return {"<": value < wanted, ">": value > wanted, "<=": value <= wanted, ">=": value >= wanted}[op]
    answer = contains(right, value, rules, chain)
    return answer if answer is None or op != "!=" else not answer


def contains(right: Json, value: Any, rules: Ruleset, chain: Chain) -> bool | None:
    """Whether the value equals the right side or is in it, None if unknown."""
    if isinstance(right, str) and right.startswith("@"):
        found = rules.named_set(chain, right[1:])
        if found is None:
            return None
        return members(rules, found).find(value) is not MISSING
    if isinstance(right, dict) and "set" in right:
        given = right["set"] if isinstance(right["set"], list) else [right["set"]]
        return any(_is(member, value) for member in given)
    if isinstance(right, list):
        return any(_is(member, value) for member in right)
    if isinstance(right, dict) and not {"range", "prefix", "concat", "elem", "|"} & right.keys():
        return None
    return _is(right, value)


def _is(member: Json, value: Any) -> bool:
    if isinstance(member, dict) and "elem" in member:
        return _is(member["elem"]["val"], value)
    if isinstance(member, dict) and "|" in member:
        return any(_is(part, value) for part in member["|"])
    if isinstance(value, tuple):
        parts = member.get("concat", []) if isinstance(member, dict) else []
        return len(parts) == len(value) and all(_is(part, one) for part, one in zip(parts, value))
    if isinstance(value, Flags):
        return member in value
    if isinstance(member, dict) and "range" in member:
        low, high = (parse_value(end) for end in member["range"])
        if isinstance(value, Address):
            return bool(low.version == value.version and low.number <= value.number <= high.number)
        return isinstance(value, int) and bool(low <= value <= high)
    if isinstance(member, dict) and "prefix" in member:
        base = parse_value(member["prefix"]["addr"])
        return isinstance(value, Address) and value in Prefix(base, member["prefix"]["len"])
    if isinstance(value, str) and isinstance(member, str):
        return value.startswith(member[:-1]) if member.endswith("*") else value == member
    wanted = parse_value(member)
    if isinstance(value, int) and isinstance(wanted, str) and wanted.isdigit():
        wanted = int(wanted)
    return bool(wanted == value)


MISSING = object()


class Members:
    """The elements of a set or map: a dictionary of single values, and a list of ranges and the like."""

    def __init__(self, elements: list[Json], is_map: bool) -> None:
        self.exact: dict[Any, Json] = {}
        self.others: list[tuple[Json, Json]] = []
        self.all: list[tuple[Json, Json]] = []
        for element in elements:
            key, data = element if is_map and isinstance(element, list) and len(element) == 2 else (element, None)
            if isinstance(key, dict) and "elem" in key:
                key = key["elem"]["val"]
            self.all.append((key, data))
            single = _single(key)
            if single is None:
                self.others.append((key, data))
            else:
                self.exact[single] = data

    def find(self, value: Any) -> Json:
        """The element's data, None in a set; MISSING if there is none. Flags match any of several values, so the
        dictionary cannot find them."""
        if isinstance(value, TcpFlags):
            return next((data for key, data in self.all if key == "*" or tcp_flags.bits(key) == value), MISSING)
        if any(isinstance(part, Flags) for part in (value if isinstance(value, tuple) else (value,))):
            return next((data for key, data in self.all if key == "*" or _is(key, value)), MISSING)
        if value in self.exact:
            return self.exact[value]
        return next((data for key, data in self.others if key == "*" or _is(key, value)), MISSING)


def _single(key: Json) -> Any:
    """An element's key as a value, None if it stands for several."""
    if isinstance(key, dict):
        parts = [_single(part) for part in key["concat"]] if "concat" in key else [None]
        return None if None in parts else tuple(parts)
    value = parse_value(key)
    if isinstance(value, str) and (value.endswith("*") or value.isdigit()):
        return None
    return value if isinstance(value, (str, int, Address)) else None


def members(rules: Ruleset, found: Json) -> Members:
    made: Members = rules.once(id(found), lambda: Members(found.get("elem", []), "map" in found))
    return made
