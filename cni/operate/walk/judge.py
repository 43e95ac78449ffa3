"""What the chains of one hook do to a packet: accept it, drop it (in which chain, by which rule), or translate it.

Rules are followed as in nf_tables: a base chain's accept ends only that chain, a drop ends everything. A rule whose
condition cannot be evaluated is skipped and remembered as a doubt: a drop after a doubtful accept is not a finding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cni.operate.walk.matching import MISSING, UNKNOWN, HostQueries, Members, evaluate, holds, members, parse_value
from cni.operate.walk.packet import Packet
from cni.operate.walk.ruleset import Chain, Json, Rule, Ruleset
from nft.addresses import Address
from nft.schema import TABLE

OURS = ("inet", TABLE)
DEPTH = 16  # NFT_JUMP_STACK_SIZE
NAT = ("dnat", "snat", "masquerade", "redirect")
TERMINAL = ("accept", "drop", "reject", "queue", "return", "continue", "jump", "goto", "vmap", "fwd", "tproxy", *NAT)


@dataclass
class Verdict:
    """A base chain's verdict. `at` is the chain with the rule, None for a policy; `doubts` are the skipped rules."""

    word: str
    chain: Chain
    at: Chain | None = None
    rule: Rule | None = None
    doubts: list[str] = field(default_factory=list)

    @property
    def drops(self) -> bool:
        return self.word in ("drop", "reject", "fwd")

    @property
    def certain(self) -> bool:
        return "accept" not in self.doubts

    def __str__(self) -> str:
        if self.rule is None or self.at is None:
            return f"{self.chain}: policy drop"
        inside = f", from {self.chain.name}" if self.at is not self.chain else ""
        return f"{self.at}{inside}: {self.rule.text or describe(self.rule)}"


