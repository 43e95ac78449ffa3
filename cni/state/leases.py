"""The leases as `choice` asks for them: those of the state folder, and the lease files that other programs keep."""

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
    """Of the request's network, with what the container itself has counting as free. `scope`: `lease_name`."""

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
        holder = self._claims.lease_holder(lease_name(address, self._scope))
        if holder:
            return "" if holder == self._ident else holder
        found = self.files.holder(address, self._container, self._ifname)
        if found or self._answers is None or address in self._own:
            return found
        return self._answers(address)

    def ask(self, answers: Callable[[Address], str], own: tuple[Address, ...]) -> None:
        """Others are on the wire whose leases are written nowhere: whoever answers for an address has it. Not for
        those that the container itself may answer for."""
        self._answers, self._own = answers, own

    def all(self) -> set[str]:
        """Of the state folder, as text."""
        names = (name.partition("@") for name in self._claims.leased())
        return {address for address, _, scope in names if scope == self._scope}

    def last(self, index: int) -> Address | None:
        """Ours; before we had one, that of the lease files."""
        return self._claims.last(self._network, index) or self.files.last(index)

    def remember(self, ipam: Ipam, leases: tuple[Lease, ...]) -> None:
        for index, (_ranges, lease) in enumerate(zip(ipam.range_sets, leases)):
            self._claims.remember_last(self._network, index, lease.address.address)


def lease_folder(request: Request) -> str:
    """The network's folder of lease files, by a configuration that need not be valid any more."""
    try:
        folder = Fields(request.document).section("ipam").text("dataDir")
    except CniError:
        folder = ""
    return f"{folder or LEASE_FILES}/{request.network}"
