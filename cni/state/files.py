"""File operations that are atomic or repeatable, and the lock with a bounded wait. `store` says what is kept."""

from __future__ import annotations

import errno
import posix

from cni.protocol.errors import TRY_AGAIN_LATER, CniError
from cni.protocol.log import say
from nft.system import folder_of, is_folder, is_link, make_folders, same_file

LOCK_SECONDS = 15.0


def try_flock(file: int, shared: bool = False) -> bool:
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def flock(file: int, path: str, seconds: float = LOCK_SECONDS) -> None:
    """A blocking flock, which the kernel grants in order. A timer limits it, as Python would retry after EINTR."""
    if try_flock(file):
        return
    import fcntl

    from nft.signals import signals

    def too_long(_number: int, _frame: object) -> None:
        raise CniError(
            TRY_AGAIN_LATER,
            f"waited {seconds:.0f} s for {path}, which another nftcni process holds",
            "see who holds it with: fuser -v " + path,
        )

    before = signals.signal(signals.SIGALRM, too_long)
    signals.setitimer(signals.ITIMER_REAL, seconds)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    finally:
        signals.setitimer(signals.ITIMER_REAL, 0)
        signals.signal(signals.SIGALRM, before)


def lock(folder: str, name: str, queued: bool = False) -> int:
    """Returns the locked file's descriptor, -1 if the folder is a link that leads nowhere. Makes file and folder. While
    we waited, the file may have been deleted with its folder; its lock keeps nobody out then, so we try again. With
    `queued`, `has_queue` is true while we wait."""
    path = f"{folder}/{name}"
    while True:
        try:
            file = posix.open(path, posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            if is_link(folder):
                return -1
            make_folders(folder, 0o700)
            continue
        try:
            if not try_flock(file):
                waiting = _join_queue(folder) if queued else -1
                try:
                    flock(file, path)
                finally:
                    if waiting >= 0:
                        posix.close(waiting)
            if _is_same(file, path):
                return file
        except BaseException:
            posix.close(file)
            raise
        posix.close(file)


def _join_queue(folder: str) -> int:
    """Opens the folder and takes a shared flock on it, by which others see that we wait. Returns -1 for an error:
    nobody depends on it."""
    queue = _open_queue(folder)
    try:
        if queue >= 0:
            try_flock(queue, shared=True)  # refused while somebody asks `has_queue`
    except OSError:
        pass
    return queue


def _open_queue(folder: str) -> int:
    try:
        return posix.open(folder, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError:
        return -1


def has_queue(folder: str) -> bool:
    """Whether a process waits for a `queued` lock in the folder."""
    queue = _open_queue(folder)
    if queue < 0:
        return False
    try:
        return not try_flock(queue)
    except OSError:
        return False
    finally:
        posix.close(queue)


def wait_for_queue(folder: str, seconds: float) -> None:
    """Returns once no process waits for a `queued` lock in the folder, or after so many seconds."""
    queue = _open_queue(folder)
    if queue < 0:
        return
    try:
        flock(queue, folder, seconds)
    except (CniError, OSError):
        return
    finally:
        posix.close(queue)


def decide(usual: str, folder: str) -> str:
    """Returns the folder that the path `usual` stands for: itself, or where it leads. If there is nothing, `usual`
    becomes a link to `folder`. All processes agree, as one at a time decides."""
    parent = folder_of(usual)
    make_folders(parent, 0o700)
    gate = posix.open(parent, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        flock(gate, parent)
        if is_folder(usual):
            return posix.readlink(usual) if is_link(usual) else usual
        unlink(usual)  # its folder was removed
        make_folders(folder, 0o700)
        if folder != usual:
            posix.symlink(folder, usual)
        return folder
    finally:
        posix.close(gate)


def _is_same(file: int, path: str) -> bool:
    try:
        return same_file(file, path)
    except FileNotFoundError:
        return False


def unlock(file: int) -> None:
    """Unlocks, then closes: closing alone keeps the lock if a child was forked meanwhile (`cni.kernel.deletion`)."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_UN)
    except OSError as error:  # closing it does the same once the child has ended
        say(f"giving up the lock: {error.strerror}")
    posix.close(file)


def point(target: str, path: str) -> None:
    """Makes a symbolic link in place of a leftover. The caller has made sure that nobody uses that."""
    try:
        posix.symlink(target, path)
    except FileExistsError:
        unlink(path)
        posix.symlink(target, path)


def read(path: str) -> str:
    """The target of a link or the text of a small file, "" if it is missing."""
    try:
        return posix.readlink(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def write(path: str, text: str) -> None:
    """Writes a whole file. Not atomic: readers must accept half a file, or a rename gives it its name later."""
    data = text.encode("utf-8", "surrogateescape")
    file = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_CLOEXEC, 0o600)
    try:
        while data:
            data = data[posix.write(file, data) :]
    except OSError as error:
        error.filename = path  # write(2) knows the descriptor alone
        raise
    finally:
        posix.close(file)


def unlink(path: str) -> None:
    try:
        posix.unlink(path)
    except FileNotFoundError:
        return


def rmdir(path: str) -> bool:
    try:
        posix.rmdir(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        if error.errno != errno.ENOENT:
            raise
    return True
