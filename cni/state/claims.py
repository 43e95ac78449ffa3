"""Who holds which address and which host port, and where the last search for an address ended.

    leases/<address>          -> identity   <address>@<network> of what other plugins attach
    ports/<protocol>-<port>   -> <host address>=<identity>, several with blanks between, many in a file of lines
    last/<network>.<range set> -> address   where the next search begins
    last/<network>.folder     -> path       of its lease files, if we made it

A symbolic link appears whole or not at all, fails if it exists and can be read with `ls -l`. Who may have what is
decided in `choice` and by the verbs.
"""

from __future__ import annotations

import os

from cni.model.ports import PortMapping, by_claim
from cni.state import files
from cni.state.folder import Folder
from nft.addresses import Address, parse_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.model.ports import Holders

LINK_LIMIT = 1000  # characters; a link's target may have 4095
WAITING = "?"  # before the line of an attachment that waits for the port


def claim_line(mapping: PortMapping, ident: str) -> str:
    return f"{mapping.host_ip}={ident}"


def _fits_a_link(lines: list[str]) -> bool:
    """One system call instead of four; with IPv4 and IPv6, most ports have two lines."""
    return len(lines) <= 4 and sum(map(len, lines)) < LINK_LIMIT


class Claims:
    """Everything that changes something needs the store's lock."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    # Leases

    def lease_holder(self, name: str) -> str:
        """The identity that has the lease (`attachment.lease_name`), or ""."""
        return self._folder.read("leases", name)

    def lease(self, name: str, ident: str) -> None:
        """Whoever calls has made sure that it is free."""
        files.point(ident, self._folder.path("leases", name))

    def free_lease(self, name: str, ident: str) -> None:
        """Only in its holder's name: a late caller must not free what somebody else has now."""
        if self.lease_holder(name) == ident:
            self._folder.unlink("leases", name)

    def leased(self) -> set[str]:
        """The names of all leases. Costs time by their number: for exhaustion, STATUS and listings only."""
        return set(self._folder.names("leases"))

    def last(self, network: str, index: int) -> Address | None:
        try:
            return parse_address(self._folder.read("last", f"{network}.{index}"))
        except ValueError:
            return None

    def remember_last(self, network: str, index: int, address: Address) -> None:
        self._folder.point(str(address), "last", f"{network}.{index}")

    def note_lease_folder(self, network: str, folder: str) -> None:
        """That it is ours to take away (`lease_files`); "" to forget it."""
        if folder:
            self._folder.point(folder, "last", f"{network}.folder")
        else:
            self._folder.unlink("last", f"{network}.folder")

    def made_lease_folder(self, network: str) -> str:
        return self._folder.read("last", f"{network}.folder")

    # Ports

    def port_holders(self, port: str) -> list[tuple[Address, str]]:
        """(host address, identity) of everybody who holds the port on some address."""
        found = []
        for line in self._lines(port):
            host_ip, _, ident = line.partition("=")
            try:
                address = parse_address(host_ip)
            except ValueError:
                continue  # a waiting one, or damaged; what the kernel holds is still refused there
            if ident.count("/") == 2:
                found.append((address, ident))
        return found

    def holders(self, mappings: Iterable[PortMapping]) -> Holders:
        """The same of each port that somebody holds."""
        found = {port: self.port_holders(port) for port in by_claim(mappings)}
        return {port: held for port, held in found.items() if held}

    def claim(self, mappings: tuple[PortMapping, ...], ident: str) -> None:
        for port, own in by_claim(mappings).items():
            self._add_lines(port, [claim_line(mapping, ident) for mapping in own])

    def wait_for(self, mappings: tuple[PortMapping, ...], ident: str) -> None:
        for port, own in by_claim(mappings).items():
            self._add_lines(port, [WAITING + claim_line(mapping, ident) for mapping in own])

    def promote(self, mapping: PortMapping, ident: str) -> None:
        """Whoever waited for it has it now."""
        lines, line = self._lines(mapping.claim), claim_line(mapping, ident)
        if WAITING + line in lines:
            self._write(mapping.claim, [line if other == WAITING + line else other for other in lines])

    def unclaim(self, mappings: Iterable[PortMapping], ident: str) -> list[tuple[PortMapping, str]]:
        """Takes back the claims, and the waits for them. Returns who has waited longest for which of them."""
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
        """Those of holders, with the same ones of who waits. Returns the lines that are left."""
        lines = self._lines(port)
        left = [line for line in lines if line.lstrip(WAITING) not in gone]
        if left != lines:
            self._write(port, left)
        return left

    # Of everybody, by listings: for damage and GC only

    def claimed_by(self, ident: str) -> tuple[list[str], list[tuple[str, str]]]:
        """Lease names, and (port, line) of all that is held or waited for in the name."""
        leases = [name for name in self._folder.names("leases") if self.lease_holder(name) == ident]
        ports = [(port, line) for port, line in self._all_lines() if line.partition("=")[2] == ident]
        return leases, ports

    def claimants(self) -> set[str]:
        """Every identity that has a lease or a port."""
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
                os.symlink(" ".join(new), self._folder.path("ports", port))
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
