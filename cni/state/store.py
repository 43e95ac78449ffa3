"""The state folder: a record for each attachment, with the journal that makes a kill harmless.

    <dataDir>/<boot id>.<network namespace>/
        lock                                    flock of whoever changes anything, kernel included (`lock`)
        attachments/<network>/<container>@<if>  the record, JSON (`record`)
        leases/, ports/, last/                  `claims`
        bridges/                                `bridges`
        containers/<container>/<network>@<if>   which attachments it has
        pending                                 a record on its way in or out; whoever finds one rolls it back
        new                                     anything on its way to its name; whoever finds one removes it
        rules, unrouted4, unrouted6, tuning/    `notes`
        damaged/                                what could not be read

The folder's name is the boot and the namespace that it is true for, so a reboot frees everything without a sweep.
"""

from __future__ import annotations

import os

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
from cni.state.record import from_document, to_document
from cni.state.trust import refuse_foreign

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Waiting = dict[str, list[PortMapping]]  # identity: the ports just freed that it has waited for


class Damaged(Exception):
    """A record that could not be read; it has been moved to `damaged/` and its place is free."""


class Store:
    """Every method that changes something needs the `lock`; errors of the file system are OSError."""

    def __init__(self, data_dir: str, boot: str, cookie: int) -> None:
        root = f"{own_folder(data_dir)}/{boot}.{cookie}"
        refuse_foreign(root)
        self.boot = boot
        self.folder = Folder(root)
        self.lock = Lock(self.folder, boot)
        self.claims = Claims(self.folder)
        self.bridges = Bridges(self.folder)
        self.notes = Notes(self.folder)

    # Records

    def record_path(self, ident: str) -> str:
        network, container, ifname = ident.split("/")
        return self.folder.path("attachments", network, f"{container}@{ifname}")

    def load(self, ident: str) -> Attachment | None:
        """Raises Damaged after setting aside a record that cannot be read or is another's."""
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
        """As `load`, but a record that cannot be read stays where it is."""
        try:
            return self._read(self.record_path(ident))
        except (ValueError, FileNotFoundError, IsADirectoryError):
            return None

    def identities(self, network: str = "") -> list[str]:
        """Of all attachments, or of one network's."""
        names = self.folder.names
        networks = [network] if network else names("attachments")
        return [_identity(name, entry) for name in networks for entry in names("attachments", name)]

    def has_records(self) -> bool:
        """Networks' folders go with their last attachment."""
        return bool(self.folder.names("attachments"))

    # Changes. After a kill at any point of one of them the next `lock` rolls it back, or it is complete.

    def begin(self, item: Attachment) -> None:
        """Writes a new record with its leases and ports."""
        self._write("pending", item)
        for name in item.leased:
            self.claims.lease(name, item.ident)
        if item.lease_folder:
            from cni.state.lease_files import enter

            if not os.path.isdir(item.lease_folder):
                self.claims.note_lease_folder(item.network, item.lease_folder)
            for address in item.addresses:
                enter(item.lease_folder, address, item.container, item.ifname)
        self.claims.claim(item.mappings, item.ident)
        self.claims.wait_for(item.standby, item.ident)
        self.index(item)
        self.folder.make("attachments", item.network)
        os.rename(self.folder.path("pending"), self.record_path(item.ident))

    def index(self, item: Attachment) -> None:
        """Where it is found by its bridge and by its container."""
        if not item.bridge:
            return
        self.bridges.enter(item.bridge, item.link)
        if item.wire.master:
            self.bridges.enter(item.master, item.bridge)
        network, container, ifname = item.ident.split("/")
        self.folder.make("containers", container)
        self.folder.touch("containers", container, f"{network}@{ifname}")

    def update(self, item: Attachment) -> None:
        """Replaces a record whose leases and ports stay what they are."""
        self._write("new", item)
        os.rename(self.folder.path("new"), self.record_path(item.ident))

    def shrink(self, before: Attachment, item: Attachment) -> Waiting:
        """Replaces a record by one that holds less. `finish` ends it."""
        self._write("pending", before)
        self.update(item)
        return self._release(before, keep=item)

    def remove(self, item: Attachment) -> Waiting:
        """Removes the record, then frees what it holds: a record without its claims would bring back, at the next
        repair, what somebody else has by then. Returns who waits for which of its ports; `finish` ends it when they
        have them."""
        try:
            os.rename(self.record_path(item.ident), self.folder.path("pending"))
        except FileNotFoundError:
            self._write("pending", item)
        waiting = self._release(item)
        self._leave(item)
        self.drop_empty(item.network)
        self._drop_lease_folder(item)
        return waiting

    def is_interrupted(self) -> bool:
        """Whether a kill or an error has left a change half done."""
        return self.folder.has("new") or self.folder.has("pending")

    def roll_back(self) -> Waiting:
        """Rolls back an interrupted change; the caller then calls `finish`."""
        self.folder.unlink("new")
        try:
            item = _read(self.folder.path("pending"))
        except (FileNotFoundError, ValueError):
            return {}  # killed while writing it: nothing else was written yet
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
        """With the network's last attachment, if we made it."""
        if item.lease_folder and not self.folder.has("attachments", item.network):
            from cni.state.lease_files import tidy

            if self.claims.made_lease_folder(item.network) == item.lease_folder:
                tidy(item.lease_folder)
                self.claims.note_lease_folder(item.network, "")

    def finish(self) -> None:
        """The end of `remove`, `shrink` and `roll_back`."""
        self.folder.unlink("pending")

    def drop_empty(self, network: str) -> None:
        """Removes what a kill inside `remove` may have left of a network without attachments."""
        self.folder.rmdir("attachments", network)

    def _read(self, path: str) -> Attachment:
        """Records of earlier versions do not say whose the bridge is."""
        item = _read(path)
        if not item.made and item.kind.own_link and self.bridges.knows(item.master, "created"):
            return item.replace(made=True)
        return item

    def _write(self, name: str, item: Attachment) -> None:
        files.write(self.folder.path(name), dumps(to_document(item)) + "\n")

    def drop_bridge(self, item: Attachment) -> None:
        """All that is known of the bridge of its last attachment; of its master as well, if that has no other. Of a
        bridge that has containers in its VLANs still, nothing."""
        if item.wire.master:
            self.bridges.drop(item.bridge)
        own = item.bridge if item.wire.master else item.link
        if self.bridges.only(item.master, own):
            self.bridges.drop(item.master)

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
        """The other attachments of the same container; but for those that cannot be read."""
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
        """No other attachment, of any network, is on this one's bridge; in VLANs of it there may be some."""
        return bool(item.bridge) and self.bridges.only(item.bridge, item.link, vlans=False)

    def sharing(self, item: Attachment) -> Iterator[Attachment | None]:
        """The other records on the same bridge, one by one: the first is enough for most questions, and it is most
        likely of the same network. None for one that cannot be read."""
        path = self.folder.path
        networks = [name for name in self.folder.names("attachments") if os.path.isdir(path("attachments", name))]
        for network in sorted(networks, key=lambda name: name != item.network):
            with os.scandir(path("attachments", network)) as entries:
                for entry in entries:
                    ident = _identity(network, entry.name)
                    if ident != item.ident and self.bridges.has(item.bridge, host_link(ident)):
                        yield self.peek(ident)


def _read(path: str) -> Attachment:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return from_document(loads(file.read()))


def _identity(network: str, entry: str) -> str:
    """Of the record with that file's name."""
    container, _, ifname = entry.partition("@")
    return f"{network}/{container}/{ifname}"
