"""Reads rules that iptables wrote from `iptables-save`, and turns them into the form of libnftables' JSON.

nft prints most matches of iptables-nft as "xt" without their content, and knows nothing about iptables-legacy.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil

from cni.operate.screen import CannotLook
from cni.operate.walk.packet import ADVERT, SOLICIT
from cni.operate.walk.ruleset import Chain, Json, Rule, Ruleset, program

PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
SIMPLE = {"ACCEPT": "accept", "DROP": "drop", "RETURN": "return", "QUEUE": "queue", "NFQUEUE": "queue"}
IGNORED = ("LOG", "NFLOG", "TCPMSS", "CT", "CHECKSUM", "AUDIT", "TRACE", "CONNSECMARK", "SECMARK", "DSCP", "SET")


def add_iptables(rules: Ruleset) -> None:
    """Adds iptables-legacy's chains, and replaces nft's view of iptables-nft's chains by that of iptables."""
    for family, prefix in (("ip", "iptables"), ("ip6", "ip6tables")):
        tables = {
            chain.table
            for chain in rules.chains.values()
            if chain.family == family and any("xt" in expr for rule in chain.rules for expr in rule.exprs if expr)
        }
        if tables:
            text = _saved(rules, f"{prefix}-nft-save", f"{prefix}-save")
            for chain in read_saved(text, family, prefix):
                if chain.table in tables:
                    rules.without_table(family, chain.table)
            for chain in read_saved(text, family, prefix):
                if chain.table in tables:
                    rules.add(chain)
        if legacy_tables(family):
            text = _saved(rules, f"{prefix}-legacy-save")
            for chain in read_saved(text, family, f"{prefix}-legacy"):
                rules.add(chain)


