"""The lock that every change of the host is made under: which folder it is in, and how a fresh folder is filled.

The folder is named after the boot and the network namespace that it describes, so a reboot frees everything without a
sweep. Each network may have its own `dataDir`; the first network of a host decides for all.
"""

from __future__ import annotations

import errno
import posix

from cni.protocol.name_rules import DATA_DIR
from cni.state import files
from cni.state.folder import Folder
from cni.state.place import own_folder
from nft.system import base_name, folder_of, is_folder, is_link, same_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FOLDERS = ("attachments", "containers", "leases", "ports", "bridges")
PATIENCE = 3.0  # seconds for which a DEL lets others go first; with 1.0, 256 DELs at once took a quarter longer
LAST = "last"  # made last: a folder that has it is complete


class Lock:
    """The lock of `folder`, whose path may change when the lock is taken."""

    def __init__(self, folder: Folder, boot: str) -> None:
        self._folder = folder
        self._boot = boot
        self._file = -1

    @property
    def data_dir(self) -> str:
        return folder_of(self._folder.root)

    def has_folder(self) -> bool:
        """Whether the folder is complete. Only ENOENT may count as absence: otherwise records would be overwritten with
        the little that the table knows of them."""
        try:
            posix.stat(self._folder.path(LAST))
        except FileNotFoundError:
            return False
        return True

    def acquire(self, fill: Callable[[], None]) -> None:
        """Waits at most files.LOCK_SECONDS, then raises CniError 11. Calls `fill` on a fresh folder."""
        while True:
            if not self.has_folder():
                self._choose_folder()
            self._file = files.lock(self._folder.root, "lock", queued=True)
            if self.has_folder():
                return
            if self._file >= 0 and self._is_chosen():
                break
            self.release()  # while we waited, the folder was removed or another one was chosen
        for name in FOLDERS:
            self._folder.make(name)
        fill()
        self._drop_other_boots()
        self._folder.make(LAST)

    def release(self) -> None:
        if self._file >= 0:
            files.unlock(self._file)
            self._file = -1

    def is_wanted(self) -> bool:
        """Whether another process waits for the lock."""
        return files.has_queue(self._folder.root)

    def let_others_go_first(self) -> None:
        """Returns once no process waits for the lock, or after PATIENCE."""
        files.wait_for_queue(self._folder.root, PATIENCE)

    def _drop_other_boots(self) -> None:
        """Removes the folders of earlier boots. Those of other namespaces of this boot may still be true."""
        for name in posix.listdir(self.data_dir):
            boot, dot, cookie = name.partition(".")
            if boot != self._boot and dot and cookie.isdigit() and len(boot) == len(self._boot):
                path = f"{self.data_dir}/{name}"
                if is_link(path):
                    files.unlink(path)
                    continue
                import shutil

                shutil.rmtree(path, ignore_errors=True)

    @property
    def _usual(self) -> str:
        return f"{own_folder(DATA_DIR)}/{base_name(self._folder.root)}"

    def _choose_folder(self) -> None:
        """The usual path is this host's folder or a link to it: the process that makes either one decides for all.
        Otherwise two first ADDs with different `dataDir` would each have records that the other's table lacks."""
        try:
            self._folder.root = files.decide(self._usual, self._folder.root)
        except OSError as error:
            if self._folder.root == self._usual or error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            # /run may not be writable; the table names the folder as well.

    def _is_chosen(self) -> bool:
        """Whether the folder whose lock we hold is still the host's."""
        usual = self._usual
        return not is_folder(usual) or same_file(usual, self._folder.root)
