"""The state folder's leases as `ipam` asks for them, and the memory of where the last search ended."""

from __future__ import annotations

from cni.model.attachment import Lease, lease_name
from cni.model.choice import Leases
from cni.model.config import Ipam
from cni.state.claims import Claims
from nft.addresses import Address


class HeldLeases(Leases):
    """What is leased in the folder, with one attachment's own counting as free ("" for none). `scope` is that of
    `lease_name`."""

    def __init__(self, claims: Claims, network: str, ident: str = "", scope: str = "") -> None:
        self._claims = claims
        self._network = network
        self._ident = ident
        self._scope = scope

    def holder(self, address: Address) -> str:
        holder = self._claims.lease_holder(lease_name(address, self._scope))
        return "" if holder == self._ident else holder

    def all(self) -> set[str]:
        """As text."""
        names = (name.partition("@") for name in self._claims.leased())
        return {address for address, _, scope in names if scope == self._scope}

    def last(self, index: int) -> Address | None:
        return self._claims.last(self._network, index)


def remember(claims: Claims, name: str, ipam: Ipam, leases: tuple[Lease, ...]) -> None:
    for index, (_ranges, lease) in enumerate(zip(ipam.range_sets, leases)):
        claims.remember_last(name, index, lease.address.address)
