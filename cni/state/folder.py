"""The state folder's entries by path: symbolic links and small files, each read and written in one step.

`claims`, `bridges`, `notes` and `store` share one of these and know what the entries mean.
"""

from __future__ import annotations

import posix

from cni.state import files
from nft.system import is_there, make_folders


class Folder:
    """The state folder of one boot and one network namespace. `root` is its path; `store` holds its lock."""

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

    def names(self, *parts: str) -> list[str]:
        """The names in a folder, sorted; [] if it is missing."""
        try:
            return sorted(posix.listdir(self.path(*parts)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def has(self, *parts: str) -> bool:
        return is_there(self.path(*parts))

    def make(self, *parts: str) -> None:
        make_folders(self.path(*parts), 0o700)

    def touch(self, *parts: str) -> None:
        """An empty file, and its folder if need be: most folders are there."""
        try:
            file = posix.open(self.path(*parts), posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            self.make(*parts[:-1])
            file = posix.open(self.path(*parts), posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
        posix.close(file)

    def read(self, *parts: str) -> str:
        """What a link points to or a small file holds, "" if it is missing. A folder in its place is set aside."""
        path = self.path(*parts)
        try:
            return files.read(path)
        except IsADirectoryError:
            self.set_aside(path)
            return ""

    def point(self, target: str, *parts: str) -> None:
        """Puts a symbolic link in place of what is there, in one step."""
        posix.symlink(target, self.path("new"))
        posix.rename(self.path("new"), self.path(*parts))

    def write(self, text: str, *parts: str) -> None:
        """Puts a file in place of what is there, in one step."""
        files.write(self.path("new"), text)
        posix.rename(self.path("new"), self.path(*parts))

    def unlink(self, *parts: str) -> None:
        files.unlink(self.path(*parts))

    def rmdir(self, *parts: str) -> None:
        """Removes the folder if it is empty."""
        files.rmdir(self.path(*parts))

    def set_aside(self, path: str) -> str:
        """Moves an unreadable entry to `damaged`. Returns its new path."""
        self.make("damaged")
        target = self.path("damaged", path[len(self.root) + 1 :].replace("/", "%"))
        posix.rename(path, target)
        return target
