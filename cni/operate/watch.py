"""Follow the kernel's nf_tables events and restore the table right after somebody flushed it.

A flush and a deletion on purpose look alike to the kernel's event stream, one "table deleted" for each table. They are
told apart like this, and the administrator always wins:

- Tables that were there before are there still and only ours was deleted: only ours was meant. Left alone. Tables that
  the same transaction made do not count: a firewall's file begins with `flush ruleset` and goes on with its own. Nor do
  tables with an owner, which no flush can delete (firewalld's).
- Ours was the only table: the command line of the process behind the transaction decides. If it names `nftcni` (as in
  `nft delete table inet nftcni`), it is left alone. The kernel numbers it as the initial PID namespace does, so in a
  container of its own `watch` takes this case for a flush.
- More than OFTEN restores within WHILE seconds: somebody means it. Left alone. (A restart of nftables.service flushes
  twice, once at its stop and once at its start.)

A ruleset that was saved to a file and is loaded again brings our table of before back: it is put right. firewalld makes
its table anew when it is started or reloaded, and has forgotten by then who joined its zones: it is told again.

"Left alone" lasts until the table is back, by the next ADD or by `nftcni repair`, or until `watch` is started anew.
Changes inside the table are none of its business: they are made by name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time

from cni.protocol.errors import CniError
from nft import messages
from nft.netlink import NETLINK_NETFILTER, Netlink
from nft.schema import TABLE
from nft.table import Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from cni.operate.zones import Teller

HELP = "repair within a moment whenever somebody flushes the table"
EXAMPLES = ("systemctl enable --now nftcni-watch", "nftcni watch")
NFNLGRP_NFTABLES = 7
OFTEN, WHILE = 3, 10.0
PAUSES = (0, 1, 2, 4, 8)  # seconds before each try: somebody may hold the lock, nft may be replaced meanwhile
FIREWALLD = (messages.NFPROTO_INET, "firewalld")
OURS, LAYER2 = (messages.NFPROTO_INET, TABLE), (messages.NFPROTO_BRIDGE, TABLE)


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(_arguments: argparse.Namespace) -> int:
    return follow()


def follow() -> int:
    """Until it is interrupted. One line on stdout for everything it does or decides not to do."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a journal must not wait for a full block
    events = _listen()
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)  # to look at the process behind a transaction before it has ended
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
            events.close()
            events = _listen()  # what the old socket still holds may be the second half of a transaction
            watcher.look("the table went away in a burst of changes")


def _listen() -> Netlink:
    events = Netlink(NETLINK_NETFILTER)
    events.join(NFNLGRP_NFTABLES)
    return events


class Watcher:
    """Knows the tables of the host, collects what one transaction did to them, decides at its end, remembers when it
    restored. Tables are (family, name); the value is whether they have an owner."""

    def __init__(self) -> None:
        self.tables: dict[tuple[int, str], bool] = {}
        self.deleted: set[tuple[int, str]] = set()
        self.made: dict[tuple[int, str], bool] = {}
        self.left_alone = False
        self.restores: list[float] = []
        self.teller: Teller | None = None

    def notice(self, kind: int, payload: bytes) -> None:
        if kind == messages.DELTABLE:
            self.deleted.add(messages.read_table(payload)[0])
        elif kind == messages.NEWTABLE:
            self.made.update([messages.read_table(payload)])
        elif kind == messages.NEWGEN:
            deleted, made = self.deleted, self.made
            self.deleted, self.made = set(), {}
            for table in deleted:
                self.tables.pop(table, None)
            self.tables.update(made)
            if OURS in made:
                self.left_alone = False
                self._put_right("a table inet nftcni of before was loaded")
            elif OURS in deleted:
                others = {table for table, owned in self.tables.items() if not owned} - made.keys() - {LAYER2}
                self._decide(
                    deleted <= {OURS, LAYER2}, others, _command_line(messages.read_generation_process(payload))
                )
            if FIREWALLD in made:
                self._join_zones()

    def look(self, why: str) -> None:
        """Without events to go by: what is missing is restored, unless it was left alone."""
        self.deleted, self.made = set(), {}
        table = Table()
        self.tables = table.tables()
        table.netlink.close()
        if not self.left_alone:
            self._put_right(why)

    def _decide(self, alone: bool, others: set[tuple[int, str]], words: str) -> None:
        if alone and others:
            self._leave_alone("the table was deleted and others were left: on purpose")
        elif alone and TABLE in words:
            self._leave_alone("the table was deleted by name: on purpose")
        else:
            self._put_right("the table was flushed")

    def _leave_alone(self, why: str) -> None:
        self.left_alone = True
        say(f"{why}, left alone")

    def _put_right(self, why: str) -> None:
        """Nothing, where the table is what the records say: after a rebuild of our own, or if nobody is attached."""
        from cni.operate.repair import mend, table_differences, this_host

        for pause in PAUSES:
            time.sleep(pause)
            try:
                host = this_host()
                try:
                    with host.transaction("restoring the table"):
                        items = host.records()
                        if not table_differences(host, items):
                            return
                        if len([when for when in self.restores if when > time.monotonic() - WHILE]) >= OFTEN:
                            self._leave_alone(f"{why} {OFTEN} times within {WHILE:.0f} s: on purpose")
                            return
                        say(why)
                        self.restores = [*self.restores[-OFTEN:], time.monotonic()]
                        mend(host, items)
                        return
                finally:
                    host.close()
            except (CniError, OSError) as error:
                say(f"could not be restored: {error}")

    def _join_zones(self) -> None:
        if self.teller is None:
            from cni.operate.zones import Teller

            self.teller = Teller(say, PAUSES)
        self.teller.start()


def _command_line(process: int) -> str:
    """nft still lives when its event arrives: closing its socket waits for the kernel to free what it deleted."""
    try:
        with open(f"/proc/{process}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read().replace("\0", " ")
    except OSError:
        return ""


def say(message: str) -> None:
    sys.stdout.write(f"nftcni watch: {message}\n")
