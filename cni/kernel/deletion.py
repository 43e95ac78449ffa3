"""Taking links away without waiting for the kernel to finish: the wait is left to a child that nobody waits for.

The kernel closes a link, takes it off its lists, and then waits for grace periods, the last one 15-35 ms after the link
is gone for everybody (unregister_netdevice_many_notify, netdev_run_todo); a forked child sits there, the parent watches
the link disappear. The child has no descriptor of the runtime's, which waits for the end of stdout, nor the lock's: the
kernel may keep it for long ("waiting for veth to become free"), and whoever kills the parent meanwhile must not find
every container of the host locked. Making links is `links`.
"""

from __future__ import annotations

import os
import time
from stat import S_ISSOCK

from cni.kernel import rtnetlink
from cni.kernel.links import get_link, is_listed, read_link
from cni.protocol.errors import kernel_refused
from nft.errors import KernelError
from nft.netlink import Netlink, is_missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

GROUP = 0x6E667463  # "nftc": links of one GC, deleted by one message
DEADLINE = 5.0  # seconds; a rtnl lock held that long by somebody else is worth an error
POLL = 0.0002
FREED = 0.1  # seconds; a grace period, after which the kernel frees elements (nf_tables_trans_destroy_work)


def _nothing() -> None:
    pass


def remove_links(rtnl: Netlink, names: list[str], meanwhile: Callable[[], None] = _nothing) -> bool:
    """Returns when none of the links exists any more, and whether one did. `meanwhile` is called while the kernel works
    on them, in any case. Raises CniError code 5."""
    present = [name for name in names if get_link(rtnl, name) is not None]
    children = [_delete_in_child(rtnetlink.link_named(name)) for name in present]
    meanwhile()
    if not present:
        return False
    _wait(present, children)
    return True


def remove_group(rtnl: Netlink, names: list[str]) -> None:
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
        _wait(present, [_delete_in_child(rtnetlink.group(GROUP))])


def _delete_in_child(payload: bytes) -> int:
    """The child's process ID. Its exit status is the errno."""
    try:
        child = os.fork()
    except OSError as error:
        raise kernel_refused("starting a process that removes links", error) from None
    if child:
        return child
    status = 255
    try:
        _let_go()
        Netlink().ask(rtnetlink.RTM_DELLINK, payload)
        status = 0
    except OSError as error:
        status = 0 if is_missing(error) else min(error.errno or 255, 255)
    finally:
        os._exit(status)


def keep_sockets_open() -> None:
    """By a child, until the kernel has freed deleted elements by itself. For a deletion that removes no link: whoever
    closes an nfnetlink socket before waits for that, 15 ms, and has everybody else's transaction wait for him."""
    try:
        if os.fork():
            return
    except OSError:
        return  # it only takes longer
    try:
        _let_go()
        time.sleep(FREED)
    finally:
        os._exit(0)


def _let_go() -> None:
    """Of what the runtime waits for, and of the lock. Not of the netlink sockets: the last one to close the table's
    waits 10 ms and more, until the kernel has freed what was deleted, and that shall not be the parent."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and not S_ISSOCK(os.fstat(int(name)).st_mode):
                os.close(int(name))
        except OSError:  # of the listing itself
            continue


def _wait(names: list[str], children: list[int]) -> None:
    """Empties `names`. A link that is off the lists is closed; whoever makes another one of its name waits for the rtnl
    lock that the removal holds. The children are looked at first: a link that is there after all of them have ended is
    not going to go."""
    end = time.monotonic() + DEADLINE
    running = set(children)
    while True:
        for child in list(running):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                running.discard(child)
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