def legacy_tables(family: str) -> list[str]:
    """The tables that iptables-legacy has in this namespace."""
    try:
        with open(f"/proc/thread-self/net/{family}_tables_names", encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return []


def _saved(rules: Ruleset, *names: str) -> str:
    for name in names:
        path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if path:
            try:
                return program(path)
            except CannotLook as error:
                rules.notes.append(str(error))
                return ""
    rules.notes.append(f"there are rules of iptables, but {names[0]}, which could read them, is missing")
    return ""


def read_saved(text: str, family: str, tool: str) -> list[Chain]:
    """The chains in the output of `iptables-save`."""
    chains: dict[tuple[str, str], Chain] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            name, policy = line[1:].split()[:2]
            chains[(table, name)] = _chain(family, table, name, policy, tool)
        elif line.startswith("-A "):
            words = shlex.split(line)
            chain = chains.get((table, words[1]))
            if chain is not None:
                chain.rules.append(Rule(translate(words[2:], family), 0, " ".join(words[2:])))
    return list(chains.values())


def _chain(family: str, table: str, name: str, policy: str, tool: str) -> Chain:
    if policy == "-":
        return Chain(family, table, name, tool=tool)
    hook = name.lower()
    priority = PRIORITIES.get(table, -100 if name in ("PREROUTING", "OUTPUT") else 100)
    kind = "nat" if table == "nat" else "filter"
    return Chain(family, table, name, kind, hook, priority, policy.lower(), tool=tool)


def _match(left: Json, right: Json, negated: bool) -> Json:
    return {"match": {"op": "!=" if negated else "==", "left": left, "right": right}}


NEVER = _match({"meta": {"key": "nfproto"}}, [], False)


def _tcp_flags(mask: str, wanted: str, negated: bool) -> Json:
    field = {"payload": {"protocol": "tcp", "field": "flags"}}
    return _match({"&": [field, _flags(mask)]}, _flags(wanted), negated)


def _flags(text: str) -> list[str]:
    known = {"ALL": ["fin", "syn", "rst", "psh", "ack", "urg"], "NONE": []}
    return known.get(text) or ([] if text in known else text.lower().split(","))


def translate(words: list[str], family: str) -> list[Json]:
    """One rule's words as expressions. An unknown option becomes a condition that cannot be evaluated."""
    found: list[Json] = []
    protocol = ""
    negated = False
    position = 0

    def value() -> str:
        nonlocal position
        position += 1
        return words[position] if position < len(words) else ""

    while position < len(words):
        word = words[position]
        if word == "!":
            negated = True
            position += 1
            continue
        if word in ("-s", "-d"):
            field = {"-s": "saddr", "-d": "daddr"}[word]
            right = [_prefix(part) for part in value().split(",")]
            found.append(_match({"payload": {"protocol": family, "field": field}}, right, negated))
        elif word in ("-i", "-o"):
            name = value()
            key = {"-i": "iifname", "-o": "oifname"}[word]
            if name != "+":
                found.append(_match({"meta": {"key": key}}, re.sub(r"\+$", "*", name), negated))
        elif word == "-p":
            protocol = value()
            if protocol != "all":
                found.append(_match({"meta": {"key": "l4proto"}}, protocol, negated))
        elif word in ("--dport", "--sport", "--dports", "--sports", "--destination-ports", "--source-ports"):
            field = "dport" if word.lstrip("-")[0] == "d" else "sport"
            right = [_range(part) for part in value().split(",")]
            found.append(_match({"payload": {"protocol": "th", "field": field}}, right, negated))
        elif word in ("--ctstate", "--state"):
            found.append(_states(value().lower().split(","), negated))
        elif word == "--ctstatus":
            right = [state.replace("_", "-") for state in value().lower().split(",")]
            found.append(_match({"ct": {"key": "status"}}, right, negated))
        elif word == "--ctdir":
            found.append(_match({"ct": {"key": "direction"}}, value().lower(), negated))
        elif word == "--ctorigdstport":
            left = {"ct": {"key": "proto-dst", "dir": "original"}}
            found.append(_match(left, _range(value()), negated))
        elif word == "--ctorigdst":
            left = {"ct": {"key": f"{family} daddr", "dir": "original"}}
            found.append(_match(left, _prefix(value()), negated))
        elif word in ("--dst-type", "--src-type"):
            flag = "daddr" if word == "--dst-type" else "saddr"
            right = value().lower().split(",")
            found.append(_match({"fib": {"result": "type", "flags": [flag]}}, right, negated))
        elif word == "--mark":
            number, _, mask = value().partition("/")
            left = {"meta": {"key": "mark"}}
            found.append(_match({"&": [left, int(mask, 0)]} if mask else left, int(number, 0), negated))
        elif word in ("--comment", "-m", "--limit", "--limit-burst", "--tcp-flags"):
            kind = value()
            if word == "--tcp-flags":
                found.append(_tcp_flags(kind, value(), negated))
            elif word == "-m" and kind in (
                "set",
                "rpfilter",
                "physdev",
                "owner",
                "string",
                "recent",
                "bpf",
                "connlimit",
            ):
                found.append({"xt": None})
        elif word in ("-j", "-g"):
            found += _target(value(), words[position + 1 :], word == "-g")
            break
        elif word == "--icmpv6-type":
            found.append(_match({"payload": {"protocol": "icmpv6", "field": "type"}}, _icmpv6(value()), negated))
        elif word == "--syn":
            found.append(_tcp_flags("FIN,SYN,RST,ACK", "SYN", negated))
        elif word == "--pol":  # of the match `policy`: the followed packet came without IPsec
            found += [NEVER] if (value() == "ipsec") != negated else []
        elif word in ("--dir", "--proto", "--tunnel-src", "--tunnel-dst", "--reqid", "--spi"):
            value()  # more of the same match
        elif word.startswith("-"):
            found.append({"xt": None})
        negated = False
        position += 1
    return found


def _icmpv6(name: str) -> str:
    """nft's name of a message type that the walk uses; iptables prints a number or its own name."""
    known = {"135": SOLICIT, "neighbour-solicitation": SOLICIT, "136": ADVERT, "neighbour-advertisement": ADVERT}
    return known.get(name.partition("/")[0], name)


def _states(states: list[str], negated: bool) -> Json:
    """The match for a list of states, in which iptables also writes DNAT and SNAT; to the kernel these are status
    bits."""
    status = [state for state in states if state in ("dnat", "snat")]
    if status and len(status) < len(states):
        return {"xt": None}
    return _match({"ct": {"key": "status" if status else "state"}}, states, negated)


def _target(name: str, rest: list[str], goto: bool) -> list[Json]:
    options = dict(zip(rest, rest[1:]))
    if name in SIMPLE:
        return [{SIMPLE[name]: None}]
    if name == "REJECT":
        return [{"reject": None}]
    if name == "SNAT" and "-" not in options.get("--to-source", "-"):
        return [{"snat": {"addr": _endpoint(options["--to-source"])[0]}}]
    if name in ("MASQUERADE", "SNAT", "NETMAP"):
        return [{"masquerade": None}]
    if name in ("DNAT", "REDIRECT"):
        address, port = _endpoint(options.get("--to-destination", ""))
        ports = options.get("--to-ports", "")
        port = port or (int(ports.split("-")[0]) if ports[:1].isdigit() else 0)
        body = {key: item for key, item in (("addr", address), ("port", port)) if item}
        return [{"dnat" if name == "DNAT" else "redirect": body}]
    if name in ("MARK", "CONNMARK"):
        return _marks(name, options, rest)
    if name == "NOTRACK" or (name == "CT" and "--notrack" in rest):
        return [{"notrack": None}]
    if name in IGNORED:
        return []
    return [{"goto" if goto else "jump": {"target": name}}]


def _marks(name: str, options: dict[str, str], rest: list[str]) -> list[Json]:
    own = {"meta": {"key": "mark"}}, {"ct": {"key": "mark"}}
    target = own[name == "CONNMARK"]
    if "--restore-mark" in rest:
        return [{"mangle": {"key": own[0], "value": own[1]}}]
    if "--save-mark" in rest:
        return [{"mangle": {"key": own[1], "value": own[0]}}]
    text = options.get("--set-xmark") or options.get("--set-mark")
    if not text:
        return [{"mangle": {"key": target, "value": {"unknown": None}}}]
    number, _, mask = text.partition("/")
    if not mask or int(mask, 0) == 0xFFFFFFFF:
        return [{"mangle": {"key": target, "value": int(number, 0)}}]
    kept = {"&": [target, ~int(mask, 0) & 0xFFFFFFFF]}
    return [{"mangle": {"key": target, "value": {"^": [kept, int(number, 0)]}}}]


def _endpoint(text: str) -> tuple[str, int]:
    """Address and port of `1.2.3.4:80` or `[::1]:80`; of a range, the first."""
    found = re.fullmatch(r"\[?([0-9A-Fa-f.:]*?)\]?(?:-[0-9A-Fa-f.:]+)?(?::(\d+)(?:-\d+)?)?", text)
    return (found[1], int(found[2] or 0)) if found else ("", 0)


def _prefix(text: str) -> Json:
    address, slash, length = text.partition("/")
    if not slash or "." in length:
        return address
    return {"prefix": {"addr": address, "len": int(length)}}


def _range(text: str) -> Json:
    low, colon, high = text.partition(":")
    return {"range": [int(low or 0), int(high or 65535)]} if colon else int(low)
