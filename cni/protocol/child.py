"""Runs one program to its end: writes its stdin, reads its stdout, and never leaves it running.

`subprocess` will not do: it takes 9 ms to load, and an error in its constructor, after the program has started, leaves
the program running unnoticed, and what it does then comes after the DEL that was to undo it. Nothing here knows what
the program is.
"""

from __future__ import annotations

import posix
import select
import time

from nft.signals import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK = 1 << 16
POLL = 0.0002  # seconds


class TooLong(Exception):
    """The program was killed because it took too long."""


def run(
    program: str,
    data: bytes,
    environment: dict[bytes, bytes],
    seconds: float,
    arguments: Sequence[str] = (),
    with_stderr: bool = False,
) -> tuple[int, bytes]:
    """Returns (exit status, stdout), and what it writes to stderr as well if asked for; a negative status is the signal
    that killed the program. A name without a slash is looked for in our PATH. Raises OSError and TooLong. The program
    has ended in any case."""
    ends = Ends()
    try:
        stdin, feed = ends.pipe()
        answer, stdout = ends.pipe()
        actions = [(posix.POSIX_SPAWN_DUP2, stdin, 0), (posix.POSIX_SPAWN_DUP2, stdout, 1)]
        if with_stderr:
            actions.append((posix.POSIX_SPAWN_DUP2, stdout, 2))
        # Python ignores these two signals, and a program would inherit that.
        defaults = [signals.SIGPIPE, signals.SIGXFSZ]
        words = [program, *arguments]
        process = posix.posix_spawnp(program, words, environment, file_actions=actions, setsigdef=defaults)
        try:
            ends.close(stdin)
            ends.close(stdout)
            end = time.monotonic() + seconds
            output = _converse(ends, feed, answer, data, end)
            return _wait(process, end), output
        except BaseException:
            posix.kill(process, signals.SIGKILL)
            posix.waitpid(process, 0)
            raise
    finally:
        ends.close_all()


class Ends:
    """The ends of pipes that are still open."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def pipe(self) -> tuple[int, int]:
        made = posix.pipe()
        self._open.update(made)
        return made

    def close(self, end: int) -> None:
        self._open.discard(end)
        posix.close(end)

    def close_all(self) -> None:
        while self._open:
            posix.close(self._open.pop())


def _converse(ends: Ends, feed: int, answer: int, data: bytes, end: float) -> bytes:
    """Writes and reads at the same time, because either pipe may fill up while the other side waits."""
    posix.set_blocking(feed, False)
    output = b""
    poll = select.poll()
    poll.register(answer, select.POLLIN)
    poll.register(feed, select.POLLOUT)
    while True:
        left = end - time.monotonic()
        if left <= 0:
            raise TooLong
        for ready, _event in poll.poll(left * 1000):
            if ready == answer:
                part = posix.read(answer, CHUNK)
                if not part:
                    return output
                output += part
                continue
            try:
                data = data[posix.write(feed, data[:CHUNK]) :]
            except BrokenPipeError:  # the program does not read all of its configuration
                data = b""
            if not data:
                poll.unregister(feed)
                ends.close(feed)


def _wait(process: int, end: float) -> int:
    """The exit status. A program that has closed its stdout usually ends at once, but need not. Raises TooLong."""
    while True:
        pid, status = posix.waitpid(process, posix.WNOHANG)
        if pid:
            return posix.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            raise TooLong
        time.sleep(POLL)
