"""Which nft the host has, and whether it can load the table. Asked only when the table has to be loaded.

Before 1.0, nft cannot look up an address and a port in one map by `meta l4proto . th dport`: 0.9.8 of Debian 11 reports
a syntax error in the middle of the ruleset. The error names nft's version instead, before anything is changed.
"""

from __future__ import annotations

import posix

from .errors import LoadError

MINIMUM = (1, 0, 0)
# Runtimes start plugins with any PATH, often one without sbin.
PROGRAMS = ("/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft", "/usr/bin/nft")
HINT = "install nftables from the distribution's next release, or from its backports"


def refuse_old(programs: tuple[str, ...] = PROGRAMS) -> None:
    """Raises LoadError for an nft before MINIMUM. Without an nft, or with an unknown answer, the library may still
    do."""
    found = read_version(said_by(programs))
    if found and found < MINIMUM:
        raise LoadError(f"nft {_text(found)} is too old, {_text(MINIMUM)} is needed", HINT)


def read_version(said: str) -> tuple[int, ...]:
    """(1, 0, 6) from `nftables v1.0.6 (Lester Gooch #5)`, () from anything else."""
    words = said.split()
    if len(words) < 2 or words[0] != "nftables":
        return ()
    numbers = words[1].lstrip("v").split(".")
    return tuple(map(int, numbers)) if all(number.isdecimal() for number in numbers) else ()


def said_by(programs: tuple[str, ...]) -> str:
    """The answer to `-v` of the first program that can be started, "" if none can."""
    for program in programs:
        reader, writer = posix.pipe()
        actions = [(posix.POSIX_SPAWN_DUP2, writer, 1), (posix.POSIX_SPAWN_OPEN, 2, "/dev/null", posix.O_WRONLY, 0)]
        with open(reader, encoding="utf-8", errors="replace") as pipe:
            try:
                child = posix.posix_spawn(program, [program, "-v"], {}, file_actions=actions)
            except OSError:
                continue
            finally:
                posix.close(writer)
            said = pipe.read(1000)
        posix.waitpid(child, 0)
        return said
    return ""


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