class Judge:
    """Decides what the rules of one network namespace do to packets."""

    def __init__(self, rules: Ruleset, host: HostQueries) -> None:
        self.rules = rules
        self.host = host

    def pass_hook(
        self, hook: str, packet: Packet, families: tuple[str, ...] = (), skip: tuple[str, str] = ("", "")
    ) -> list[Verdict]:
        """The verdicts of all base chains in order. It goes on after a drop, which may not be the only one. NAT changes
        the packet. Drops of the table `skip` are ignored."""
        found = []
        for chain in self.rules.base(hook, families or ("inet", packet.family)):
            if chain.type == "nat" and packet.natted:
                continue
            verdict = self.pass_chain(chain, packet)
            if verdict.drops and (chain.family, chain.table) == skip:
                verdict.word = "accept"
            found.append(verdict)
            if verdict.word in NAT:
                packet.natted = True
        return found

    def pass_device(self, hook: str, device: str, packet: Packet) -> list[Verdict]:
        """The verdicts of chains on a network device, before (ingress) or after (egress) everything else."""
        return [self.pass_chain(chain, packet) for chain in self.rules.base(hook, ("netdev", "inet"), device)]

    def pass_chain(self, chain: Chain, packet: Packet) -> Verdict:
        """The verdict of one base chain."""
        doubts: list[str] = []
        done = self._run(chain, chain, packet, doubts, 0)
        if done is None:
            return Verdict(chain.policy, chain, doubts=doubts)
        done.doubts = doubts
        return done

    def _run(self, base: Chain, chain: Chain, packet: Packet, doubts: list[str], depth: int) -> Verdict | None:
        """The chain's verdict, None if it came to its end."""
        for rule in chain.rules:
            sure = True
            for expr in rule.exprs:
                (kind, body), *_ = parts(expr)
                answer = self._condition(kind, body, packet, chain)
                if answer is False:
                    break
                if answer is None:
                    sure = False
                if kind == "mangle":
                    self._mangle(body, packet, sure)
                elif kind == "notrack" and sure and packet.tracked:
                    packet.tracked, packet.untracked = False, Verdict("notrack", base, chain, rule)
                if kind not in TERMINAL:
                    continue
                word, target = self._verdict(kind, body, packet, chain)
                if word in ("jump", "goto"):
                    inner = self._jump(base, chain, target, packet, doubts, depth, sure)
                    if inner is not None and sure:
                        return inner
                    if word == "goto" and sure:
                        return None if depth else Verdict(base.policy, base)
                    break
                if word == "return" and sure:
                    return None if depth else Verdict(base.policy, base)
                if word in ("", "continue", "return"):
                    break
                if not sure or word in ("queue", "tproxy"):
                    doubts.append("accept" if word not in ("drop", "reject") else "drop")
                    break
                if word in NAT and not self._translate(word, body, packet, chain):
                    break
                return Verdict(word, base, chain, rule)
        return None

    def _jump(
        self, base: Chain, chain: Chain, name: str, packet: Packet, doubts: list[str], depth: int, sure: bool
    ) -> Verdict | None:
        target = self.rules.chain(chain, name)
        if target is None or depth >= DEPTH:
            return None
        inner = self._run(base, target, packet, doubts, depth + 1)
        if inner is not None and not sure:
            doubts.append("drop" if inner.drops else "accept")
        return inner

    def _condition(self, kind: str, body: Any, packet: Packet, chain: Chain) -> bool | None:
        if kind == "match":
            return holds(body, packet, self.host, self.rules, chain)
        if kind in ("limit", "ct count", "quota"):  # a first packet exceeds no limit
            return not (isinstance(body, dict) and body.get("inv"))
        if kind == "xt":
            return None if body is None or body.get("type") != "target" else True
        return True

    def _verdict(self, kind: str, body: Any, packet: Packet, chain: Chain) -> tuple[str, str]:
        if kind in ("jump", "goto"):
            return kind, body["target"]
        if kind != "vmap":
            return kind, ""
        value = evaluate(body["key"], packet, self.host)
        if value is UNKNOWN or value is None:
            return ("queue" if value is UNKNOWN else "", "")
        data = self._members(body["data"], chain).find(value)
        if data is MISSING:
            return "", ""
        (word, inner), *_ = data.items() if isinstance(data, dict) else ((data, None),)
        return word, inner["target"] if isinstance(inner, dict) else ""

    def _members(self, data: Json, chain: Chain) -> Members:
        if isinstance(data, str):
            found = self.rules.named_set(chain, data.lstrip("@"))
            return Members([], True) if found is None else members(self.rules, found)
        return Members(data.get("set", []), True)

    def _mangle(self, body: Json, packet: Packet, sure: bool) -> None:
        (kind, key), *_ = body["key"].items()
        if key.get("key") != "mark":
            return
        value = evaluate(body["value"], packet, self.host)
        mark = value if isinstance(value, int) and sure else None
        if kind == "meta":
            packet.mark = mark
        elif kind == "ct":
            packet.ct_mark = mark

    def _translate(self, word: str, given: Any, packet: Packet, chain: Chain) -> bool:
        """Translates the packet. Returns False if a map has no entry for it, or the statement is for the other
        family."""
        body: Json = given if isinstance(given, dict) else {}
        if body.get("family") not in (None, packet.family):
            return False
        if word in ("snat", "masquerade"):
            packet.status |= {"snat"}
            return True
        address: Json = body.get("addr")
        port = body.get("port")
        if isinstance(address, dict) and "map" in address:
            value = evaluate(address["map"]["key"], packet, self.host)
            if value is None or value is UNKNOWN:
                return False
            data = self._members(address["map"]["data"], chain).find(value)
            if data is MISSING:
                return False
            address, port = data["concat"] if isinstance(data, dict) and "concat" in data else (data, port)
        target = parse_value(address) if address is not None else None
        if isinstance(target, Address):
            if target.version != packet.version:
                return False
            packet.daddr = target
        packet.dport = port if isinstance(port, int) else packet.dport
        packet.status |= {"dnat"}
        return True


def parts(expr: Json) -> list[tuple[str, Json]]:
    """(kind, body) of each part of an expression. Some versions print statements without a body as mere words."""
    return list(expr.items()) if isinstance(expr, dict) else [(expr, None)]


def describe(rule: Rule) -> str:
    """The rule in short, for people: its matches and its verdict."""
    words = []
    for expr in rule.exprs:
        (kind, body), *_ = parts(expr)
        if kind == "match":
            words.append(f"{_side(body['left'])} {'!= ' if body.get('op') == '!=' else ''}{_side(body['right'])}")
        elif kind in ("jump", "goto"):
            words.append(f"{kind} {body['target']}")
        elif kind in TERMINAL:
            words.append(kind)
    number = f" (handle {rule.handle})" if rule.handle else ""
    return " ".join(words) + number


def _side(expr: Json) -> str:
    if not isinstance(expr, dict):
        return ",".join(map(str, expr)) if isinstance(expr, list) else str(expr)
    (kind, body), *_ = expr.items()
    if kind in ("meta", "ct"):
        return f"{kind if body['key'] not in ('iifname', 'oifname', 'iif', 'oif') else ''} {body['key']}".strip()
    if kind == "payload":
        return f"{body.get('protocol', '')} {body.get('field', '')}".strip()
    if kind == "fib":
        return f"fib {body.get('flags')} {body.get('result')}"
    if kind == "set":
        return "{ " + ", ".join(map(_side, body)) + " }" if isinstance(body, list) else str(body)
    if kind == "prefix":
        return f"{body['addr']}/{body['len']}"
    if kind == "range":
        return "-".join(map(str, body))
    return kind if not isinstance(body, list) else f" {kind} ".join(map(_side, body))
