"""Which nft the host has, and whether the table can be loaded by it. Nothing here is asked while the table is there.

Before 1.0 nft cannot look up an address and a port in one map by `meta l4proto . th dport` (0.9.8, Debian 11: a syntax
error in the middle of the ruleset), so that is said by its name, before anything is changed.
"""

from __future__ import annotations

import os

from .errors import LoadError

MINIMUM = (1, 0, 0)
# Runtimes start plugins with any PATH, and that without sbin.
PROGRAMS = ("/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft", "/usr/bin/nft")
HINT = "install nftables of the distribution's next release, or of its backports"


def refuse_old(programs: tuple[str, ...] = PROGRAMS) -> None:
    """Raises LoadError. An nft that is not there or says nothing we know is not judged: the library may do."""
    found = read_version(said_by(programs))
    if found and found < MINIMUM:
        raise LoadError(f"nft {_text(found)} is too old, {_text(MINIMUM)} is needed", HINT)


def read_version(said: str) -> tuple[int, ...]:
    """Of `nftables v1.0.6 (Lester Gooch #5)`, () where there is none."""
    words = said.split()
    if len(words) < 2 or words[0] != "nftables":
        return ()
    numbers = words[1].lstrip("v").split(".")
    return tuple(map(int, numbers)) if all(number.isdecimal() for number in numbers) else ()


def said_by(programs: tuple[str, ...]) -> str:
    """`nft -v` of the first one that can be started, "" for none."""
    for program in programs:
        reader, writer = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
        with open(reader, encoding="utf-8", errors="replace") as pipe:
            try:
                child = os.posix_spawn(program, [program, "-v"], {}, file_actions=actions)
            except OSError:
                continue
            finally:
                os.close(writer)
            said = pipe.read(1000)
        os.waitpid(child, 0)
        return said
    return ""


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
