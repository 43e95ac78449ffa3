"""Answers for plugins of a chain that have nothing to do, before anything but JSON is loaded.

nerdctl's chain runs `tuning` with nothing to tune and `portmap` for containers without ports. Either took as long as
1.7 bare interpreters and now takes about one. Only certain cases are answered here: an ADD whose configuration has no
key of the plugin, a DEL whose record says that nothing of the plugin is left. All others go the usual way, with the
document that was read.
"""

from __future__ import annotations

import posix

from cni.protocol.jsontext import dumps, loads
from cni.protocol.name_rules import DATA_DIR, check_ifname, is_name
from cni.protocol.versions import VERSIONS
from nft.system import exists, is_folder, variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import Json

FIREWALLS = ("/run/dbus/system_bus_socket", "/usr/sbin/iptables", "/sbin/iptables")
# Keys that ask nothing of the three plugins.
NEUTRAL = {"cniversion", "name", "type", "capabilities", "prevresult", "runtimeconfig"}
ASKING: dict[str, set[str]] = {"tuning": {"mac"}, "portmap": {"portmappings"}, "firewall": set()}
# A record's text if DEL has nothing to remove. `record` writes it without spaces.
EMPTY = {"portmap": ('"mappings":[]', '"standby":[]'), "firewall": ('"kind":"bridged"', '"zone":""')}


def shortcut(role: str, verb: str, data: bytes) -> str | None:
    """The answer to ADD, "" for DEL, None if the usual way has to look."""
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
    """Whether `read_request` would accept the request; it is left to find errors."""
    name = document.get("name")
    try:
        check_ifname(variable("CNI_IFNAME"))
    except ValueError:
        return False
    return (
        document.get("cniVersion") in VERSIONS[2:]
        and isinstance(name, str)
        and is_name(name)
        and is_name(variable("CNI_CONTAINERID"))
        and bool(variable("CNI_PATH"))
        and (bool(variable("CNI_NETNS")) or verb == "DEL")
        and not variable("CNI_ARGS")
        and not variable("NFTCNI_DATA_DIR")
    )


def _untouched(role: str, document: dict[str, Json]) -> str | None:
    """prevResult, None if a key asks for something."""
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
    return bool(variable("DBUS_SYSTEM_BUS_ADDRESS")) or any(map(exists, FIREWALLS))


def _is_prefix(value: Json) -> bool:
    """Whether its characters look like a prefix: what the plugin before us wrote needs no parser here."""
    if not isinstance(value, str):
        return False
    address, slash, length = value.partition("/")
    return bool(slash) and length.isdigit() and set("0123456789abcdefABCDEF:.").issuperset(address)


def _holds_nothing(role: str, network: Json) -> bool:
    """Whether the record holds nothing for DEL to remove. Its file appears whole or not at all, so reading needs no
    lock."""
    if not is_folder(DATA_DIR):
        return role == "tuning"
    if not posix.access(DATA_DIR, posix.W_OK):
        return False  # the folder is another user's: `store` knows where ours is
    folders = [f"{DATA_DIR}/{name}" for name in posix.listdir(DATA_DIR)]
    if role == "tuning":
        return not any(is_folder(f"{folder}/tuning") for folder in folders)
    for folder in folders:
        text = _read(f"{folder}/attachments/{network}/{variable('CNI_CONTAINERID')}@{variable('CNI_IFNAME')}")
        if text:
            return all(words in text for words in EMPTY[role])
    return False


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
