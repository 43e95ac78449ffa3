"""The lease files of the reference host-local plugin, which others read and write as well: a folder for each network.

    <ipam.dataDir>/<network>/<address>              container ID, CRLF, interface; the ID alone before its 0.8
    <ipam.dataDir>/<network>/last_reserved_ip.<N>   where the search in range set N ended
    <ipam.dataDir>/<network>/lock                   flock of whoever reserves

The format is that of its backend/disk. The folder outlives a reboot, but no container does: a file older than the boot
belongs to nobody. A host without a battery-backed clock may misjudge a living container's file so; then
`cni.kernel.probe` finds the container. `claims` holds our own leases.
"""

from __future__ import annotations

import posix
import time

from cni.protocol.errors import TRY_AGAIN_LATER, CniError
from cni.protocol.log import say
from cni.state import files
from nft.addresses import Address, parse_address
from nft.system import is_folder, make_folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.model.attachment import Lease

BREAK = "\r\n"
LOCK, LAST = "lock", "last_reserved_ip."
ASIDE = ".new-"  # begins the name of a file that is being written; a kill leaves it for DEL


class LeaseFiles:
    """The lease files of one network. They are always read. `keeps` says whether our leases are entered too: if the
    configuration asks for it, or the folder shows that the reference plugin was used here."""

    def __init__(self, folder: str, asked: bool = True) -> None:
        self.folder = folder
        self.keeps = asked or is_folder(folder)
        self._lock = -1

    def holder(self, address: Address, container: str = "", ifname: str = "") -> str:
        """Who has the address, in words; "" for nobody, or for this container itself. One look-up."""
        path = f"{self.folder}/{address}"
        try:
            if posix.lstat(path).st_mtime < boot_time():
                return ""
            text = files.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        if is_of(text, container, ifname):
            return ""
        return f"container {' '.join(text.split()) or '?'} by the lease file {path}"

    def last(self, index: int) -> Address | None:
        """Where the reference's last search in a range set ended, None without one."""
        try:
            return parse_address(files.read(f"{self.folder}/{LAST}{index}").strip())
        except (ValueError, OSError):
            return None

    # Our leases, for others to read

    def lock(self) -> None:
        """Takes the reference's lock, which covers looking and entering, until `unlock`. Without the folder there is
        nobody to lock out. Raises CniError 11 after a bounded wait."""
        if self._lock < 0 and is_folder(self.folder):
            self._lock = files.lock(self.folder, LOCK)

    def kept_for(self, leases: tuple[Lease, ...]) -> str:
        """The folder in which these leases will be entered, "" for none."""
        return self.folder if self.keeps and leases else ""

    def unlock(self) -> None:
        if self._lock >= 0:
            files.unlock(self._lock)
            self._lock = -1

    def remember(self, leases: tuple[Lease, ...]) -> None:
        """Notes, after the leases were entered, where the reference's next search begins, and makes its lock file. Both
        are a courtesy, so an error is only told."""
        if not self.kept_for(leases):
            return
        try:
            posix.close(posix.open(f"{self.folder}/{LOCK}", posix.O_RDONLY | posix.O_CREAT | posix.O_CLOEXEC, 0o600))
            for index, lease in enumerate(leases):
                files.write(f"{self.folder}/{LAST}{index}", str(lease.address.address))
        except OSError as error:
            say(f"for the next search of host-local: {error.strerror}: {error.filename}")


def enter(folder: str, address: Address, container: str, ifname: str) -> None:
    """Writes the container's file, but never over another container's of this boot: the reference plugin takes the
    lock, a runtime's own tools may not."""
    path, aside = f"{folder}/{address}", f"{folder}/{ASIDE}{address}"
    for _attempt in (1, 2):
        try:
            files.write(aside, f"{container}{BREAK}{ifname}")
            # A file without its text would be nobody's to remove, and the address would be taken until a reboot.
            posix.link(aside, path)
        except FileNotFoundError:
            make_folders(folder, 0o755)
            continue
        except FileExistsError:
            if LeaseFiles(folder).holder(address, container, ifname):
                break
            files.unlink(path)
            continue
        finally:
            files.unlink(aside)
        return
    raise CniError(TRY_AGAIN_LATER, f"somebody else writes {path} at this moment", "try again")


def holder_of(folder: str, address: Address) -> str:
    """The text of the address's file, of this boot or an earlier one: container and interface. "" without a file."""
    try:
        return " ".join(files.read(f"{folder}/{address}").split())
    except OSError:
        return ""


def leave(folder: str, address: Address, container: str, ifname: str) -> bool:
    """Removes the container's file, never another's. Returns whether there was one. Raises OSError: if nobody can tell
    whose it is, it must not stay unnoticed."""
    path = f"{folder}/{address}"
    files.unlink(f"{folder}/{ASIDE}{address}")
    try:
        mine = is_of(files.read(path), container, ifname)
    except NotADirectoryError:
        return False
    if mine:
        files.unlink(path)
    return mine


def tidy(folder: str) -> None:
    """Removes the other files and the folder, unless it still holds a lease."""
    try:
        names = posix.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    if all(name == LOCK or name.startswith((LAST, ASIDE)) for name in names):
        for name in names:
            files.unlink(f"{folder}/{name}")
        files.rmdir(folder)


def is_of(text: str, container: str, ifname: str) -> bool:
    """Whether a file's text names this container's interface, or the container alone."""
    return bool(container) and text.split() in ([container, ifname], [container])


def boot_time() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
