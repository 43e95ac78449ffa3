"""Which attachments are on which bridge, and what we did to a bridge that its last attachment undoes.

    bridges/<bridge>/<host link>    one for each attachment there, and for the host's link in a VLAN of it
    bridges/<bridge>/.<fact>        `created`, or of an adopted bridge `address-...`, `up`, `sysctl-...`: ours to undo

What the facts mean is `cni.bridge`.
"""

from __future__ import annotations

import os

from cni.state.folder import Folder


class Bridges:
    """Everything that changes something needs the store's lock."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        return self._folder.names("bridges")

    def enter(self, bridge: str, link: str) -> None:
        self._folder.make("bridges", bridge)
        self._folder.touch("bridges", bridge, link)

    def leave(self, bridge: str, link: str) -> None:
        self._folder.unlink("bridges", bridge, link)
        self._folder.rmdir("bridges", bridge)

    def has(self, bridge: str, link: str) -> bool:
        return self._folder.has("bridges", bridge, link)

    def ports(self, bridge: str) -> list[str]:
        """The host ends of all attachments there, those in its VLANs too, by listings."""
        own = [name for name in self._folder.names("bridges", bridge) if not name.startswith(".")]
        vlans = self.vlans(bridge)
        return [*(name for name in own if name not in vlans), *(port for vlan in vlans for port in self.ports(vlan))]

    def vlans(self, bridge: str) -> list[str]:
        """The host's links in its VLANs. Point to point the host end is its own bridge."""
        return [name for name in self._folder.names("bridges", bridge) if name != bridge and self._is_bridge(name)]

    def _is_bridge(self, name: str) -> bool:
        return name[0] != "." and self._folder.has("bridges", name)

    def only(self, bridge: str, link: str, vlans: bool = True) -> bool:
        """No other attachment, of any network, is on the bridge, or in one of its `vlans`. Stops at the first: it may
        have a thousand."""
        try:
            with os.scandir(self._folder.path("bridges", bridge)) as entries:
                return all(
                    entry.name[0] == "." or entry.name == link or not vlans and self._is_bridge(entry.name)
                    for entry in entries
                )
        except FileNotFoundError:
            return True

    def of_link(self, link: str) -> str:
        """The bridge that a host link was noted for, or ""."""
        return next((name for name in self.names() if self.has(name, link)), "")

    def note(self, bridge: str, fact: str) -> None:
        """Before it is done, so that a kill leaves something to undo."""
        self._folder.make("bridges", bridge)
        self._folder.touch("bridges", bridge, _file(fact))

    def note_before(self, bridge: str, key: str, before: str) -> None:
        """A sysctl's value: nothing where the bridge, with all that is set on it, is ours."""
        facts = self.facts(bridge)
        if "created" not in facts and not any(fact.startswith(f"sysctl-{key}=") for fact in facts):
            self.note(bridge, f"sysctl-{key}={before}")

    def knows(self, bridge: str, fact: str) -> bool:
        return self._folder.has("bridges", bridge, _file(fact))

    def forget(self, bridge: str, fact: str) -> None:
        self._folder.unlink("bridges", bridge, _file(fact))

    def facts(self, bridge: str) -> list[str]:
        """All of them, by a listing: only for a bridge's last attachment."""
        return [name[1:].replace("%", "/") for name in self._folder.names("bridges", bridge) if name.startswith(".")]

    def drop(self, bridge: str) -> None:
        """All that is known of it."""
        for name in self._folder.names("bridges", bridge):
            self._folder.unlink("bridges", bridge, name)
        self._folder.rmdir("bridges", bridge)


def _file(fact: str) -> str:
    return "." + fact.replace("/", "%")
