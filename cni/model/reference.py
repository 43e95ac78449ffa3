"""What the reference plugins leave on a host for one attachment: the names of their chains, and whose a rule is. Pure.

The rules follow their sources up to 1.10: pkg/utils/utils.go for the hashes, pkg/ip/ipmasq_*, plugins/meta/portmap and
plugins/meta/firewall. With iptables (nft's or the legacy one) each container has its own chains; with nftables it has
rules with a comment in chains that all share.
"""

from __future__ import annotations

from nft.addresses import Address
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nft.rules import Chain, Rule

HOSTPORTS, MASQUERADE = "cni_hostport", "cni_plugins_masquerade"
TABLES = (
    *(("ip", "nat"), ("ip6", "nat"), ("ip", "filter"), ("ip6", "filter")),
    *(("ip", HOSTPORTS), ("ip6", HOSTPORTS), ("inet", MASQUERADE)),
)
FORWARD, ADMIN, PORTS = "CNI-FORWARD", "CNI-ADMIN", "CNI-HOSTPORT-DNAT"
SHARED = (PORTS, "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SNAT")
ISOLATION = ("CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE-2")


class Traces(Value):
    """The traces of one attachment, or only of its published ports. `links` are the names and MAC addresses of the
    host's ends, from its result."""

    network: str
    container: str
    ifname: str
    addresses: tuple[Address, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    ports_only: bool = False

    @property
    def chains(self) -> tuple[str, ...]:
        """The names of the chains for its published ports and for its masquerade."""
        digest = _sha512(self.network + self.container)
        return (f"CNI-DN-{digest}"[:28],) if self.ports_only else (f"CNI-DN-{digest}"[:28], f"CNI-{digest}"[:28])

    @property
    def comment(self) -> str:
        """The beginning of its masquerading rules' comments."""
        return f"{_sha512(self.network)[:16]}-{_sha512(f'{self.ifname}:{self.container}')[:16]}"

    def has_chain(self, chain: Chain) -> bool:
        return chain.table == "nat" and chain.name in self.chains

    def has_rule(self, rule: Rule) -> bool:
        """Whether the rule is its own, or leads to one of its chains."""
        table = rule.chain.table
        if table == "nat":
            return rule.chain.name in self.chains or rule.target in self.chains
        if table == "filter":
            return rule.chain.name == FORWARD and any(rule.compares(address.packed) for address in self.addresses)
        if table == HOSTPORTS:
            return rule.comment == self.container
        return table == MASQUERADE and not self.ports_only and rule.comment.startswith(self.comment)

    def has_legacy(self, words: list[str]) -> bool:
        """`has_rule` for a line of iptables-save, split into words: `-A CHAIN ...`."""
        chain, target = words[1], words[words.index("-j") + 1] if "-j" in words[:-1] else ""
        if chain == FORWARD:
            return any(word.split("/")[0] == str(address) for word in words for address in self.addresses)
        return chain in self.chains or target in self.chains


def _sha512(text: str) -> str:
    from hashlib import sha512

    return sha512(text.encode()).hexdigest()
