"""Runs one command in nft's language through libnftables, in a child process.

The child is there because released versions of the library crash on some rulesets (nft 1.0.6 on sets that a newer nft
made, in any table of the host), and because the library may call exit(): the runtime still gets its CNI answer. Only
whole tables and chains are loaded here; elements go through `table`.
"""

from __future__ import annotations

import errno
import posix
import sys

from .errors import LoadError
from .signals import signals

INSTALL = "install the distribution's packages nftables and python3-nftables (py3-nftables on Alpine)"


SECONDS = 10  # shorter than others wait for the lock, which the child shares and must not hold after our own end
LOADED = "\nnftcni: loaded"  # the last word of a child that finished; exit status 0 may be the library's own exit(0)


def parse_text(command: str) -> None:
    """Raises LoadError where `run_text` would, as far as the library knows without the kernel. Changes nothing."""
    run_text(command, only_parse=True)


def run_text(command: str, only_parse: bool = False) -> None:
    """Runs one transaction in nft's language. Raises LoadError with nft's own words, or with how the child died."""
    try:
        reader, writer = posix.pipe()
        child = posix.fork()
    except OSError as error:
        raise LoadError(f"starting a process for libnftables: {_named(error)}") from None
    if child == 0:
        posix.close(reader)
        _child(command, only_parse, writer)
    posix.close(writer)
    try:
        with open(reader, encoding="utf-8", errors="replace", newline="") as pipe:
            said = pipe.read()
    except OSError as error:
        posix.kill(child, signals.SIGKILL)  # what it loads after our roll-back would stay
        posix.waitpid(child, 0)
        raise LoadError(f"waiting for libnftables: {_named(error)}") from None
    _, status = posix.waitpid(child, 0)
    code = posix.waitstatus_to_exitcode(status)
    if said.endswith(LOADED):
        return
    if code == -signals.SIGALRM:
        raise LoadError(f"libnftables did not load the table within {SECONDS} s")
    if code < 0:
        raise LoadError(
            f"libnftables was killed by signal {-code} while it loaded the table",
            "nft before 1.0.7 crashes on sets that a newer nft made, in any table: look at `nft list ruleset`",
        )
    raise LoadError(f"libnftables: {said.strip() or f'exit status {code}'}", "" if said else INSTALL)


def _child(command: str, only_parse: bool, writer: int) -> None:
    """Exits with status 0, or with 1 and the reason in the pipe. The library's own output must not reach the
    runtime."""
    status = 1
    try:
        signals.signal(signals.SIGALRM, signals.SIG_DFL)
        signals.alarm(SECONDS)
        null = posix.open("/dev/null", posix.O_RDWR)
        posix.dup2(null, 0)
        posix.dup2(null, 1)
        posix.dup2(writer, 2)
        _load(command, only_parse)
        posix.write(writer, LOADED.encode())
        status = 0
    except _Refused as refusal:
        posix.write(writer, str(refusal).encode("utf-8", "replace"))
    except (ImportError, AttributeError, OSError) as problem:  # the module, a part of it or libnftables.so is missing
        posix.write(writer, f"{problem}; {INSTALL}".encode())
    except BaseException as problem:
        posix.write(writer, f"{type(problem).__name__}: {problem}".encode())
    finally:
        posix._exit(status)


def _named(error: OSError) -> str:
    return f"{errno.errorcode.get(error.errno or 0, error.errno)}: {error.strerror}"


class _Refused(Exception):
    pass


def _load(command: str, only_parse: bool) -> None:
    import site

    site.main()  # the plugin runs with -S; only this needs the distribution's packages
    import nftables  # type: ignore[import-not-found]

    sys.unraisablehook = lambda _: None  # without libnftables.so __del__ fails after __init__ and prints it
    library = nftables.Nftables()
    library.set_dry_run(only_parse)
    code, _output, error = library.cmd(command)
    if code:
        raise _Refused(error.strip())
