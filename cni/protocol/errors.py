"""The one error type that reaches a runtime, and its codes.

Codes 0-99 belong to the CNI specification ("Error" section of SPEC.md 1.1.0; 8 and 999 are libcni's own); 100 and above
are ours. `spec.error_document` turns an error into JSON; the verbs decide what to do about it.
"""

from __future__ import annotations

from nft.errors import KernelError

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_CONFIG = 7
INVALID_NETNS = 8
TRY_AGAIN_LATER = 11
NOT_READY = 50
NOT_READY_DEGRADED = 51
PORT_TAKEN = 100
NO_FREE_ADDRESS = 101
ADDRESS_TAKEN = 102
IFNAME_TAKEN = 103
CHECK_FAILED = 104
INTERNAL = 999


class CniError(Exception):
    """A failure that the runtime is told about: `msg` says what failed on what; `details` says who holds it or what to
    do.

    Avoid "not found" and "no such file or directory" in either: go-cni takes those for success on DEL
    (containerd/go-cni cni.go, Remove).
    """

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg} ({self.details})" if self.details else self.msg


def kernel_refused(what: str, error: OSError, hint: str = "") -> CniError:
    """An operating system error as a CniError of code 5, which names the step, the errno and what to do about it."""
    import errno
    import os

    if isinstance(error, KernelError):
        what = f"{what}: {error.step}" if error.step else what
    number = error.errno or 0
    name = errno.errorcode.get(number, str(number))
    if not hint and number in (errno.EPERM, errno.EACCES):
        hint = "nftcni needs root with CAP_NET_ADMIN and CAP_SYS_ADMIN in the host's user namespace"
    elif not hint and number in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space there (df -h, df -i); attached containers go on working meanwhile"
    elif not hint and number == errno.EROFS:
        hint = "the file system is read-only: mount -o remount,rw, or see who mounted it so"
    text = "the object is gone" if number == errno.ENOENT else error.strerror or os.strerror(number)
    path = error.filename2 or error.filename  # symlink(2)'s first name is only the link's target
    place = f": {path}" if isinstance(path, str) else ""
    return CniError(IO_FAILURE, f"{what}: {name}: {text}{place}", hint)
