"""The state folder: a record for each attachment, with the journal that makes a kill harmless.

    <dataDir>/<boot id>.<network namespace>/
        lock                                    flock of whoever changes anything, the kernel included (`lock`)
        attachments/<network>/<container>@<if>  the record, JSON (`record`)
        leases/, ports/, last/                  `claims`
        bridges/                                `bridges`
        containers/<container>/<network>@<if>   the container's attachments
        pending                                 a record being written or removed; whoever finds one rolls it back
        new                                     an entry about to get its name; whoever finds one removes it
        rules, unrouted4, unrouted6, tuning/    `notes`
        damaged/                                entries that could not be read

The folder is named after the boot and the namespace for which it holds, so a reboot frees everything without a sweep.
"""

from __future__ import annotations

import posix

from cni.model.attachment import Attachment
from cni.model.names import host_link
from cni.model.ports import PortMapping
from cni.protocol.jsontext import dumps, loads
from cni.state import files
from cni.state.bridges import Bridges
from cni.state.claims import Claims
from cni.state.folder import Folder
from cni.state.lock import Lock
from cni.state.notes import Notes
from cni.state.place import own_folder
from cni.state.trust import refuse_foreign
from nft.system import is_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Waiting = dict[str, list[PortMapping]]  # identity: the just freed ports for which it waits


class Damaged(Exception):
    """A record could not be read; it has been moved to `damaged/`, and its place is free."""


