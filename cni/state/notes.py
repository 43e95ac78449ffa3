"""What was noted about the host besides records, for whoever undoes it or compares with it.

    rules                 -> digest     of the table's rules as they were loaded
    unrouted4, unrouted6                links between which the host did not forward before us, unless they did so alone
    tuning/<host link>                  what an interface had before the drop-in `tuning`

What the notes mean is `cni.host`, `cni.forwarding` and `cni.dropin.tuning`.
"""

from __future__ import annotations

from cni.state import files
from cni.state.folder import Folder


class Notes:
    """Everything that changes something needs the store's lock."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def put_rules(self, digest: str) -> None:
        """Of the rules that were loaded; "" to take the note back, before others are."""
        if digest:
            self._folder.point(digest, "rules")
        else:
            self._folder.unlink("rules")

    def rules(self) -> str:
        return self._folder.read("rules")

    def put_unrouted(self, version: int, links: list[str]) -> None:
        """The links between which the host did not forward before us; [] takes the note back."""
        if links:
            self._folder.write("\n".join(links) + "\n", f"unrouted{version}")
        else:
            self._folder.unlink(f"unrouted{version}")

    def unrouted(self, version: int) -> list[str]:
        return self._folder.read(f"unrouted{version}").splitlines()

    def keep_settings(self, link: str, text: str) -> None:
        """What an interface had before `tuning`. The first to be kept stays: a repeated ADD finds its own settings."""
        self._folder.make("tuning")
        if not self._folder.has("tuning", link):
            files.write(self._folder.path("tuning", link), text)

    def kept_settings(self, link: str) -> str:
        return self._folder.read("tuning", link)

    def drop_settings(self, link: str) -> None:
        self._folder.unlink("tuning", link)
        self._folder.rmdir("tuning")
