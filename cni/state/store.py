"""The door to the state folder: one lock, a file for each attachment, a symbolic link for each lease and port.

    <dataDir>/<boot id>.<network namespace>/
        lock                                    flock of whoever changes anything, kernel included
        attachments/<network>/<container>@<if>  the record, JSON (`record`)
        leases/<address>          -> identity   who has it; <address>@<network> of what other plugins attach
        ports/<protocol>-<port>   -> <host address>=<identity>, or a file of such lines for several host addresses
        bridges/<bridge>/<host link>            one for each attachment there; `.created`, `.address-*`: ours to undo
        last/<network>.<range set> -> address   where the next search begins
        pending                                 a record on its way in or out; whoever finds one takes all of it back
        new                                     anything on its way to its name; whoever finds one removes it
        rules                     -> digest     of the table's rules as they were loaded
        tuning/<host link>                      what an interface had before the drop-in `tuning`
        damaged/                                what could not be read

The folder's name is the boot and the namespace that it is true for, so a reboot frees everything without a sweep.
A symbolic link appears whole or not at all, fails if it exists and can be read with `ls -l`.
"""

from __future__ import annotations

import os

from cni.model.attachment import Attachment, from_document, to_document
from cni.model.names import host_link
from cni.model.ports import PortMapping
from cni.protocol.errors import kernel_refused
from cni.protocol.jsontext import dumps, loads
from cni.protocol.request import DATA_DIR
from cni.state import files
from cni.state.claims import Claims

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Damaged(Exception):
    """A record that could not be read; it has been moved to `damaged/` and its place is free."""