class Store:
    """The state folder. Methods that change something need the `lock`; errors of the file system are OSError."""

    def __init__(self, data_dir: str, boot: str) -> None:
        """`boot` is the boot's ID and the network namespace's cookie, `ID.COOKIE`."""
        root = f"{own_folder(data_dir)}/{boot}"
        refuse_foreign(root)
        self.boot = boot
        self.folder = Folder(root)
        self.lock = Lock(self.folder, boot.partition(".")[0])
        self.claims = Claims(self.folder)
        self.bridges = Bridges(self.folder)
        self.notes = Notes(self.folder)

    # Records

    def record_path(self, ident: str) -> str:
        network, container, ifname = ident.split("/")
        return self.folder.path("attachments", network, f"{container}@{ifname}")

    def load(self, ident: str) -> Attachment | None:
        """The record, None if there is none. Raises Damaged after setting aside one that is unreadable or another's."""
        path = self.record_path(ident)
        try:
            item = self._read(path)
            if item.ident != ident:
                raise ValueError(f"it is the record of {item.ident}")
            return item
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, IsADirectoryError) as problem:
            raise Damaged(f"{path}: {problem}; moved to {self.folder.set_aside(path)}") from None

    def peek(self, ident: str) -> Attachment | None:
        """As `load`, but an unreadable record stays where it is and reads as None."""
        try:
            return self._read(self.record_path(ident))
        except (ValueError, FileNotFoundError, IsADirectoryError):
            return None

    def identities(self, network: str = "") -> list[str]:
        """The identities of all attachments, or of one network's."""
        names = self.folder.names
        networks = [network] if network else names("attachments")
        return [_identity(name, entry) for name in networks for entry in names("attachments", name)]

    def has_records(self) -> bool:
        """Whether there is a record. A network's folder goes with its last attachment."""
        return bool(self.folder.names("attachments"))

    # Changes. After a kill at any point, the change is complete or the next `lock` rolls it back.

    def begin(self, item: Attachment) -> None:
        """Writes a new record with its leases and ports."""
        self._write("pending", item)
        for name in item.leased:
            self.claims.lease(name, item.ident)
        if item.lease_folder:
            from cni.state.lease_files import enter

            if not is_folder(item.lease_folder):
                self.claims.note_lease_folder(item.network, item.lease_folder)
            for address in item.addresses:
                enter(item.lease_folder, address, item.container, item.ifname)
        self.claims.claim(item.mappings, item.ident)
        self.claims.wait_for(item.standby, item.ident)
        self.index(item)
        self.folder.make("attachments", item.network)
        posix.rename(self.folder.path("pending"), self.record_path(item.ident))

    def index(self, item: Attachment) -> None:
        """Enters the attachment under its bridge and under its container."""
        if not item.bridge:
            return
        self.bridges.enter(item.bridge, item.link)
        if item.wire.master:
            self.bridges.enter(item.master, item.bridge)
        network, container, ifname = item.ident.split("/")
        self.folder.touch("containers", container, f"{network}@{ifname}")

    def update(self, item: Attachment) -> None:
        """Replaces a record whose leases and ports stay the same."""
        self._write("new", item)
        posix.rename(self.folder.path("new"), self.record_path(item.ident))

    def shrink(self, before: Attachment, item: Attachment) -> Waiting:
        """Replaces a record by one that holds fewer ports. Returns who waits for the freed ones; then call `finish`."""
        self._write("pending", before)
        self.update(item)
        return self._release(before, keep=item)

    def remove(self, item: Attachment) -> Waiting:
        """Removes the record, then frees what it holds. In the other order, a kill would leave a record without claims,
        and the next repair would bring back what somebody else has by then. Returns who waits for which of its ports;
        call `finish` when they have them."""
        try:
            posix.rename(self.record_path(item.ident), self.folder.path("pending"))
        except FileNotFoundError:
            self._write("pending", item)
        waiting = self._release(item)
        self._leave(item)
        self.drop_empty(item.network)
        self._drop_lease_folder(item)
        return waiting

    def is_interrupted(self) -> bool:
        """Whether a kill or an error has left a change unfinished."""
        return self.folder.has("new") or self.folder.has("pending")

    def roll_back(self) -> Waiting:
        """Rolls back an interrupted change; the caller then calls `finish`."""
        self.folder.unlink("new")
        try:
            item = _read(self.folder.path("pending"))
        except (FileNotFoundError, ValueError):
            return {}  # killed while `pending` was written: nothing else had been
        try:
            before = self.load(item.ident)
        except Damaged:
            before = None
        waiting = self._release(item, keep=before)
        if before is None:
            self._leave(item)
        elif before.bridge != item.bridge:
            self._leave_bridge(item)
        self.drop_empty(item.network)
        self._drop_lease_folder(item)
        return waiting

    def _drop_lease_folder(self, item: Attachment) -> None:
        """Removes the folder of lease files with the network's last attachment, if we made it."""
        if item.lease_folder and not self.folder.has("attachments", item.network):
            from cni.state.lease_files import tidy

            if self.claims.made_lease_folder(item.network) == item.lease_folder:
                tidy(item.lease_folder)
                self.claims.note_lease_folder(item.network, "")

    def finish(self) -> None:
        """Ends `remove`, `shrink` and `roll_back`."""
        self.folder.unlink("pending")

    def drop_empty(self, network: str) -> None:
        """Removes what a kill inside `remove` may have left of a network without attachments."""
        self.folder.rmdir("attachments", network)

    def _read(self, path: str) -> Attachment:
        """Reads a record. For one of an earlier version, `bridges` says whether the bridge is ours."""
        item = _read(path)
        if not item.made and item.kind.own_link and self.bridges.knows(item.master, "created"):
            return item.replace(made=True)
        return item

    def _write(self, name: str, item: Attachment) -> None:
        from cni.state.record import to_document

        files.write(self.folder.path(name), dumps(to_document(item)) + "\n")

    def drop_bridge(self, item: Attachment) -> None:
        """Forgets all that is known of the last attachment's bridge, and of its master if nothing else is on that. A
        bridge with containers left in its VLANs stays known."""
        if item.wire.master:
            self.bridges.drop(item.bridge)
        if self.is_last_of_master(item):
            self.bridges.drop(item.master)

    def is_last_of_master(self, item: Attachment) -> bool:
        """Whether nothing else is on the bridge that has the port, nor in any of its VLANs."""
        return self.bridges.only(item.master, item.bridge if item.wire.master else item.link)

    def _leave_bridge(self, item: Attachment) -> None:
        if item.bridge:
            self.bridges.leave(item.bridge, item.link)
        if item.wire.master and self.bridges.only(item.bridge, item.link):
            self.bridges.leave(item.master, item.bridge)

    def _leave(self, item: Attachment) -> None:
        self._leave_bridge(item)
        network, container, ifname = item.ident.split("/")
        self.folder.unlink("containers", container, f"{network}@{ifname}")
        self.folder.rmdir("containers", container)

    def _release(self, item: Attachment, keep: Attachment | None = None) -> Waiting:
        leased = set(keep.leased) if keep else set()
        for name in item.leased:
            if name not in leased:
                self.claims.free_lease(name, item.ident)
        if item.lease_folder:
            from cni.state.lease_files import leave

            kept_addresses = set(keep.addresses) if keep and keep.lease_folder == item.lease_folder else set()
            for address in item.addresses:
                if address not in kept_addresses:
                    leave(item.lease_folder, address, item.container, item.ifname)
        kept = {*keep.mappings, *keep.standby} if keep else set()
        waiting: Waiting = {}
        self.claims.unclaim([mapping for mapping in item.standby if mapping not in kept], item.ident)
        for mapping, ident in self.claims.unclaim([one for one in item.mappings if one not in kept], item.ident):
            waiting.setdefault(ident, []).append(mapping)
        return waiting

    # Others

    def of_container(self, item: Attachment) -> list[Attachment]:
        """The other attachments of the same container, without unreadable ones."""
        _network, container, _ifname = item.ident.split("/")
        found = []
        for entry in self.folder.names("containers", container):
            network, _, ifname = entry.partition("@")
            ident = f"{network}/{container}/{ifname}"
            other = self.peek(ident) if ident != item.ident else None
            if other is not None:
                found.append(other)
        return found

    def is_last(self, item: Attachment) -> bool:
        """Whether no other attachment, of any network, is on this one's bridge; its VLANs may have some."""
        return bool(item.bridge) and self.bridges.only(item.bridge, item.link, vlans=False)

    def sharing(self, item: Attachment) -> Iterator[Attachment | None]:
        """Yields the other records on the same bridge, None for an unreadable one. Most questions need only the first,
        which is most likely of the same network."""
        path = self.folder.path
        networks = [name for name in self.folder.names("attachments") if is_folder(path("attachments", name))]
        for network in sorted(networks, key=lambda name: name != item.network):
            with posix.scandir(path("attachments", network)) as entries:
                for entry in entries:
                    ident = _identity(network, entry.name)
                    if ident != item.ident and self.bridges.has(item.bridge, host_link(ident)):
                        yield self.peek(ident)


def _read(path: str) -> Attachment:
    from cni.state.record import from_document

    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return from_document(loads(file.read()))


def _identity(network: str, entry: str) -> str:
    """The identity of the record with this file name."""
    container, _, ifname = entry.partition("@")
    return f"{network}/{container}/{ifname}"
