"""The packet that is followed, as firewall rules see it. The walk changes it as the kernel would."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Union

from nft.addresses import Address

NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "ipv6-icmp": 58, "sctp": 132}
REQUEST, REPLY = "request", "reply"  # nft's names of ARP's operations
SOLICIT, ADVERT = "nd-neighbor-solicit", "nd-neighbor-advert"


@dataclass
class Packet:
    """`iif` and `oif` are links' names, "" if the hook knows none. `mark` is None if it could not be followed. `kind`
    is the message of a packet that searches for a neighbour (`proto` arp or icmpv6), which has no ports."""

    proto: str
    saddr: Address
    daddr: Address
    dport: int
    sport: int = 40000
    iif: str = ""
    oif: str = ""
    mark: Union[int, None] = 0  # noqa: UP007  # evaluated by dataclasses on Python 3.9
    ct_mark: Union[int, None] = 0  # noqa: UP007
    state: str = "new"
    direction: str = "original"
    status: frozenset[str] = frozenset()
    tracked: bool = True
    untracked: Any = None  # the verdict that made it so
    original: tuple[Address, Address, int, int] = field(default=(Address(4, 0), Address(4, 0), 0, 0))
    natted: bool = False
    kind: str = ""

    def __post_init__(self) -> None:
        if not self.original[3]:
            self.original = (self.saddr, self.daddr, self.sport, self.dport)

    @property
    def version(self) -> int:
        return self.daddr.version

    @property
    def family(self) -> str:
        return "ip" if self.version == 4 else "ip6"

    def at(self, iif: str, oif: str) -> Packet:
        self.iif, self.oif = iif, oif
        return self

    def answer(self) -> Packet:
        """The answer to this packet: established, with the tracker's memory of both ends."""
        status = self.status | {"seen-reply", "confirmed", "assured"}
        return replace(
            self,
            saddr=self.daddr,
            daddr=self.saddr,
            sport=self.dport,
            dport=self.sport,
            iif="",
            oif="",
            mark=0,
            state="established",
            direction="reply",
            status=status,
            natted=True,
        )

    def __str__(self) -> str:
        ends = [f"[{one}]" if one.version == 6 else str(one) for one in (self.saddr, self.daddr)]
        return f"{self.proto} {ends[0]}:{self.sport} > {ends[1]}:{self.dport}"
