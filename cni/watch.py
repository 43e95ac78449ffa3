"""`nftcni watch`: follows the kernel's nf_tables events and restores the table right after somebody flushed it.

A flush and a deletion on purpose look alike to the kernel's event stream, one "table deleted" for each table. They are
told apart like this, and the administrator always wins:

- Tables that were there before are there still and only ours was deleted: only ours was meant. Left alone. Tables that
  the same transaction made do not count: a firewall's file begins with `flush ruleset` and goes on with its own.
- Ours was the only table: the command line of the process behind the transaction decides. If it names `nftcni` (as in
  `nft delete table inet nftcni`), it is left alone. The kernel numbers it as the initial PID namespace does, so in a
  container of its own `watch` takes this case for a flush.
- More than OFTEN restores within WHILE seconds: somebody means it. Left alone. (A restart of nftables.service flushes
  twice, once at its stop and once at its start.)

A ruleset that was saved to a file and is loaded again brings our table of before back: it is put right.

"Left alone" lasts until the table is back, by the next ADD or by `nftcni repair`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time

from nft import wire
from nft.names import TABLE
from nft.table import Table

from .errors import CniError
from .netlink import NETLINK_NETFILTER, Netlink

NFNLGRP_NFTABLES = 7
OFTEN, WHILE = 3, 10.0


def follow() -> int:
    """Until it is interrupted. One line on stdout for everything it does or decides not to do."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a journal must not wait for a full block
    events = Netlink(NETLINK_NETFILTER)
    events.join(NFNLGRP_NFTABLES)
    with contextlib.suppress(OSError):
        os.nice(-10)  # to look at the process behind a transaction before it has ended
    watcher = Watcher()
    watcher.look("the table was missing at the start")
    say("watching")
    while True:
        try:
            for kind, payload in events.events():
                watcher.notice(kind, payload)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            watcher.look("the table went away in a burst of changes")


class Watcher:
    """Collects what one transaction deleted, decides at its end, remembers when it restored."""

    def __init__(self) -> None:
        self.deleted: set[str] = set()
        self.made: set[str] = set()
        self.restores: list[float] = []

    def notice(self, kind: int, payload: bytes) -> None:
        if kind == wire.DELTABLE:
            self.deleted.add(wire.read_table_name(payload))
        elif kind == wire.NEWTABLE:
            self.made.add(wire.read_table_name(payload))
        elif kind == wire.NEWGEN:
            if TABLE in self.deleted | self.made:
                words = _command_line(wire.read_generation_process(payload))
                if _is_missing():
                    self._decide(words)
                elif TABLE in self.made and _is_wrong():
                    self._restore_unless_often("a table inet nftcni of before was loaded")
            self.deleted, self.made = set(), set()

    def look(self, why: str) -> None:
        """Without events to go by: what is missing is restored."""
        self.deleted, self.made = set(), set()
        if _is_missing():
            self._restore(why)

    def _decide(self, words: str) -> None:
        others = set(Table().names()) - {TABLE} - self.made
        if others and self.deleted == {TABLE}:
            say("the table was deleted and others were left: on purpose, left alone")
        elif self.deleted == {TABLE} and TABLE in words:
            say("the table was deleted by name: on purpose, left alone")
        else:
            self._restore_unless_often("the table was flushed")

    def _restore_unless_often(self, why: str) -> None:
        if len([when for when in self.restores if when > time.monotonic() - WHILE]) >= OFTEN:
            say(f"{why} {OFTEN} times within {WHILE:.0f} s: on purpose, left alone")
        else:
            self._restore(why)

    def _restore(self, why: str) -> None:
        from .operator import mend, open_host

        say(why)
        self.restores = [*self.restores[-OFTEN:], time.monotonic()]
        host = open_host()
        try:
            mend(host)
        except CniError as error:
            say(f"could not be restored: {error}")
        finally:
            host.close()


def _command_line(process: int) -> str:
    """nft still lives when its event arrives: closing its socket waits for the kernel to free what it deleted."""
    try:
        with open(f"/proc/{process}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read().replace("\0", " ")
    except OSError:
        return ""


def _is_missing() -> bool:
    """Missing only counts while there is something to keep in it."""
    from .operator import open_host

    host = open_host()
    try:
        return host.state.has_records() and host.table.comment() is None
    finally:
        host.close()


def _is_wrong() -> bool:
    """Also after a rebuild of our own, which finds nothing."""
    from .operator import open_host, table_differences

    host = open_host()
    try:
        return bool(table_differences(host))
    finally:
        host.close()


def say(message: str) -> None:
    sys.stdout.write(f"nftcni watch: {message}\n")
