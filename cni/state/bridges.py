"""Which attachments are on which bridge, and what we did to a bridge and must undo with its last attachment.

    bridges/<bridge>/<host link>    one for each attachment there, and for the host's link in one of its VLANs
    bridges/<bridge>/.<note>        `created`, or for an adopted bridge `address-...`, `up`, `sysctl-...`: ours to undo

`cni.bridge` knows what the notes mean.
"""

from __future__ import annotations

import posix

from cni.state.folder import Folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container


class Bridges:
    """The folder `bridges`. Methods that change something need the store's lock."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        return self._folder.names("bridges")

    def enter(self, bridge: str, link: str) -> None:
        self._folder.touch("bridges", bridge, link)

    def leave(self, bridge: str, link: str) -> None:
        self._folder.unlink("bridges", bridge, link)
        self._folder.rmdir("bridges", bridge)

    def has(self, bridge: str, link: str) -> bool:
        return self._folder.has("bridges", bridge, link)

    def ports(self, bridge: str) -> list[str]:
        """The host ends of all attachments on the bridge and in its VLANs. It lists folders."""
        own = [name for name in self._folder.names("bridges", bridge) if not name.startswith(".")]
        vlans = self.vlans(bridge)
        return [*(name for name in own if name not in vlans), *(port for vlan in vlans for port in self.ports(vlan))]

    def vlans(self, bridge: str) -> set[str]:
        """The host's links in the bridge's VLANs. A host end without a bridge has its own name there."""
        return set(self._folder.names("bridges", bridge)).intersection(self.names()) - {bridge}

    def only(self, bridge: str, link: str, vlans: bool = True) -> bool:
        """Whether no other attachment, of any network, is on the bridge or, with `vlans`, in one of its VLANs. Stops at
        the first, as there may be a thousand."""
        try:
            with posix.scandir(self._folder.path("bridges", bridge)) as entries:
                return all(
                    entry.name[0] == "." or entry.name == link or not vlans and self._folder.has("bridges", entry.name)
                    for entry in entries
                )
        except FileNotFoundError:
            return True

    def of_link(self, link: str) -> str:
        """The bridge under which a host link was entered, "" for none."""
        return next((name for name in self.names() if self.has(name, link)), "")

    def note(self, bridge: str, note: str) -> None:
        """Makes a note. Call it before making the change, so that a kill leaves something to undo."""
        self._folder.touch("bridges", bridge, _file(note))

    def note_before(self, bridge: str, key: str, before: str) -> None:
        """Notes a sysctl's earlier value, unless the bridge is ours and its sysctls go with it."""
        notes = self.notes(bridge)
        if "created" not in notes and not any(note.startswith(f"sysctl-{key}=") for note in notes):
            self.note(bridge, f"sysctl-{key}={before}")

    def knows(self, bridge: str, note: str) -> bool:
        return self._folder.has("bridges", bridge, _file(note))

    def remove(self, bridge: str, note: str) -> None:
        self._folder.unlink("bridges", bridge, _file(note))

    def notes(self, bridge: str) -> list[str]:
        """All notes of the bridge. It lists the folder, so call it only for a bridge's last attachment."""
        return [name[1:].replace("%", "/") for name in self._folder.names("bridges", bridge) if name.startswith(".")]

    def has_note(self, bridge: str, beginning: str, beside: Container[str] = ()) -> bool:
        """Whether a note begins so, beside these. Stops at the first, as there may be a thousand."""
        try:
            with posix.scandir(self._folder.path("bridges", bridge)) as entries:
                return any(
                    entry.name.startswith(f".{beginning}") and entry.name[1:].replace("%", "/") not in beside
                    for entry in entries
                )
        except FileNotFoundError:
            return False

    def drop(self, bridge: str) -> None:
        """Forgets all that is known of the bridge."""
        for name in self._folder.names("bridges", bridge):
            self._folder.unlink("bridges", bridge, name)
        self._folder.rmdir("bridges", bridge)


def _file(note: str) -> str:
    return "." + note.replace("/", "%")
