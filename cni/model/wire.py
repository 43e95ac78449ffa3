"""What is asked of the host end besides hairpin and isolation: rates, VLANs, MAC addresses, promiscuous mode. Pure.

The keys are those of the reference plugins bridge and bandwidth. `cni.kernel.shaping` and `cni.kernel.vlans` apply
them; the table's elements check the addresses.
"""

from __future__ import annotations

from cni.protocol.fields import Fields
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.protocol.jsontext import Json

RATES = ("ingressRate", "ingressBurst", "egressRate", "egressBurst")
HIGHEST_BURST = 8 * ((1 << 32) - 1)  # bits; the kernel counts bytes in 32 bits
HIGHEST_VLAN = 4094  # IEEE 802.1Q; 4095 is reserved


class Wire(Value):
    """Rates are in bits per second and bursts in bits, as in the reference's keys; `in` is towards the container. 0
    means no limit, or no VLAN. `trunk` holds (first, last) of the VLANs that pass tagged. `master` is the bridge if the
    host is the gateway of one of its VLANs: the attachment's `bridge` is then the host's link in that VLAN."""

    rate_in: int = 0
    burst_in: int = 0
    rate_out: int = 0
    burst_out: int = 0
    vlan: int = 0
    master: str = ""
    trunk: tuple[tuple[int, int], ...] = ()
    default_vlan: bool = False
    promisc: bool = False
    check_mac: bool = False

    @property
    def is_shaped(self) -> bool:
        return bool(self.rate_in or self.rate_out)

    @property
    def is_tagged(self) -> bool:
        return bool(self.vlan or self.trunk)

    def document(self) -> dict[str, Any]:
        """The fields that differ from their defaults, for the record."""
        own = {name: getattr(self, name) for name in self._fields if getattr(self, name) != getattr(Wire, name)}
        return {**own, **({"trunk": [list(item) for item in self.trunk]} if self.trunk else {})}


def wire_from(document: dict[str, Json]) -> Wire:
    """The inverse of `document`. Raises ValueError or TypeError for anything that it did not write."""
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name not in Wire._fields:
            raise ValueError(f"{name} is no field of a wire")
        values[name] = value
    if "trunk" in values:
        values["trunk"] = tuple((int(first), int(last)) for first, last in values["trunk"])
    return Wire(**values)


def parse_rates(fields: Fields, runtime: Fields) -> dict[str, Any]:
    """The fields of the rates. The plugin object's keys win over the runtime's, as in the reference bandwidth plugin.
    Raises CniError 7."""
    place = fields if any(fields.has(key) for key in RATES) else runtime.section("bandwidth")
    found: dict[str, Any] = {}
    for name, prefix in (("in", "ingress"), ("out", "egress")):
        rate = place.number(f"{prefix}Rate", 0, 0, (1 << 63) - 1)
        burst = place.number(f"{prefix}Burst", 0, 0, HIGHEST_BURST)
        if bool(rate) != bool(burst):
            given, other = ("Rate", "Burst") if rate else ("Burst", "Rate")
            raise place.fail(f"{prefix}{given}", f"needs {prefix}{other} beside it")
        if rate and (rate < 8 or burst < 8):
            raise place.fail(f"{prefix}Rate", "is bits per second, and less than a byte")
        found.update({f"rate_{name}": rate, f"burst_{name}": burst})
    return found


def parse_vlans(fields: Fields) -> dict[str, Any]:
    """The fields of the VLANs. Raises CniError 7."""
    vlan = fields.number("vlan", 0, 0, HIGHEST_VLAN)
    trunk = tuple(span for entry in fields.sections("vlanTrunk") for span in _trunk_entry(entry))
    return {"vlan": vlan, "trunk": trunk, "default_vlan": fields.flag("preserveDefaultVlan")}


def _trunk_entry(entry: Fields) -> list[tuple[int, int]]:
    """The (first, last) spans of one entry, which may have `id`, `minID` with `maxID`, or both. Raises CniError 7."""
    ends = [key for key in ("minID", "maxID") if entry.has(key)]
    if len(ends) == 1:
        raise entry.fail(ends[0], "minID and maxID come together")
    if not ends and not entry.has("id"):
        raise entry.fail("id", "an entry has an id, or minID and maxID")
    found = []
    for keys in (ends, ["id", "id"] if entry.has("id") else []):
        if keys:
            first, last = (entry.number(key, 0, 1, HIGHEST_VLAN) for key in keys)
            if first > last:
                raise entry.fail("minID", "lies behind maxID")
            found.append((first, last))
    return found
