"""flannel's lease, which flanneld writes to its subnet.env, and the configuration that follows from it. Pure.

The meta plugin `flannel` turns the lease into keys for another plugin (flannel-io/cni-plugin); here they become keys of
the same object. `cni.verbs.delegate` reads the file.
"""

from __future__ import annotations

from cni.model.attachment import OPEN
from nft.addresses import Prefix, parse_prefix
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import Json

FAMILIES = {"": 4, "IPV6_": 6}  # the infix of the variables' names, and its IP version
OPENNESS = ("gatewaymode", "gatewaymodeipv4", "gatewaymodeipv6", "ingresspolicy")


class FlannelLease(Value):
    """`subnets` are this host's, one for each family; `networks` those of all hosts. If `masqueraded`, flanneld has
    rules for packets that leave them."""

    subnets: tuple[Prefix, ...]
    networks: tuple[Prefix, ...]
    mtu: int
    masqueraded: bool


def parse_subnet_env(text: str) -> FlannelLease:
    """Parses what WriteSubnetFile of flannel's pkg/subnet/subnet.go writes: a subnet with host bits is the gateway's
    address, and commas separate networks. Raises ValueError."""
    values = dict(_variables(text))
    subnets, networks = [], []
    for family, version in FAMILIES.items():
        subnet, others = f"FLANNEL_{family}SUBNET", f"FLANNEL_{family}NETWORK"
        if subnet in values:
            subnets.append(_prefix(subnet, values[subnet], version))
            if others not in values:
                raise ValueError(f"{others} is missing beside {subnet}")
            networks += [_prefix(others, item, version) for item in values[others].split(",")]
    if not subnets:
        raise ValueError("FLANNEL_SUBNET and FLANNEL_IPV6_SUBNET are missing")
    mtu, masqueraded = values.get("FLANNEL_MTU", ""), values.get("FLANNEL_IPMASQ", "")
    if not (mtu.isascii() and mtu.isdigit() and len(mtu) < 6 and int(mtu) < 65536):
        raise ValueError(f"FLANNEL_MTU={mtu}: must be a number below 65536")
    if masqueraded not in ("true", "false"):
        raise ValueError(f"FLANNEL_IPMASQ={masqueraded}: must be true or false")
    return FlannelLease(tuple(subnets), tuple(networks), int(mtu), masqueraded == "true")


def _variables(text: str) -> list[tuple[str, str]]:
    pairs = (line.partition("=") for line in text.splitlines())
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def _prefix(name: str, text: str, version: int) -> Prefix:
    try:
        prefix = parse_prefix(text.strip())
    except ValueError as problem:
        raise ValueError(f"{name}={text}: {problem}") from None
    if prefix.version != version:
        raise ValueError(f"{name}={text}: is not IPv{version}")
    return prefix.network


def configured(document: dict[str, Json], lease: FlannelLease) -> dict[str, Json]:
    """The configuration, its keys in lower case, completed by the lease. A key that is written wins, as with the meta
    plugin. Pods on other hosts reach these, so the network is open; either flanneld masquerades or we do."""
    said = {key.lower(): value for key, value in document.items() if value is not None}
    found: dict[str, Json] = {"mtu": lease.mtu, "ipmasq": not lease.masqueraded}
    if said.keys().isdisjoint(OPENNESS):
        found["gatewaymode"] = OPEN
    ipam, more = said.get("ipam"), said.get("nonmasqueradecidrs", [])
    networks: list[Json] = [str(network) for network in lease.networks]
    ranges: list[Json] = [[{"subnet": str(subnet)}] for subnet in lease.subnets]
    said["ipam"] = {**(ipam if isinstance(ipam, dict) else {}), "ranges": ranges}
    said["nonmasqueradecidrs"] = networks + more if isinstance(more, list) else more
    return {**found, **said}
