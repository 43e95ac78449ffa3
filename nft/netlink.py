"""Netlink sockets: one request and its answer, listings, transactions, events. Errnos become KernelError.

Framing is in `framing`; callers know what the payloads mean.
"""

from __future__ import annotations

import errno
import posix

from .errors import KernelError
from .framing import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG,
    NLMSG_DONE,
    NLMSG_ERROR,
    attributes,
    last_message,
    message,
    messages,
)
from .stdlib import AF_NETLINK, SO_RCVBUF, SO_SNDBUF, SOCK_CLOEXEC, SOCK_RAW, SOL_SOCKET, Struct, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 1, 10, 11, 12
# Python has no names for these, and some architectures use other numbers (arch/*/include/uapi/asm/socket.h).
SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_NETNS_COOKIE = {
    "mips": (31, 33, 71),
    "spar": (0x100A, 0x100B, 0x50),
    "alph": (0x100A, 0x100B, 71),
    "pari": (0x100A, 0x100B, 0x4045),
}.get(posix.uname().machine[:4], (32, 33, 71))
NLMSGERR_ATTR_MSG = 1
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
RECEIVE = 1 << 16  # bytes; larger than any datagram (32 KiB in a dump), smaller than what makes glibc map memory
DUMP_TRIES = 50
RTM_GETADDR = 22  # include/uapi/linux/rtnetlink.h
ONE_DATAGRAM = 32  # addresses; a listing's first datagram is one page
_ERRNO = Struct("=i")
_COOKIE = Struct("=Q")


