"""Names unknown keys that look like a misspelt one of ours, on stderr only: the ADD works all the same.

Unknown keys pass, as the specification says; but `isGatway` should not pass unnoticed.
"""

from __future__ import annotations

from cni.protocol.log import say
from cni.protocol.request import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# All keys that we read in a plugin object and its `ipam`, and those that runtimes and the reference plugins put there.
KNOWN = (
    "cniVersion cniVersions name type ipam dns args capabilities runtimeConfig prevResult bridge mode isGateway "
    "isDefaultGateway forceAddress ipMasq ipMasqBackend mtu mac hairpinMode promiscMode vlan vlanTrunk "
    "preserveDefaultVlan macspoofchk enabledad disableContainerInterface portIsolation isolation ingressPolicy dataDir "
    "nonMasqueradeCIDRs gatewayMode gatewayModeIPv4 gatewayModeIPv6 antiSpoof allowBoundPorts backend snat masqAll "
    "markMasqBit externalSetMarkChain conditionsV4 conditionsV6 iptablesAdminChainName firewalldZone ingressRate "
    "ingressBurst egressRate egressBurst fastPath sysctl promisc allmulti txQLen subnetFile"
)
KNOWN_IPAM = (
    "type name ranges subnet rangeStart rangeEnd gateway routes dataDir resolvConf addresses dns daemonSocketPath "
    "request provide priority"
)


MANY = 200  # unknown keys that are compared: no person writes more


def tell(request: Request) -> None:
    """Names misspelt keys of the configuration on stderr."""
    ipam = next((value for key, value in request.document.items() if key.lower() == "ipam"), None)
    found = slips(request.document.keys(), KNOWN)
    if isinstance(ipam, dict):
        found += [(f"ipam.{key}", f"ipam.{meant}") for key, meant in slips(ipam.keys(), KNOWN_IPAM)]
    for key, meant in found:
        say(f'network {request.network}: unknown key "{key}"; did you mean "{meant}"?')


def slips(keys: Iterable[str], known: str) -> list[tuple[str, str]]:
    """(key, the one that was probably meant) for each misspelt key, in order."""
    folded = {key.lower(): key for key in known.split()}
    unknown = [key for key in keys if key.lower() not in folded and len(key) > 2]
    found = []
    for key in unknown[:MANY]:
        meant = next((name for low, name in folded.items() if is_slip(key.lower(), low)), "")
        found += [(key, meant)] if meant else []
    return found


def is_slip(one: str, other: str) -> bool:
    """Whether the names differ by one added, missing or changed character, or by two exchanged neighbours. Short names
    do not count, as they would match by chance."""
    if one == other or min(len(one), len(other)) < 3 or abs(len(one) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    rest, wanted = one[start:], other[start:]
    if len(rest) == len(wanted):
        return rest[1:] == wanted[1:] or (rest[:2] == wanted[1::-1] and rest[2:] == wanted[2:])
    return rest[1:] == wanted if len(rest) > len(wanted) else rest == wanted[1:]
