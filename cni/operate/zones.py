"""Tells firewalld again who is in its zones after it was started or reloaded, in a process beside `watch`.

firewalld may take its time for each of hundreds of addresses, or hang. Nobody waits for it meanwhile: the lock is not
held, and `watch` goes on watching the table. `cni.firewalld` has everything else about zones.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

from cni import firewalld
from cni.model.attachment import Attachment
from cni.operate.repair import this_host
from cni.protocol.errors import CniError
from nft.signals import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FAILURES = 3  # before a round ends: a zone may be gone, but if firewalld hangs, each failure takes half a minute


class Teller:
    """Runs at most one process: another start of firewalld makes the earlier process needless."""

    def __init__(self, say: Callable[[str], None], pauses: tuple[int, ...]) -> None:
        self._say = say
        self._pauses = pauses
        self._process = 0

    def start(self) -> None:
        """Starts the process that tells firewalld, in place of one that still does so."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, signals.SIGKILL)
            os.waitpid(self._process, 0)
        parent = os.getpid()
        self._process = os.fork()
        if self._process == 0:
            try:
                self._tell(parent)
                sys.stdout.flush()
            finally:
                os._exit(0)

    def _tell(self, parent: int) -> None:
        told: dict[str, Attachment] = {}
        for pause in self._pauses:  # firewalld answers only when its table is complete
            time.sleep(pause)
            try:
                lacking = [item for item in _zoned() if item.ident not in told]
            except (CniError, OSError) as error:
                self._say(f"firewalld could not be told: {error}")
                continue
            failures = 0
            for item in lacking:
                if os.getppid() != parent or failures == FAILURES:
                    break
                try:
                    firewalld.join(item)
                except CniError as error:  # go on with the other containers
                    self._say(f"firewalld could not be told: {error}")
                    failures += 1
                else:
                    told[item.ident] = item
                    self._say(f"firewalld was restarted: {item.ident} is in its zone {item.zone} again")
            if not failures or os.getppid() != parent:
                break
        _take_back(told)


def _zoned() -> list[Attachment]:
    host = this_host()
    try:
        with host.transaction("telling firewalld"):
            return [item for item in host.records() if item.zone]
    finally:
        host.close()


def _take_back(told: dict[str, Attachment]) -> None:
    """Removes the addresses of containers whose DEL came meanwhile: another container may have them by now."""
    with contextlib.suppress(CniError, OSError):
        now = _zoned()
        zones = {item.ident: item.zone for item in now}
        gone = [item for item in told.values() if zones.get(item.ident) != item.zone]
        for item in gone:
            firewalld.leave(item)
        addresses = {address for item in gone for address in item.addresses}
        for item in now:
            if not addresses.isdisjoint(item.addresses):
                firewalld.join(item)
