"""firewalld's zones: makes a container's addresses sources of a zone, by D-Bus.

Where firewalld runs, its chains drop forwarded packets of senders that are in no zone. systemd's `busctl` speaks D-Bus
for us. The record says which addresses join which zone.
"""

from __future__ import annotations

import posix
import time

from cni.model.attachment import Attachment
from cni.protocol import child
from cni.protocol.errors import IO_FAILURE, UNSUPPORTED_FIELD, CniError
from cni.protocol.log import say
from nft.addresses import host_prefix
from nft.system import exists, variable

BUS = "/run/dbus/system_bus_socket"
SERVICE = "org.fedoraproject.FirewallD1"
PLACE = (SERVICE, "/org/fedoraproject/FirewallD1", f"{SERVICE}.zone")
ALREADY = "ZONE_ALREADY_SET"
GONE = ("UNKNOWN_SOURCE", "ZONE_CONFLICT", "INVALID_ZONE")  # of firewalld's errors.py: it is not in that zone
SECONDS = 30  # a reload of firewalld makes callers wait
SILENT = 60  # seconds for which a firewalld that did not answer is left alone, or hundreds of addresses would each wait
DEFAULT_ZONE = "trusted"  # the reference firewall plugin's


def is_running() -> bool:
    """Whether firewalld runs. False as well without a bus or without busctl."""
    if not exists(BUS) and not variable("DBUS_SYSTEM_BUS_ADDRESS"):
        return False
    names = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameHasOwner", "s", SERVICE)
    status, answer = _call(*names)
    return status == 0 and answer.split() == ["b", "true"]


def require(key: str, value: str) -> None:
    """Raises CniError 2 if firewalld does not run."""
    if not is_running():
        raise CniError(
            UNSUPPORTED_FIELD,
            f'{key}: "{value}": firewalld does not run on this host, or there is no busctl to reach it',
            "start firewalld, or remove the key: nftcni needs no firewalld",
        )


def join(item: Attachment) -> None:
    """Adds all of its addresses to its zone. May be repeated. Raises CniError 5."""
    for source in _sources(item):
        status, answer = _call(*PLACE, "addSource", "ss", item.zone, source)
        if status and ALREADY not in answer:
            raise CniError(IO_FAILURE, f"firewalld: adding {source} to the zone {item.zone}: {answer}")


def leave(item: Attachment) -> None:
    """Removes its addresses from its zone. What stays there is said on stderr, because DEL goes on."""
    for source in _sources(item):
        status, answer = _call(*PLACE, "removeSource", "ss", item.zone, source)
        if status and not any(word in answer for word in GONE) and (_is_silent() or is_running()):
            say(f"firewalld: {source} stays in the zone {item.zone}: {answer}")


def problems(item: Attachment) -> list[str]:
    """Addresses that are not in the attachment's zone, as sentences."""
    found = []
    for source in _sources(item):
        status, answer = _call(*PLACE, "querySource", "ss", item.zone, source)
        if status or answer.split() != ["b", "true"]:
            found.append(f"{source} is not in firewalld's zone {item.zone}")
    return found


def _sources(item: Attachment) -> list[str]:
    return [str(host_prefix(address)) for address in item.addresses]


_silent_until = 0.0


def _is_silent() -> bool:
    return time.monotonic() < _silent_until


def _call(*words: str) -> tuple[int, str]:
    """busctl's (exit status, output)."""
    global _silent_until
    if _is_silent():
        return 1, f"it did not answer within {SECONDS} s before and is not asked again"
    try:
        status, output = child.run(
            "busctl", b"", posix.environ, SECONDS, ("--system", "call", *words), with_stderr=True
        )
    except OSError as error:
        return 1, f"busctl: {error.strerror}"
    except child.TooLong:
        _silent_until = time.monotonic() + SILENT
        return 1, f"no answer within {SECONDS} s"
    return status, output.decode("utf-8", "replace").strip()
