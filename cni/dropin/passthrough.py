"""Links of a chain that have nothing to do, answered before anything but JSON is loaded.

nerdctl's chain runs `tuning` with nothing to tune and `portmap` for containers without ports; either took 1.7 bare
interpreters, and takes about one so. Only what is certain is answered here: at ADD a configuration without any key of
the plugin, at DEL a record that says that nothing of the plugin's is left. In every other case the usual way is taken,
with the document that was read.
"""

from __future__ import annotations

import os

from cni.protocol.jsontext import dumps, loads
from cni.protocol.names import DATA_DIR, check_ifname, is_name
from cni.protocol.versions import VERSIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import Json

FIREWALLS = ("/run/dbus/system_bus_socket", "/usr/sbin/iptables", "/sbin/iptables")
# Keys that ask none of the three for anything.
NEUTRAL = {"cniversion", "name", "type", "capabilities", "prevresult", "runtimeconfig"}
ASKING: dict[str, set[str]] = {"tuning": {"mac"}, "portmap": {"portmappings"}, "firewall": set()}
# What a record says where DEL has nothing to take back. `record` writes it without spaces.
EMPTY = {"portmap": ('"mappings":[]', '"standby":[]'), "firewall": ('"kind":"bridged"', '"zone":""')}


def shortcut(role: str, verb: str, data: bytes) -> str | None:
    """The answer to ADD, "" for DEL, or None: somebody has to look."""
    try:
        document = loads(data.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not _is_plain(verb, document):
        return None
    if verb == "ADD":
        return None if role == "firewall" and _has_firewall() else _untouched(role, document)
    return "" if _holds_nothing(role, document["name"]) else None


def _is_plain(verb: str, document: dict[str, Json]) -> bool:
    """A request that `read_request` would take as it is; errors are for that one to find."""
    given = os.environ.get
    name = document.get("name")
    try:
        check_ifname(given("CNI_IFNAME", ""))
    except ValueError:
        return False
    return (
        document.get("cniVersion") in VERSIONS[2:]
        and isinstance(name, str)
        and is_name(name)
        and is_name(given("CNI_CONTAINERID", ""))
        and bool(given("CNI_PATH"))
        and (bool(given("CNI_NETNS")) or verb == "DEL")
        and not given("CNI_ARGS")
        and not given("NFTCNI_DATA_DIR")
    )


def _untouched(role: str, document: dict[str, Json]) -> str | None:
    """prevResult, where no key asks for anything."""
    before, runtime = document.get("prevResult"), document.get("runtimeConfig")
    if not NEUTRAL.issuperset(map(str.lower, document)) or not isinstance(before, dict):
        return None
    if runtime is not None and (not isinstance(runtime, dict) or ASKING[role].intersection(map(str.lower, runtime))):
        return None
    ips = before.get("ips")
    if not isinstance(ips, list) or not all(isinstance(item, dict) and _is_prefix(item.get("address")) for item in ips):
        return None
    return dumps({**before, "cniVersion": document["cniVersion"]})


def _has_firewall() -> bool:
    """Whether there may be a firewalld, whose zone is joined unasked, or an administrator's chain of iptables."""
    return "DBUS_SYSTEM_BUS_ADDRESS" in os.environ or any(map(os.path.exists, FIREWALLS))


def _is_prefix(value: Json) -> bool:
    """By its characters: what the plugin before us has made needs no parser here."""
    if not isinstance(value, str):
        return False
    address, slash, length = value.partition("/")
    return bool(slash) and length.isdigit() and set("0123456789abcdefABCDEF:.").issuperset(address)


def _holds_nothing(role: str, network: Json) -> bool:
    """By the state folder's files, which appear whole or not at all: no lock is needed to read one."""
    if not os.path.isdir(DATA_DIR):
        return role == "tuning"
    if not os.access(DATA_DIR, os.W_OK):
        return False  # it is another user's: `store` knows where ours is
    folders = [f"{DATA_DIR}/{name}" for name in os.listdir(DATA_DIR)]
    if role == "tuning":
        return not any(os.path.isdir(f"{folder}/tuning") for folder in folders)
    for folder in folders:
        text = _read(f"{folder}/attachments/{network}/{os.environ['CNI_CONTAINERID']}@{os.environ['CNI_IFNAME']}")
        if text:
            return all(words in text for words in EMPTY[role])
    return False


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