class State(Claims):
    """Every method that changes something needs `lock` first; errors of the file system are OSError."""

    def __init__(self, data_dir: str, boot: str, cookie: int) -> None:
        self.boot = boot
        self.data_dir = _own(data_dir)
        super().__init__(f"{self.data_dir}/{self.boot}.{cookie}")
        self._lock = -1

    def exists(self) -> bool:
        """Whether the folder is complete; `last` is the last one that is made. Another error than its absence must not
        pass for it: records would be overwritten with what the table knows of them."""
        try:
            os.stat(self.path("last"))
        except FileNotFoundError:
            return False
        return True

    # The lock

    def lock(self, adopt: Callable[[], None]) -> None:
        """Waits at most files.LOCK_SECONDS, then raises CniError code 11. A fresh folder is filled by `adopt` first."""
        self._lock = files.lock(self.folder, "lock")
        if not self.exists():
            self._lead_here()
            for name in ("attachments", "leases", "ports", "bridges"):
                os.makedirs(self.path(name), 0o700, exist_ok=True)
            adopt()
            self._drop_other_boots()
            os.makedirs(self.path("last"), 0o700, exist_ok=True)

    def is_untidy(self) -> bool:
        """Whether a kill or an error has left something half done."""
        return os.path.lexists(self.path("new")) or os.path.lexists(self.path("pending"))

    def tidy(self) -> dict[str, list[PortMapping]]:
        """Takes back what is half done, but for `finish`. Returns heirs, as `forget` does."""
        files.unlink(self.path("new"))
        try:
            with open(self.path("pending"), encoding="utf-8", errors="surrogateescape") as file:
                item = from_document(loads(file.read()))
        except (FileNotFoundError, ValueError):
            return {}  # killed while writing it: nothing else was written yet
        try:
            before = self.load(item.ident)
        except Damaged:
            before = None
        heirs = self._release(item, keep=before)
        if before is None or before.bridge != item.bridge:
            self._leave_bridge(item)
        self.drop_empty(item.network)
        return heirs

    def unlock(self) -> None:
        if self._lock >= 0:
            files.unlock(self._lock)
            self._lock = -1

    def _drop_other_boots(self) -> None:
        """Folders of earlier boots hold nothing that is still true; those of other namespaces of this boot may."""
        for name in os.listdir(self.data_dir):
            boot, dot, cookie = name.partition(".")
            if boot != self.boot and dot and cookie.isdigit() and len(boot) == len(self.boot):
                path = f"{self.data_dir}/{name}"
                if os.path.islink(path):
                    files.unlink(path)
                    continue
                import shutil

                shutil.rmtree(path, ignore_errors=True)

    def _lead_here(self) -> None:
        """A folder elsewhere gets a link in the usual place, for `first_folder`."""
        usual = f"{_own(DATA_DIR)}/{os.path.basename(self.folder)}"
        if usual != self.folder:
            try:
                os.makedirs(os.path.dirname(usual), 0o700, exist_ok=True)
                files.point(self.folder, usual)
            except OSError:
                return  # there may be no such place; the table names the folder as well

    # Records

    def record_path(self, ident: str) -> str:
        network, container, ifname = ident.split("/")
        return self.path("attachments", network, f"{container}@{ifname}")

    def load(self, ident: str) -> Attachment | None:
        """Raises Damaged after setting aside a record that cannot be read or is another's."""
        path = self.record_path(ident)
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                item = from_document(loads(file.read()))
            if item.ident != ident:
                raise ValueError(f"it is the record of {item.ident}")
            return item
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, IsADirectoryError) as problem:
            raise Damaged(f"{path}: {problem}; moved to {self.set_aside(path)}") from None

    def peek(self, ident: str) -> Attachment | None:
        """As `load`, but a record that cannot be read stays where it is."""
        try:
            with open(self.record_path(ident), encoding="utf-8", errors="surrogateescape") as file:
                return from_document(loads(file.read()))
        except (ValueError, FileNotFoundError, IsADirectoryError):
            return None

    def identities(self, network: str = "") -> list[str]:
        """Of all attachments, or of one network's."""
        networks = [network] if network else self.names("attachments")
        return [_identity(name, entry) for name in networks for entry in self.names("attachments", name)]

    def begin(self, item: Attachment) -> None:
        """Writes a new record with its leases and ports. After a kill at any point the next `lock` takes it all back,
        or the record is complete."""
        self._write("pending", item)
        for name in item.leased:
            files.point(item.ident, self.path("leases", name))
        for mapping in item.mappings:
            self.claim(mapping.claim, f"{mapping.host_ip}={item.ident}")
        for mapping in item.standby:
            self.claim(mapping.claim, f"?{mapping.host_ip}={item.ident}")
        if item.bridge:
            os.makedirs(self.path("bridges", item.bridge), 0o700, exist_ok=True)
            self.touch("bridges", item.bridge, item.link)
        os.makedirs(self.path("attachments", item.network), 0o700, exist_ok=True)
        os.rename(self.path("pending"), self.record_path(item.ident))

    def update(self, item: Attachment) -> None:
        """Replaces a record whose leases and ports stay what they are."""
        self._write("new", item)
        os.rename(self.path("new"), self.record_path(item.ident))

    def shrink(self, before: Attachment, item: Attachment) -> dict[str, list[PortMapping]]:
        """Replaces a record by one that holds less. After a kill at any point `tidy` frees the rest. Returns heirs, as
        `forget` does."""
        self._write("pending", before)
        self.update(item)
        return self._release(before, keep=item)

    def forget(self, item: Attachment) -> dict[str, list[PortMapping]]:
        """Removes the record, then frees what it holds: a record without its claims would bring back, at the next
        repair, what somebody else has by then. After a kill at any point `tidy` does the rest. Returns who of the same
        container has waited for which of its ports; `finish` ends it when they have them."""
        try:
            os.rename(self.record_path(item.ident), self.path("pending"))
        except FileNotFoundError:
            self._write("pending", item)
        heirs = self._release(item)
        self._leave_bridge(item)
        self.drop_empty(item.network)
        return heirs

    def finish(self) -> None:
        """The end of `forget`, `shrink` and `tidy`."""
        files.unlink(self.path("pending"))

    def _leave_bridge(self, item: Attachment) -> None:
        if item.bridge:
            files.unlink(self.path("bridges", item.bridge, item.link))
            files.rmdir(self.path("bridges", item.bridge))

    def drop_empty(self, network: str) -> None:
        """Removes what a kill inside `forget` may have left of a network without attachments."""
        files.rmdir(self.path("attachments", network))

    def _write(self, name: str, item: Attachment) -> None:
        files.write(self.path(name), dumps(to_document(item)) + "\n")

    def _release(self, item: Attachment, keep: Attachment | None = None) -> dict[str, list[PortMapping]]:
        """Only what is held in the attachment's own name: a late caller must not free what somebody else has now."""
        for name in item.leased:
            if self.lease_holder(name) == item.ident and not (keep and name in keep.leased):
                files.unlink(self.path("leases", name))
        heirs: dict[str, list[PortMapping]] = {}
        kept = {*keep.mappings, *keep.standby} if keep else set()
        for mapping in (*item.mappings, *item.standby):
            if mapping not in kept:
                heir = self.unclaim(mapping.claim, f"{mapping.host_ip}={item.ident}")
                if heir and mapping in item.mappings:
                    heirs.setdefault(heir, []).append(mapping)
        return heirs

    def has_records(self) -> bool:
        """Networks' folders go with their last attachment."""
        return bool(self.names("attachments"))

    # Bridges

    def is_last(self, item: Attachment) -> bool:
        """No other attachment, of any network, is on this one's bridge. Stops at the first: it may have a thousand."""
        if not item.bridge:
            return False
        try:
            with os.scandir(self.path("bridges", item.bridge)) as entries:
                return all(entry.name[0] == "." or entry.name == item.link for entry in entries)
        except FileNotFoundError:
            return True

    def sharing(self, item: Attachment) -> Iterator[Attachment | None]:
        """The other records on the same bridge, one by one: the first is enough for most questions, and it is most
        likely of the same network. None for one that cannot be read."""
        networks = [name for name in self.names("attachments") if os.path.isdir(self.path("attachments", name))]
        for network in sorted(networks, key=lambda name: name != item.network):
            with os.scandir(self.path("attachments", network)) as entries:
                for entry in entries:
                    ident = _identity(network, entry.name)
                    if ident != item.ident and os.path.lexists(self.path("bridges", item.bridge, host_link(ident))):
                        yield self.peek(ident)

    def note_bridge(self, bridge: str, fact: str) -> None:
        """Before we create the bridge (`created`) or give it an address (`address-...`): so that we may undo it."""
        os.makedirs(self.path("bridges", bridge), 0o700, exist_ok=True)
        self.touch("bridges", bridge, "." + fact.replace("/", "%"))

    def has_fact(self, bridge: str, fact: str) -> bool:
        return os.path.lexists(self.path("bridges", bridge, "." + fact.replace("/", "%")))

    def bridge_facts(self, bridge: str) -> list[str]:
        """All of them, by a listing: only for a bridge's last attachment."""
        return [name[1:].replace("%", "/") for name in self.names("bridges", bridge) if name.startswith(".")]

    def forget_bridge(self, bridge: str) -> None:
        for name in self.names("bridges", bridge):
            files.unlink(self.path("bridges", bridge, name))
        files.rmdir(self.path("bridges", bridge))

    def all_records(self, repaired: Callable[[str, str], Attachment | None], network: str = "") -> Iterator[Attachment]:
        """Every record; for a damaged one what `repaired(identity, message)` makes of it."""
        for ident in self.identities(network):
            try:
                item = self.load(ident)
            except Damaged as damage:
                item = repaired(ident, str(damage))
            if item is not None:
                yield item


def _identity(network: str, entry: str) -> str:
    """Of the record with that file's name."""
    container, _, ifname = entry.partition("@")
    return f"{network}/{container}/{ifname}"


def first_folder(data_dir: str, boot: str, cookie: int) -> str:
    """Where the records are although the table is gone, which named the folder: networks may each have a `dataDir` of
    their own, the first of the host keeps all of them. The usual place is that folder, or leads there by a link."""
    usual = _own(DATA_DIR)
    return usual if os.path.isdir(f"{usual}/{boot}.{cookie}") else data_dir


def _own(data_dir: str) -> str:
    """RootlessKit shows its users the real root's folder in /run, by a symbolic link (--copy-up); one beside it, which
    nobody outside sees, is theirs."""
    if os.access(data_dir, os.W_OK):
        return data_dir
    try:
        return f"{data_dir}-rootless" if os.stat(data_dir).st_uid != os.geteuid() else data_dir
    except OSError:
        return data_dir


def read_boot_id() -> str:
    try:
        with open(BOOT_ID, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        raise kernel_refused(f"reading {BOOT_ID}", error) from None
