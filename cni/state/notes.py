"""Notes about the host besides records: earlier states to restore, and the loaded rules to compare with.

    rules                 -> digest     of the table's rules as they were loaded
    unrouted4, unrouted6                links between which the host did not forward before us
    tuning/<host link>                  an interface's settings before the drop-in `tuning`

`cni.host`, `cni.forwarding` and `cni.dropin.tuning` know what the notes mean.
"""

from __future__ import annotations

from cni.state import files
from cni.state.folder import Folder


class Notes:
    """Methods that change something need the store's lock."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def put_rules(self, digest: str) -> None:
        """Notes the digest of the loaded rules; "" removes the note, before other rules are loaded."""
        if digest:
            self._folder.point(digest, "rules")
        else:
            self._folder.unlink("rules")

    def rules(self) -> str:
        return self._folder.read("rules")

    def put_unrouted(self, version: int, links: list[str]) -> None:
        """Notes the links between which the host did not forward before us; [] removes the note."""
        if links:
            self._folder.write("\n".join(links) + "\n", f"unrouted{version}")
        else:
            self._folder.unlink(f"unrouted{version}")

    def unrouted(self, version: int) -> list[str]:
        return self._folder.read(f"unrouted{version}").splitlines()

    def keep_settings(self, link: str, text: str) -> None:
        """Keeps an interface's settings from before `tuning`, unless there are some: a repeated ADD would find its
        own."""
        self._folder.make("tuning")
        if not self._folder.has("tuning", link):
            files.write(self._folder.path("tuning", link), text)

    def kept_settings(self, link: str) -> str:
        return self._folder.read("tuning", link)

    def drop_settings(self, link: str) -> None:
        self._folder.unlink("tuning", link)
        self._folder.rmdir("tuning")
