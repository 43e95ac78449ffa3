"""The leases that `choice` asks about: those of the state folder, and the lease files that other programs keep."""

from __future__ import annotations

from cni.model.attachment import Lease, lease_name
from cni.model.choice import Leases
from cni.model.ipam import LEASE_FILES, Ipam
from cni.model.names import identity
from cni.protocol.errors import CniError
from cni.protocol.fields import Fields
from cni.protocol.request import Request
from cni.state.claims import Claims
from cni.state.lease_files import LeaseFiles
from nft.addresses import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class HeldLeases(Leases):
    """The leases of the request's network; those of the container itself count as free. `scope` is `lease_name`'s."""

    def __init__(self, claims: Claims, request: Request, ipam: Ipam, scope: str = "") -> None:
        self._claims = claims
        self._network = request.network
        self._container = request.container
        self._ifname = request.ifname
        self._ident = identity(request.network, request.container, request.ifname)
        self._scope = scope
        self._answers: Callable[[Address], str] | None = None
        self._own: tuple[Address, ...] = ()
        self.files = LeaseFiles(ipam.lease_folder, ipam.keeps_files)
        self.elsewhere = f"; ls {ipam.lease_folder}" if self.files.keeps else ""

    def holder(self, address: Address) -> str:
        """Who has the address, in words; "" if it is free for this container."""
        holder = self._claims.lease_holder(lease_name(address, self._scope))
        if holder:
            return "" if holder == self._ident else holder
        found = self.files.holder(address, self._container, self._ifname)
        if found or self._answers is None or address in self._own:
            return found
        return self._answers(address)

    def ask(self, answers: Callable[[Address], str], own: tuple[Address, ...]) -> None:
        """Also counts an address as held if `answers` names a machine that answers for it, because other machines on
        the bridge have leases that are written nowhere. `own` are the addresses that the container itself may answer
        for."""
        self._answers, self._own = answers, own

    def all(self) -> set[str]:
        """The addresses of all leases in the state folder, as text."""
        names = (name.partition("@") for name in self._claims.leased())
        return {address for address, _, scope in names if scope == self._scope}

    def last(self, index: int) -> Address | None:
        """Where our last search ended; before our first one, where the lease files say the reference's ended."""
        return self._claims.last(self._network, index) or self.files.last(index)

    def remember(self, ipam: Ipam, leases: tuple[Lease, ...]) -> None:
        for index, (_ranges, lease) in enumerate(zip(ipam.range_sets, leases)):
            self._claims.remember_last(self._network, index, lease.address.address)


def lease_folder(request: Request) -> str:
    """The network's folder of lease files, from a configuration that may be invalid by now."""
    try:
        folder = Fields(request.document).section("ipam").text("dataDir")
    except CniError:
        folder = ""
    return f"{folder or LEASE_FILES}/{request.network}"
