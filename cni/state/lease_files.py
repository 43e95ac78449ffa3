"""The lease files of the reference host-local plugin, which others read and write as well: a folder for each network.

    <ipam.dataDir>/<network>/<address>              container ID, CRLF, interface; before 0.8 of it the ID alone
    <ipam.dataDir>/<network>/last_reserved_ip.<N>   where the search in range set N ended
    <ipam.dataDir>/<network>/lock                   flock of whoever reserves

The format is that of its backend/disk. The folder outlives a reboot, which no container does: a file older than the
boot is nobody's. A host without a clock of its own may take a living one for such; `cni.kernel.probe` finds it then.
Our own leases are `claims`.
"""

from __future__ import annotations

import os
import time

from cni.protocol.errors import TRY_AGAIN_LATER, CniError
from cni.state import files
from nft.addresses import Address, parse_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.model.attachment import Lease

BREAK = "\r\n"


class LeaseFiles:
    """Of one network. `keeps` says whether leases of ours are entered, too: where that was asked for, or where the
    folder shows that the reference plugin was here. They are read in any case."""

    def __init__(self, folder: str, asked: bool = True) -> None:
        self.folder = folder
        self.keeps = asked or os.path.isdir(folder)
        self._lock = -1

    def holder(self, address: Address, container: str = "", ifname: str = "") -> str:
        """Who has it, in words, "" for nobody or for that container itself. One look-up."""
        path = f"{self.folder}/{address}"
        try:
            if os.lstat(path).st_mtime < boot_time():
                return ""
            text = files.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        if is_of(text, container, ifname):
            return ""
        return f"container {' '.join(text.split()) or '?'} by the lease file {path}"

    def last(self, index: int) -> Address | None:
        try:
            return parse_address(files.read(f"{self.folder}/last_reserved_ip.{index}").strip())
        except (ValueError, OSError):
            return None

    # Leases of ours, for others to read

    def lock(self) -> None:
        """Until `unlock`: between looking and entering. Raises CniError 11 after a bounded wait."""
        if self.keeps and self._lock < 0:
            os.makedirs(self.folder, 0o755, exist_ok=True)
            self._lock = files.lock(self.folder, "lock")

    def kept_for(self, leases: tuple[Lease, ...]) -> str:
        """The folder, where these will be entered."""
        return self.folder if self.keeps and leases else ""

    def unlock(self) -> None:
        if self._lock >= 0:
            files.unlock(self._lock)
            self._lock = -1

    def remember_last(self, index: int, address: Address) -> None:
        if self.keeps:
            files.write(f"{self.folder}/last_reserved_ip.{index}", str(address))


def enter(folder: str, address: Address, container: str, ifname: str) -> None:
    """Never over somebody else's of this boot: the reference takes its lock, a runtime's own tools may not."""
    path, text = f"{folder}/{address}", f"{container}{BREAK}{ifname}"
    for _attempt in (1, 2):
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            os.makedirs(folder, 0o755, exist_ok=True)
            continue
        except FileExistsError:
            if LeaseFiles(folder).holder(address, container, ifname):
                break
            files.unlink(path)
            continue
        os.write(file, text.encode())
        os.close(file)
        return
    raise CniError(TRY_AGAIN_LATER, f"somebody else writes {path} at this moment", "try again")


def holder_of(folder: str, address: Address) -> str:
    """What the address's file says, container and interface, "" for none."""
    try:
        return " ".join(files.read(f"{folder}/{address}").split())
    except OSError:
        return ""


def leave(folder: str, address: Address, container: str, ifname: str) -> bool:
    """Takes the container's file away, never another's. Whether there was one."""
    path = f"{folder}/{address}"
    try:
        mine = is_of(files.read(path), container, ifname)
    except OSError:
        return False
    if mine:
        files.unlink(path)
    return mine


def is_of(text: str, container: str, ifname: str) -> bool:
    """Whether a file's text names that container's interface, or the container alone."""
    return bool(container) and text.split() in ([container, ifname], [container])


def boot_time() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
