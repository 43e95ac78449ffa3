"""TCP's flags as bits of RFC 9293, 3.1: what a rule in libnftables' JSON asks for, and what a connection's first packet
and its answer have.
"""

from __future__ import annotations

from cni.operate.walk.packet import Packet
from cni.operate.walk.ruleset import Json

BITS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}


class TcpFlags(int):
    """The flags of a packet, or what a mask leaves of them."""


def flags_of(packet: Packet) -> TcpFlags:
    return TcpFlags(BITS["syn"] if packet.state == "new" else BITS["syn"] | BITS["ack"])


def bits(expr: Json) -> int | None:
    """The bits of a constant: names, alone, in a list, or with | between them; None for anything else."""
    if isinstance(expr, dict):
        expr = expr.get("|")
    parts = expr if isinstance(expr, list) else [expr]
    found = 0
    for part in parts:
        number = part if isinstance(part, int) else BITS.get(part) if isinstance(part, str) else bits(part)
        if number is None:
            return None
        found |= number
    return found


def masked(flags: TcpFlags, mask: Json) -> TcpFlags | None:
    number = bits(mask)
    return None if number is None else TcpFlags(flags & number)


def holds(op: str, flags: TcpFlags, right: Json) -> bool | None:
    """Whether the comparison holds, None if unknown. nft's `in` means any of the flags, `!` none of them."""
    if isinstance(right, dict) and isinstance(right.get("set"), list):
        wanted = [bits(one) for one in right["set"]]
        found = int(flags) in wanted
        return None if None in wanted else found != (op == "!=")
    number = bits(right)
    if number is None:
        return None
    return {"in": bool(flags & number), "!": not flags & number, "!=": flags != number}.get(op, flags == number)
