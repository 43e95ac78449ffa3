"""The keys of the reference plugins portmap and firewall, which a network of our type has as well; and keys of any
reference plugin that we refuse.

`config` reads all keys of a network; under the drop-in names `portmap` and `firewall` these are all there are.
"""

from __future__ import annotations

from cni.protocol.errors import UNSUPPORTED_FIELD, CniError
from cni.protocol.fields import Fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import Json

NOT_DONE = "nftcni does not do this; remove the key, or use the reference plugin for this network"
# These values name how the reference plugins would do it; we always use nftables. Nomad writes ip6tables for IPv6.
BACKENDS = ("", "nftables", "iptables", "ip6tables")
FIREWALLD = "firewalld"
REFUSED: dict[str, tuple[Json, ...]] = {  # key: the values that ask for nothing and so pass
    "ipMasqBackend": BACKENDS,
    "backend": (*BACKENDS, FIREWALLD),
    "sysctl": ({},),
    "promisc": (False,),
    "allmulti": (False,),
    "txQLen": (0,),
}
KEYS_OF = {  # which of them each reference plugin has whose name the executable may bear
    "ptp": ("ipMasqBackend",),
    "bridge": ("ipMasqBackend",),
    "portmap": ("backend",),
    "firewall": ("backend",),
}
POLICIES = ("", "open", "same-bridge", "isolated")


def refuse_unsupported(fields: Fields, role: str, runtime: Fields | None = None) -> None:
    """Raises CniError 2 that names all keys of the role's reference plugin that ask for what we do not support. Without
    a role, it looks at the keys of all of them."""
    lacking = [fields.asked(key, REFUSED[key]) for key in (KEYS_OF[role] if role else REFUSED)]
    if runtime is not None:
        lacking += [runtime.asked(key, ({}, "")) for key in ("infinibandGUID", "deviceID")]
    texts = [text for text in lacking if text]
    if texts:
        verb = "is" if len(texts) == 1 else "are"
        raise CniError(UNSUPPORTED_FIELD, f"{', '.join(texts)} {verb} not supported", NOT_DONE)


def parse_masquerade(fields: Fields) -> tuple[bool, bool]:
    """(`snat`, `masqAll`) of the reference portmap. Its keys for marking packets are checked and otherwise ignored: our
    masquerade does not depend on a mark. Raises CniError 2 and 7."""
    fields.number("markMasqBit", 13, 0, 31)
    fields.text("externalSetMarkChain")
    if fields.has("markMasqBit") and fields.text("externalSetMarkChain"):
        raise fields.fail("markMasqBit", "cannot be combined with externalSetMarkChain")
    return fields.flag("snat", True), fields.flag("masqAll")


def parse_conditions(fields: Fields) -> tuple[str, str]:
    """The matches that packets for published ports must meet, for IPv4 and IPv6, in nft's language; "" for all packets.
    Raises CniError 2 for iptables' language, 7 for anything that is not a match."""
    given = fields.has("conditionsV4") or fields.has("conditionsV6")
    if not given or not fields.section("runtimeConfig").has("portMappings"):
        return "", ""
    from cni.model.condition import parse_condition

    return parse_condition(fields, "conditionsV4"), parse_condition(fields, "conditionsV6")


def isolation_asked(fields: Fields, default: bool = False) -> tuple[bool, bool]:
    """(isolated from other networks, isolated from the bridge's other ports) by the reference firewall's
    ingressPolicy."""
    policy = fields.text("ingressPolicy")
    if policy not in POLICIES:
        raise fields.fail("ingressPolicy", f"must be one of {', '.join(filter(None, POLICIES))}")
    return (policy != "open" if policy else default), policy == "isolated"