class Netlink:
    """One netlink socket. It stays in the network namespace in which it was opened, whatever setns does later."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self.socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
        self.socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self.socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self.socket.bind((0, 0))
        self.sequence = 0
        self._protocol = protocol

    def close(self) -> None:
        self.socket.close()

    def filter_dumps(self) -> None:
        """Makes the kernel list only what the header of a listing's request asks for, for example one interface's
        addresses. Linux before 4.20 lists everything all the same."""
        try:
            self.socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        except OSError:
            return

    def ask(self, kind: int, payload: bytes, flags: int = 0) -> bytes:
        """Sends one request that changes or gets one thing. Returns the reply's payload, b"" for an acknowledgement
        alone. Raises KernelError."""
        self.sequence += 1
        self.socket.send(message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, self.sequence, payload))
        reply = b""
        for answer, answer_flags, sequence, body in self._receive():
            if sequence != self.sequence:
                continue
            if answer == NLMSG_ERROR:
                raise_for(body, answer_flags)
                return reply
            reply = body
        raise AssertionError("unreachable: _receive is endless")

    def ask_in_turn(self, kind: int, payloads: list[bytes]) -> None:
        """Makes several changes by one send, so that no kill comes between them: the kernel goes through all of them
        before the call returns (netlink_rcv_skb). Raises the first error; the other changes are made all the same."""
        first = self.sequence + 1
        self.sequence += len(payloads)
        flags = NLM_F_REQUEST | NLM_F_ACK
        self.socket.send(
            b"".join(message(kind, flags, number, payload) for number, payload in enumerate(payloads, first))
        )
        for answer, answer_flags, sequence, body in self._receive():
            if answer == NLMSG_ERROR and sequence >= first:
                raise_for(body, answer_flags)
                if sequence == self.sequence:
                    return

    def dump(self, kind: int, payload: bytes, containing: Sequence[bytes] = ()) -> list[bytes]:
        """The payloads of a whole listing, or those with one of these byte strings in them. For CHECK, GC, repair and
        recovery; the usual ADD and DEL never list.

        A listing during which something changed may lack an object that was there all along. The kernel says so
        (NLM_F_DUMP_INTR) and we ask again; KernelError EAGAIN is raised if that does not end.

        For addresses the kernel does not always say so: it resumes at an address's position in the list, which a
        deletion shifts at once, and counts the change only after the routes are gone (__inet_del_ifa,
        fib_inetaddr_event). So long address lists are asked for until nothing new comes; the result may hold addresses
        that were deleted meanwhile.
        """
        by_position = (self._protocol, kind) == (NETLINK_ROUTE, RTM_GETADDR)
        whole: dict[bytes, None] = {}
        for _ in range(DUMP_TRIES):
            found = self._dump_once(kind, payload, containing)
            if found is None:
                continue
            known = len(whole)
            whole.update(dict.fromkeys(found))
            if not by_position or len(found) <= ONE_DATAGRAM or len(whole) == known:
                return [*whole] if known else found
        raise KernelError(errno.EAGAIN, f"the kernel's listing changed {DUMP_TRIES} times while it was read")

    def _dump_once(self, kind: int, payload: bytes, containing: Sequence[bytes]) -> list[bytes] | None:
        """The payloads, None for an interrupted listing. That is read to its end too: a socket has one dump at a
        time."""
        self.sequence += 1
        self.socket.send(message(kind, NLM_F_REQUEST | NLM_F_DUMP, self.sequence, payload))
        found: list[bytes] = []
        interrupted = False
        for answer, flags, sequence, body in self._receive(containing):
            if sequence != self.sequence:
                continue
            interrupted |= bool(flags & NLM_F_DUMP_INTR)
            if answer in (NLMSG_DONE, NLMSG_ERROR):
                if interrupted:
                    return None
                if body:  # the last message holds the errno if the listing failed (netlink_dump_done)
                    raise_for(body, flags)
                return found
            if not containing or any(part in body for part in containing):
                found.append(body)
        raise AssertionError("unreachable: _receive is endless")

    def transact(self, batch: list[bytes], sequences: range) -> list[KernelError]:
        """Sends an nfnetlink batch in one piece. Returns the errors in message order; none means all of it took effect.

        `sequences` runs from the batch's begin message to its last change, which must ask for an acknowledgement,
        because that is sent after the commit.
        """
        data = b"".join(batch)
        if len(data) > 1 << 16:
            self._enlarge(2 * len(data))
        self.socket.send(data)
        errors = []
        for answer, flags, sequence, body in self._receive():
            if answer != NLMSG_ERROR or sequence not in sequences:
                continue
            try:
                raise_for(body, flags)
            except KernelError as error:
                error.sequence = sequence
                errors.append(error)
            # The kernel answers the batch's begin message only if it refuses the whole batch.
            if sequence == sequences[0] or sequence == sequences[-1]:
                return errors
        raise AssertionError("unreachable: _receive is endless")

    def _enlarge(self, size: int) -> None:
        """Enlarges the send buffer; in a user namespace, net.core.wmem_max limits it."""
        for forced, plain in ((SO_SNDBUFFORCE, SO_SNDBUF), (SO_RCVBUFFORCE, SO_RCVBUF)):
            try:
                self.socket.setsockopt(SOL_SOCKET, forced, size)
            except PermissionError:
                self.socket.setsockopt(SOL_SOCKET, plain, size)

    def join(self, group: int) -> None:
        """Subscribes to a multicast group; `events` then yields what happens."""
        self.socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def events(self) -> Iterator[tuple[int, bytes]]:
        """Yields (type, payload) of events without end. Raises OSError ENOBUFS when some were lost."""
        for kind, _flags, _sequence, body in self._receive():
            yield kind, body

    def _receive(self, containing: Sequence[bytes] = ()) -> Iterator[tuple[int, int, int, bytes]]:
        while True:
            data = self.socket.recv(RECEIVE)
            if containing and not any(part in data for part in containing):
                yield last_message(data)  # of 100 000 flows, taking each message apart takes 0.4 s more
            else:
                yield from messages(data)

    def netns_cookie(self) -> int:
        """A number that no other network namespace has had since boot; before Linux 5.14, the namespace's inode."""
        try:
            return int(_COOKIE.unpack(self.socket.getsockopt(SOL_SOCKET, SO_NETNS_COOKIE, 8))[0])
        except OSError:
            return posix.stat("/proc/thread-self/ns/net").st_ino


def raise_for(body: bytes, flags: int) -> None:
    """Raises KernelError if an NLMSG_ERROR payload holds an errno, with the kernel's own words if it gave any."""
    number = -_ERRNO.unpack_from(body)[0]
    if number == 0:
        return
    reason = posix.strerror(number)
    if flags & NLM_F_ACK_TLVS:
        (length,) = Struct("=I").unpack_from(body, 4)
        skip = 4 + (NLMSG.size if flags & NLM_F_CAPPED else (length + 3) & ~3)
        words = attributes(body, skip).get(NLMSGERR_ATTR_MSG)
        if words:
            reason = words.rstrip(b"\0").decode("utf-8", "replace")
    raise KernelError(number, reason)


def is_missing(error: OSError) -> bool:
    """Whether the object to change or delete does not exist (ENODEV for links, ENOENT and ESRCH for others)."""
    return error.errno in (errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL)
