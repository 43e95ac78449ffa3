"""Who holds which address and which host port, and where the last search for an address ended.

    leases/<address>          -> identity   <address>@<network> for interfaces of other plugins
    ports/<protocol>-<port>   -> <host address>=<identity>, several with blanks between, many in a file of lines
    last/<network>.<range set> -> address   where the next search begins
    last/<network>.folder     -> path       of its lease files, if we made the folder

They are symbolic links, because a link appears whole or not at all, is never overwritten by accident, and can be read
with `ls -l`. `choice` and the verbs decide who may have what.
"""

from __future__ import annotations

import posix

from cni.model.ports import PortMapping, by_claim
from cni.state import files
from cni.state.folder import Folder
from nft.addresses import Address, parse_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.model.ports import Holders

LINK_LIMIT = 1000  # characters; a link's target may have 4095
WAITING = "?"  # marks the line of an attachment that waits for the port


def claim_line(mapping: PortMapping, ident: str) -> str:
    return f"{mapping.host_ip}={ident}"


def _fits_a_link(lines: list[str]) -> bool:
    """Whether the lines fit a symbolic link, which takes one system call where a file takes four. With IPv4 and IPv6,
    most ports have two lines."""
    return len(lines) <= 4 and sum(map(len, lines)) < LINK_LIMIT


class Claims:
    """Leases and ports. Methods that change something need the store's lock."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    # Leases

    def lease_holder(self, name: str) -> str:
        """The identity that holds the lease (`attachment.lease_name`), "" if it is free."""
        return self._folder.read("leases", name)

    def lease(self, name: str, ident: str) -> None:
        """Enters a lease. The caller has made sure that it is free."""
        files.point(ident, self._folder.path("leases", name))

    def free_lease(self, name: str, ident: str) -> None:
        """Frees a lease of this holder only: a late caller must not free what somebody else has by now."""
        if self.lease_holder(name) == ident:
            self._folder.unlink("leases", name)

    def leased(self) -> set[str]:
        """The names of all leases. It lists the folder: only for exhaustion, STATUS and listings."""
        return set(self._folder.names("leases"))

    def last(self, network: str, index: int) -> Address | None:
        """Where the last search in a range set ended, None before the first."""
        try:
            return parse_address(self._folder.read("last", f"{network}.{index}"))
        except ValueError:
            return None

    def remember_last(self, network: str, index: int, address: Address) -> None:
        self._folder.point(str(address), "last", f"{network}.{index}")

    def note_lease_folder(self, network: str, folder: str) -> None:
        """Notes that the folder of lease files is ours to remove (`lease_files`); "" forgets it."""
        if folder:
            self._folder.point(folder, "last", f"{network}.folder")
        else:
            self._folder.unlink("last", f"{network}.folder")

    def made_lease_folder(self, network: str) -> str:
        return self._folder.read("last", f"{network}.folder")

    # Ports

    def port_holders(self, port: str) -> list[tuple[Address, str]]:
        """(host address, identity) of each attachment that holds the port on some address."""
        found = []
        for line in self._lines(port):
            host_ip, _, ident = line.partition("=")
            try:
                address = parse_address(host_ip)
            except ValueError:
                continue  # it waits, or is damaged; a port that the kernel holds is refused later
            if ident.count("/") == 2:
                found.append((address, ident))
        return found

    def holders(self, mappings: Iterable[PortMapping]) -> Holders:
        """`port_holders` of each of these ports that somebody holds, by the port's claim."""
        found = {port: self.port_holders(port) for port in by_claim(mappings)}
        return {port: held for port, held in found.items() if held}

    def claim(self, mappings: tuple[PortMapping, ...], ident: str) -> None:
        for port, own in by_claim(mappings).items():
            self._add_lines(port, [claim_line(mapping, ident) for mapping in own])

    def wait_for(self, mappings: tuple[PortMapping, ...], ident: str) -> None:
        for port, own in by_claim(mappings).items():
            self._add_lines(port, [WAITING + claim_line(mapping, ident) for mapping in own])

    def promote(self, mapping: PortMapping, ident: str) -> None:
        """Turns a wait for the port into a claim."""
        lines, line = self._lines(mapping.claim), claim_line(mapping, ident)
        if WAITING + line in lines:
            self._write(mapping.claim, [line if other == WAITING + line else other for other in lines])

    def unclaim(self, mappings: Iterable[PortMapping], ident: str) -> list[tuple[PortMapping, str]]:
        """Removes an attachment's claims and waits. Returns (mapping, identity) of who has waited longest for each."""
        successors = []
        for port, own in by_claim(mappings).items():
            left = self.drop_lines(port, {claim_line(mapping, ident) for mapping in own})
            first: dict[str, str] = {}
            for line in left:
                if line.startswith(WAITING):
                    host_ip, _, waiting = line[len(WAITING) :].partition("=")
                    first.setdefault(host_ip, waiting)
            successors += [
                (mapping, first[str(mapping.host_ip)]) for mapping in own if first and str(mapping.host_ip) in first
            ]
        return successors

    def drop_lines(self, port: str, gone: set[str]) -> list[str]:
        """Removes these lines, held or waiting, from a port. Returns the lines that are left."""
        lines = self._lines(port)
        left = [line for line in lines if line.lstrip(WAITING) not in gone]
        if left != lines:
            self._write(port, left)
        return left

    # Listings of everybody's claims: for damage and GC only

    def claimed_by(self, ident: str) -> tuple[list[str], list[tuple[str, str]]]:
        """The names of an identity's leases, and (port, line) of each port that it holds or waits for."""
        leases = [name for name in self._folder.names("leases") if self.lease_holder(name) == ident]
        ports = [(port, line) for port, line in self._all_lines() if line.partition("=")[2] == ident]
        return leases, ports

    def claimants(self) -> set[str]:
        """Every identity that has a lease, or holds or waits for a port."""
        found = {self.lease_holder(name) for name in self._folder.names("leases")}
        found |= {line.partition("=")[2] for _port, line in self._all_lines()}
        return {ident for ident in found if ident.count("/") == 2}

    def _all_lines(self) -> list[tuple[str, str]]:
        return [(port, line) for port in self._folder.names("ports") for line in self._lines(port)]

    def _lines(self, port: str) -> list[str]:
        return self._folder.read("ports", port).split()

    def _add_lines(self, port: str, new: list[str]) -> None:
        if _fits_a_link(new):
            try:
                posix.symlink(" ".join(new), self._folder.path("ports", port))
                return
            except FileExistsError:
                pass
        lines = dict.fromkeys(self._lines(port))
        if not lines.keys() >= set(new):
            lines.update(dict.fromkeys(new))
            self._write(port, [*lines])

    def _write(self, port: str, lines: list[str]) -> None:
        if not lines:
            self._folder.unlink("ports", port)
        elif _fits_a_link(lines):
            self._folder.point(" ".join(lines), "ports", port)
        else:
            self._folder.write("\n".join(lines), "ports", port)
