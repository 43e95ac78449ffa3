"""The C modules below `json` and `ctypes`, each with the public module as its fall-back.

`json` costs 6 ms of a start-up that takes 8 because it loads `re`; `ctypes` costs 1.2. CPython's private modules
change: since 3.15 the scanner also reads `array_hook`. So ANY exception leads to the public module. `nft.stdlib` has
sockets and hashes, `nft.signals` signals.
"""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

try:
    from _json import encode_basestring_ascii
except Exception:
    from json.encoder import encode_basestring_ascii

__all__ = ["encode_basestring_ascii", "json_scanner", "setns"]

CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h


def json_scanner(
    parse_float: Callable[[str], float], parse_constant: Callable[[str], Any]
) -> Callable[[str, int], tuple[Any, int]]:
    """A function from (text, start) to (value, end). It raises ValueError for text that is not JSON, StopIteration if
    there is no value."""

    class Context:
        """The attributes that the C scanner reads, in place of a JSONDecoder."""

        strict = True
        object_hook = object_pairs_hook = array_hook = None
        parse_int = int
        memo: dict[str, str] = {}

    Context.parse_float = staticmethod(parse_float)  # type: ignore[attr-defined]
    Context.parse_constant = staticmethod(parse_constant)  # type: ignore[attr-defined]
    try:
        from _json import make_scanner

        scan: Callable[[str, int], tuple[Any, int]] = make_scanner(Context)  # type: ignore[arg-type]
        if scan('{"a":[0.5,""]}', 0) == ({"a": [0.5, ""]}, 14):
            return scan
    except Exception:  # whatever it was, the public module does not share it
        pass
    from json import JSONDecoder

    return JSONDecoder(parse_float=parse_float, parse_constant=parse_constant).scan_once  # type: ignore[attr-defined, no-any-return]


def setns(fd: int) -> None:
    """Moves this thread into the network namespace. Raises OSError, EINVAL for another kind of namespace."""
    if hasattr(posix, "setns"):  # Python 3.12
        posix.setns(fd, CLONE_NEWNET)
        return
    number = _library_setns(fd)
    if number:
        raise OSError(number, posix.strerror(number))


def _library_setns(fd: int) -> int:
    """The C library's setns(2). Returns 0 or the errno."""
    try:
        import _ctypes

        bare: Any = _ctypes
        address = bare.dlsym(bare.dlopen(None, 0), "setns")
        # Without a class for the function it takes 0.1 ms less, but does not tell the errno.
        if bare.call_function(address, (fd, CLONE_NEWNET)) == 0:
            return 0

        class Int(bare._SimpleCData):  # type: ignore[misc]
            _type_ = "i"

        class Function(bare.CFuncPtr):  # type: ignore[misc]
            _flags_ = bare.FUNCFLAG_CDECL | bare.FUNCFLAG_USE_ERRNO
            _restype_ = Int

        call = Function(address)
        return int(bare.get_errno()) if call(fd, CLONE_NEWNET) else 0
    except Exception:
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        return ctypes.get_errno() if library.setns(fd, CLONE_NEWNET) else 0
