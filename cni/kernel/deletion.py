"""Removes links without waiting until the kernel has finished: a forked child waits for that, and nobody waits for it.

The kernel closes a link, takes it off its lists, and then waits for grace periods; the last one ends 15-35 ms after the
link is gone for everybody (unregister_netdevice_many_notify, netdev_run_todo). The child sits in that system call while
the parent watches the link disappear. The kernel may keep the child for long ("waiting for veth to become free"), so
the child gives up whatever others wait for: the runtime's descriptors, and the lock, which it shares if it was forked
under it. `pair` makes links.
"""

from __future__ import annotations

import posix
import time

from cni.kernel import rtnetlink
from cni.kernel.links import link_index, read_link
from cni.protocol.errors import CniError, kernel_refused
from nft.errors import KernelError
from nft.framing import message, messages
from nft.netlink import Netlink, is_missing
from nft.system import FILE_TYPE, SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cni.model.attachment import Attachment

GROUP = 0x6E667463  # "nftc": links of one GC, deleted by one message
LEAVING = 0x6E667464  # links that a DEL has set down; the first DEL that removes any of them removes them all
DEADLINE = 5.0  # seconds; a rtnl lock held that long by somebody else is worth an error
POLL = 0.0002
PIPE = 1 << 16  # bytes; what it holds, and more than any list of links here
FREED = 0.1  # seconds; a grace period, after which the kernel frees elements (nf_tables_trans_destroy_work)


def _nothing() -> None:
    pass


class Remover:
    """The child. If it is made before the lock is taken, it never has it. It waits until `tell` names the links.

    If it is told nothing, it keeps its parent's sockets open until the kernel has freed the deleted elements. Closing
    an nfnetlink socket earlier waits for that, 15 ms, and makes everybody else's transaction wait as well.
    """

    def __init__(self) -> None:
        """Raises CniError 5."""
        try:
            reader, self._writer = posix.pipe()
            self.child = posix.fork()
        except OSError as error:
            raise kernel_refused("starting a process that removes links", error) from None
        if self.child == 0:
            _live(reader)
        posix.close(reader)

    def tell(self, payloads: list[bytes]) -> None:
        """Each payload is that of one RTM_DELLINK."""
        try:
            posix.write(self._writer, b"".join(message(rtnetlink.RTM_DELLINK, 0, 0, payload) for payload in payloads))
        except BrokenPipeError:
            return  # the child has died; `_wait` sees that
        posix.close(self._writer)


def set_leaving(rtnl: Netlink, name: str) -> None:
    """Sets the link down, so that nothing passes any more, and puts it into the group LEAVING. A missing link has left
    already."""
    try:
        index = link_index(name)
        if index:
            rtnl.ask(rtnetlink.RTM_SETLINK, rtnetlink.set_down(index, LEAVING))
    except OSError as error:
        if not is_missing(error):
            raise


def remove_links(
    names: list[str],
    meanwhile: Callable[[], None] = _nothing,
    remover: Remover | None = None,
    leaving: Sequence[str] = (),
) -> bool:
    """Returns once none of the links exists, with whether any did. `meanwhile` is called in any case, while the kernel
    works. `leaving` are links that `set_leaving` was called for: their whole group goes with them, in one wait of the
    kernel. Raises CniError 5."""
    indexes = {name: link_index(name) for name in (*names, *leaving)}
    present = [name for name, index in indexes.items() if index]
    # By index: if the link goes by itself, the child may come late, and its name may be another link's by then.
    payloads = [rtnetlink.link_at(indexes[name]) for name in present if name not in leaving]
    if len(payloads) < len(present):
        payloads.append(rtnetlink.group(LEAVING))
    if not payloads:
        meanwhile()
        return False
    remover = remover or Remover()
    remover.tell(payloads)
    meanwhile()
    _wait(present, remover.child)
    return True


def remove_group(rtnl: Netlink, names: list[str], remover: Remover | None = None) -> None:
    """Removes many links in one wait of the kernel. Raises CniError 5."""
    for link in map(read_link, rtnl.dump(rtnetlink.RTM_GETLINK, rtnetlink.IFINFO.pack(0, 0, 0, 0, 0))):
        if link.group == GROUP and link.name not in names:  # left by a GC that was killed, and maybe valid by now
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


def remove_moved(item: Attachment) -> None:
    """Removes the attachment's pair if the host's end is not where the record says. Nobody moves the link of an ADD at
    work, which may have failed for lack of descriptors. Raises OSError."""
    if item.done and item.kind.own_link and not link_index(item.link):
        from cni.kernel.far_end import remove_far_end

        remove_far_end(item)


def keep_sockets_open() -> None:
    """For a DEL that has deleted elements but no link: the kernel has yet to free the elements."""
    try:
        Remover()
    except CniError:
        return  # the exit only takes longer


def _live(reader: int) -> None:
    """Is the child. Its exit status is the errno."""
    status = 255
    try:
        _let_go(reader)
        told = posix.read(reader, PIPE)
        posix.close(reader)
        if told:
            status = _remove([payload for _kind, _flags, _sequence, payload in messages(told)])
        else:
            time.sleep(FREED)
            status = 0
    except OSError as error:
        status = min(error.errno or 255, 255)
    finally:
        posix._exit(status)


def _remove(payloads: list[bytes]) -> int:
    """Removes all of them side by side, as each removal waits for its own grace periods. Returns the errno or 0."""
    others = []
    for payload in payloads[1:]:
        other = posix.fork()
        if other == 0:
            posix._exit(_remove([payload]))
        others.append(other)
    status = 0
    try:
        Netlink().ask(rtnetlink.RTM_DELLINK, payloads[0])
    except OSError as error:
        status = 0 if is_missing(error) else min(error.errno or 255, 255)
    return max([status, *(posix.waitstatus_to_exitcode(posix.waitpid(other, 0)[1]) for other in others)])


def _let_go(kept: int) -> None:
    """Closes what the runtime waits for, and the lock. The netlink sockets stay open: whoever closes the table's last
    waits 10 ms or more, until the kernel has freed what was deleted, and that must not be the parent."""
    null = posix.open("/dev/null", posix.O_RDWR)
    for descriptor in (0, 1, 2):
        posix.dup2(null, descriptor)
    for name in posix.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and int(name) != kept and posix.fstat(int(name)).st_mode & FILE_TYPE != SOCKET:
                posix.close(int(name))
        except OSError:  # the listing's own descriptor
            continue


def _wait(names: list[str], child: int) -> None:
    """Returns, with `names` emptied, once the kernel lists none of them. A link that is off the lists is closed; making
    another one of that name waits for the rtnl lock, which the removal holds. The child is looked at first: a link that
    is there after the child has ended will stay."""
    end = time.monotonic() + DEADLINE
    running = True
    while True:
        if running:
            pid, status = posix.waitpid(child, posix.WNOHANG)
            if pid:
                running = False
                number = posix.waitstatus_to_exitcode(status)
                if number > 0:
                    raise kernel_refused(f"removing the link {names[0]}", KernelError(number, posix.strerror(number)))
        while not link_index(names[-1]):
            names.pop()
            if not names:
                return
        if not running or time.monotonic() > end:
            why = f"waited {DEADLINE:.0f} s for the kernel" if running else "the process that removes it has ended"
            raise kernel_refused(f"removing the link {names[0]}", KernelError(16, "the link is still there"), why)
        time.sleep(POLL)
