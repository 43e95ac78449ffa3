"""What is asked of the host's end besides hairpin and isolation: rates, VLANs, MAC addresses, promiscuous mode. Pure.

The keys are those of the reference plugins bridge and bandwidth; what is done about them is `cni.kernel.shaping`
and `cni.kernel.vlans`; addresses are checked by the table's elements.
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
    """Rates are bits per second and bursts bits, as the reference's keys have them; `in` is towards the container. 0
    is no limit, and no VLAN. `trunk` are (first, last) of the VLANs that pass tagged. `master` is the bridge, where the
    host is the gateway of a VLAN of it: the attachment's own `bridge` is then the host's link in that VLAN."""

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
        """What is not the default, for the record."""
        own = {name: getattr(self, name) for name in self._fields if getattr(self, name) != getattr(Wire, name)}
        return {**own, **({"trunk": [list(item) for item in self.trunk]} if self.trunk else {})}


def wire_from(document: dict[str, Json]) -> Wire:
    """Raises ValueError or TypeError for what `document` did not write."""
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name not in Wire._fields:
            raise ValueError(f"{name} is no field of a wire")
        values[name] = value
    if "trunk" in values:
        values["trunk"] = tuple((int(first), int(last)) for first, last in values["trunk"])
    return Wire(**values)


def parse_rates(fields: Fields, runtime: Fields) -> dict[str, Any]:
    """The plugin object's own are stronger than what the runtime sends, as in the reference bandwidth plugin. Raises
    CniError code 7."""
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
    """Raises CniError code 7."""
    vlan = fields.number("vlan", 0, 0, HIGHEST_VLAN)
    trunk = tuple(span for entry in fields.sections("vlanTrunk") for span in _trunk_entry(entry))
    return {"vlan": vlan, "trunk": trunk, "default_vlan": fields.flag("preserveDefaultVlan")}


def _trunk_entry(entry: Fields) -> list[tuple[int, int]]:
    """An entry may have both forms."""
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
