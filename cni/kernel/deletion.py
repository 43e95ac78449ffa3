"""Taking links away without waiting for the kernel to finish: the wait is left to a child that nobody waits for.

The kernel closes a link, takes it off its lists, and then waits for grace periods, the last one 15-35 ms after the link
is gone for everybody (unregister_netdevice_many_notify, netdev_run_todo); a forked child sits there, the parent watches
the link disappear. The kernel may keep the child for long ("waiting for veth to become free"), so it holds nothing that
others wait for: none of the runtime's descriptors, and not the lock, which it shares if it is forked under it. Making
links is `links`.
"""

from __future__ import annotations

import os
import time
from stat import S_ISSOCK

from cni.kernel import rtnetlink
from cni.kernel.links import is_listed, read_link
from cni.protocol.errors import CniError, kernel_refused
from nft.errors import KernelError
from nft.framing import message, messages
from nft.netlink import Netlink, is_missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GROUP = 0x6E667463  # "nftc": links of one GC, deleted by one message
LEAVING = 0x6E667464  # links whose DEL has set them down; whichever DEL is the first to come to it removes them all
DEADLINE = 5.0  # seconds; a rtnl lock held that long by somebody else is worth an error
POLL = 0.0002
PIPE = 1 << 16  # bytes; what it holds, and more than any list of links here
FREED = 0.1  # seconds; a grace period, after which the kernel frees elements (nf_tables_trans_destroy_work)


def _nothing() -> None:
    pass


class Remover:
    """The child. Made before the lock is taken it has never had it; it waits until it is told which links.

    Told nothing, it keeps the sockets of its parent open until the kernel has freed deleted elements by itself: whoever
    closes an nfnetlink socket before waits for that, 15 ms, and has everybody else's transaction wait for him.
    """

    def __init__(self) -> None:
        """Raises CniError code 5."""
        try:
            reader, self._writer = os.pipe()
            self.child = os.fork()
        except OSError as error:
            raise kernel_refused("starting a process that removes links", error) from None
        if self.child == 0:
            _live(reader)
        os.close(reader)

    def tell(self, payloads: list[bytes]) -> None:
        """Of one RTM_DELLINK each."""
        try:
            os.write(self._writer, b"".join(message(rtnetlink.RTM_DELLINK, 0, 0, payload) for payload in payloads))
        except BrokenPipeError:
            return  # it has died; whoever waits for the links sees that
        os.close(self._writer)


def set_leaving(rtnl: Netlink, name: str) -> None:
    """Down, at once for whoever sits behind it, and in the group LEAVING; a link that is missing has left."""
    try:
        if is_listed(name):
            rtnl.ask(rtnetlink.RTM_SETLINK, rtnetlink.set_down(name, LEAVING))
    except OSError as error:
        if not is_missing(error):
            raise


def remove_links(
    names: list[str],
    meanwhile: Callable[[], None] = _nothing,
    remover: Remover | None = None,
    leaving: Sequence[str] = (),
) -> bool:
    """Returns when none of the links exists any more, and whether one did. `meanwhile` is called while the kernel works
    on them, in any case. `leaving` are those that `set_leaving` was told: with them goes the whole group, by one wait.
    Raises CniError code 5."""
    present = list(filter(is_listed, names))
    payloads = [rtnetlink.link_named(name) for name in present]
    grouped = list(filter(is_listed, leaving))
    if grouped:
        payloads.append(rtnetlink.group(LEAVING))
    if not payloads:
        meanwhile()
        return False
    remover = remover or Remover()
    remover.tell(payloads)
    meanwhile()
    _wait(present + grouped, remover.child)
    return True


def remove_group(rtnl: Netlink, names: list[str], remover: Remover | None = None) -> None:
    """The same for many links: one wait of the kernel for all of them."""
    for link in map(read_link, rtnl.dump(rtnetlink.RTM_GETLINK, rtnetlink.IFINFO.pack(0, 0, 0, 0, 0))):
        if link.group == GROUP and link.name not in names:  # of a GC that was killed; it may be wanted again by now
            rtnl.ask(rtnetlink.RTM_SETLINK, rtnetlink.set_group(link.name, 0))
    present = []
    for name in names:
        try:
            rtnl.ask(rtnetlink.RTM_SETLINK, rtnetlink.set_group(name, GROUP))
            present.append(name)
        except OSError as error:
            if not is_missing(error):
                raise kernel_refused(f"removing the link {name}", error) from None
    if present:
        remover = remover or Remover()
        remover.tell([rtnetlink.group(GROUP)])
        _wait(present, remover.child)


def keep_sockets_open() -> None:
    """After a deletion that removes no link, whose elements the kernel has yet to free."""
    try:
        Remover()
    except CniError:
        return  # it only takes longer


def _live(reader: int) -> None:
    """Of the child. Its exit status is the errno."""
    status = 255
    try:
        _let_go(reader)
        told = os.read(reader, PIPE)
        os.close(reader)
        if told:
            status = _remove([payload for _kind, _flags, _sequence, payload in messages(told)])
        else:
            time.sleep(FREED)
            status = 0
    except OSError as error:
        status = min(error.errno or 255, 255)
    finally:
        os._exit(status)


def _remove(payloads: list[bytes]) -> int:
    """All at once: each removal waits for grace periods of its own. The errno, 0 for none."""
    others = []
    for payload in payloads[1:]:
        other = os.fork()
        if other == 0:
            os._exit(_remove([payload]))
        others.append(other)
    status = 0
    try:
        Netlink().ask(rtnetlink.RTM_DELLINK, payloads[0])
    except OSError as error:
        status = 0 if is_missing(error) else min(error.errno or 255, 255)
    return max([status, *(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) for other in others)])


def _let_go(kept: int) -> None:
    """Of what the runtime waits for, and of the lock. Not of the netlink sockets: the last one to close the table's
    waits 10 ms and more, until the kernel has freed what was deleted, and that shall not be the parent."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and int(name) != kept and not S_ISSOCK(os.fstat(int(name)).st_mode):
                os.close(int(name))
        except OSError:  # of the listing itself
            continue


def _wait(names: list[str], child: int) -> None:
    """Empties `names`. A link that is off the lists is closed; whoever makes another one of its name waits for the rtnl
    lock that the removal holds. The child is looked at first: a link that is there after it has ended is not going to
    go."""
    end = time.monotonic() + DEADLINE
    running = True
    while True:
        if running:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                running = False
                number = os.waitstatus_to_exitcode(status)
                if number > 0:
                    raise kernel_refused(f"removing the link {names[0]}", KernelError(number, os.strerror(number)))
        while not is_listed(names[-1]):
            names.pop()
            if not names:
                return
        if not running or time.monotonic() > end:
            why = f"waited {DEADLINE:.0f} s for the kernel" if running else "the process that removes it has ended"
            raise kernel_refused(f"removing the link {names[0]}", KernelError(16, "the link is still there"), why)
        time.sleep(POLL)
