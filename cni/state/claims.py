"""What the state folder knows by name alone: leases, ports, the memory of the last address, the loaded rules' digest.

Symbolic links and small files, each read and written in one step. Records, their journal, the lock and the layout of
the folder are `state`, which is the door; who may have what is decided in `ipam` and `attach`.
"""

from __future__ import annotations

import os

from cni.state import files
from nft.addresses import Address, parse_address


class Claims:
    """`folder` is the state folder of one boot and one network namespace; `state` holds its lock."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def path(self, *parts: str) -> str:
        return "/".join((self.folder, *parts))

    def names(self, *parts: str) -> list[str]:
        try:
            return sorted(os.listdir(self.path(*parts)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def touch(self, *parts: str) -> None:
        os.close(os.open(self.path(*parts), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def read(self, *parts: str) -> str:
        """What a link points to or a small file holds, "" if there is none; a folder in its place is set aside."""
        path = self.path(*parts)
        try:
            return files.read(path)
        except IsADirectoryError:
            self.set_aside(path)
            return ""

    def set_aside(self, path: str) -> str:
        """Where to."""
        os.makedirs(self.path("damaged"), 0o700, exist_ok=True)
        target = self.path("damaged", os.path.relpath(path, self.folder).replace("/", "%"))
        os.rename(path, target)
        return target

    def note_rules(self, digest: str) -> None:
        """ "" to take the note back, before rules are loaded."""
        if digest:
            self._point(digest, self.path("rules"))
        else:
            files.unlink(self.path("rules"))

    def noted_rules(self) -> str:
        return self.read("rules")

    def lease_holder(self, name: str) -> str:
        """The identity that has the lease (`record.lease_name`), or ""."""
        return self.read("leases", name)

    def leased(self) -> set[str]:
        """The names of all leases. Costs time by their number: for exhaustion, STATUS and listings only."""
        return set(self.names("leases"))

    def claimed_by(self, ident: str) -> tuple[list[str], list[tuple[str, str]]]:
        """Lease names, and (port, line) of all that is held or waited for in the name. A listing: for damage only."""
        leases = [name for name in self.names("leases") if self.lease_holder(name) == ident]
        ports = [
            (claim, line)
            for claim in self.names("ports")
            for line in self.read("ports", claim).split()
            if line.partition("=")[2] == ident
        ]
        return leases, ports

    def claimants(self) -> set[str]:
        """Every identity that has a lease or a port. A listing: for GC only."""
        lines = [line for claim in self.names("ports") for line in self.read("ports", claim).split()]
        found = {self.lease_holder(name) for name in self.names("leases")}
        found |= {line.partition("=")[2] for line in lines}
        return {ident for ident in found if ident.count("/") == 2}

    def bridge_of(self, link: str) -> str:
        """The bridge that a host link was noted for, or ""."""
        return next((name for name in self.names("bridges") if os.path.lexists(self.path("bridges", name, link))), "")

    def last(self, network: str, index: int) -> Address | None:
        try:
            return parse_address(self.read("last", f"{network}.{index}"))
        except ValueError:
            return None

    def remember_last(self, network: str, index: int, address: Address) -> None:
        self._point(str(address), self.path("last", f"{network}.{index}"))

    def port_holders(self, claim: str) -> list[tuple[Address, str]]:
        """(host address, identity) of everybody who holds the port on some address."""
        found = []
        for line in self.read("ports", claim).split():
            host_ip, _, ident = line.partition("=")
            try:
                address = parse_address(host_ip)
            except ValueError:
                continue  # damaged; what the kernel holds is still refused there
            if ident.count("/") == 2:
                found.append((address, ident))
        return found

    def claim(self, claim: str, line: str) -> None:
        """`line` is `host address=identity`, with a `?` before it for whoever only waits for it."""
        path = self.path("ports", claim)
        try:
            os.symlink(line, path)
        except FileExistsError:
            lines = self.read("ports", claim).split()
            if line not in lines:
                self._write_lines(path, [*lines, line])

    def promote(self, claim: str, line: str) -> None:
        """Whoever waited for it has it now."""
        lines = self.read("ports", claim).split()
        if f"?{line}" in lines:
            self._write_lines(self.path("ports", claim), [line if other == f"?{line}" else other for other in lines])

    def unclaim(self, claim: str, line: str) -> str:
        """Takes back a line and the wait for it. Returns the identity that has waited longest for it, or ""."""
        path = self.path("ports", claim)
        lines = self.read("ports", claim).split()
        left = [other for other in lines if other.lstrip("?") != line]
        if left != lines:
            if left:
                self._write_lines(path, left)
            else:
                files.unlink(path)
        host_ip = line.partition("=")[0]
        return next((other.partition("=")[2] for other in left if other.startswith(f"?{host_ip}=")), "")

    def _write_lines(self, path: str, lines: list[str]) -> None:
        if len(lines) == 1:
            self._point(lines[0], path)
        else:
            files.write(self.path("new"), "\n".join(lines))
            os.rename(self.path("new"), path)

    def _point(self, target: str, path: str) -> None:
        """A symbolic link in place of what is there, in one step."""
        os.symlink(target, self.path("new"))
        os.rename(self.path("new"), path)

    def keep_settings(self, name: str, text: str) -> None:
        """The first to be kept stays: a repeated ADD finds its own settings."""
        os.makedirs(self.path("tuning"), 0o700, exist_ok=True)
        if not os.path.lexists(self.path("tuning", name)):
            files.write(self.path("tuning", name), text)

    def take_settings(self, name: str) -> str:
        text = files.read(self.path("tuning", name))
        files.unlink(self.path("tuning", name))
        return text
