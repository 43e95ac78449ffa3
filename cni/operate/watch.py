"""Follow the kernel's nf_tables events and restore the table right after somebody flushed it.

In the kernel's events, a flush and a deletion on purpose look alike: one "table deleted" for each table. These rules
tell them apart, and the administrator always wins:

- If only our table was deleted and others are left, somebody meant ours, and it is left alone. Tables that the same
  transaction made do not count, because a firewall's file begins with `flush ruleset` and goes on with its own table.
  Nor do tables with an owner, which no flush can delete (firewalld's).
- If ours was the only table, the command line of the process behind the transaction decides. If it names `nftcni` (as
  in `nft delete table inet nftcni`), the table is left alone. The kernel tells the process's number in the initial PID
  namespace, so in a container `watch` takes this case for a flush.
- After more than three restores within ten seconds, somebody means it, and the table is left alone. (A restart of
  nftables.service flushes twice, at its stop and at its start.)

A saved ruleset that is loaded again, also over the table, brings old elements of ours back; that is put right.
firewalld makes its table again when it is started or reloaded, and has then forgotten which addresses are in its zones,
so it is told again.

A table stays left alone until it is back, by the next ADD or by `nftcni repair`, or until `watch` is started again.
`watch` ignores changes inside the table, because only somebody who names the table can make them.
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

HELP = "restore the table right after somebody flushed it"
EXAMPLES = ("systemctl enable --now nftcni-watch", "nftcni watch")
NFNLGRP_NFTABLES = 7
OFTEN, WHILE = 3, 10.0
RULES = 50  # nobody adds so many to our table, which has more, but a saved ruleset
PAUSES = (0, 1, 2, 4, 8)  # seconds before each try: somebody may hold the lock, or be upgrading nft
FIREWALLD = (messages.NFPROTO_INET, "firewalld")
OURS, LAYER2 = (messages.NFPROTO_INET, TABLE), (messages.NFPROTO_BRIDGE, TABLE)


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """Adds nothing: the command has no arguments."""


def run(_arguments: argparse.Namespace) -> int:
    return follow()


def follow() -> int:
    """Runs until it is interrupted. Prints one line for everything that it does or decides not to do."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a journal must not wait for a full block
    events = _listen()
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)  # so that the process behind a transaction has not ended when we look
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
            events = _listen()  # the old socket may hold only the second half of a transaction
            watcher.look("the table went away in a burst of changes")


def _listen() -> Netlink:
    """Subscribes to nf_tables' events. pyroute2 reads them as well, but the service would take 32 MB instead of 14."""
    events = Netlink(NETLINK_NETFILTER)
    events.join(NFNLGRP_NFTABLES)
    return events


class Watcher:
    """Knows the host's tables, collects what a transaction did to them, decides at its end, and remembers its restores.
    Tables are keyed by (family, name); the value says whether they have an owner."""

    def __init__(self) -> None:
        self.tables: dict[tuple[int, str], bool] = {}
        self.deleted: set[tuple[int, str]] = set()
        self.made: dict[tuple[int, str], bool] = {}
        self.rules = 0  # that were added to our table
        self.left_alone = False
        self.restores: list[float] = []
        self.teller: Teller | None = None

    def notice(self, kind: int, payload: bytes) -> None:
        """Takes in one event of nf_tables; at the end of a transaction it decides."""
        if kind == messages.DELTABLE:
            self.deleted.add(messages.read_table(payload)[0])
        elif kind == messages.NEWTABLE:
            self.made.update([messages.read_table(payload)])
        elif kind == messages.NEWRULE:
            self.rules += messages.read_rule_table(payload) == OURS
        elif kind == messages.NEWGEN:
            deleted, made, loaded = self.deleted, self.made, self.rules >= RULES
            self.deleted, self.made, self.rules = set(), {}, 0
            for table in deleted:
                self.tables.pop(table, None)
            self.tables.update(made)
            if OURS in made:
                self.left_alone = False
                self._put_right("an old table inet nftcni was loaded")
            elif loaded:
                self._put_right("a saved ruleset was loaded over the table")
            elif OURS in deleted:
                others = {table for table, owned in self.tables.items() if not owned} - made.keys() - {LAYER2}
                self._decide(
                    deleted <= {OURS, LAYER2}, others, _command_line(messages.read_generation_process(payload))
                )
            if FIREWALLD in made:
                self._join_zones()

    def look(self, why: str) -> None:
        """Looks at the tables after events were lost: restores a missing one, unless it was left alone."""
        self.deleted, self.made, self.rules = set(), {}, 0
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
        """Restores the table. Does nothing if it is what the records say, after our own rebuild or with nobody
        attached."""
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
    """The command line of a process, "" if it has ended. nft still lives when its event arrives, because closing its
    socket waits until the kernel has freed what it deleted."""
    try:
        with open(f"/proc/{process}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read().replace("\0", " ")
    except OSError:
        return ""


def say(message: str) -> None:
    sys.stdout.write(f"nftcni watch: {message}\n")
