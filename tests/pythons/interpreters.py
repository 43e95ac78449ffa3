"""Which Pythons are tried, and where each comes from. Data alone; how they are had is `roots`.

The plugin runs with the distribution's Python, so it is tried with Debian's, each inside of a Debian that has a new
enough nft. A version that no suite has now cannot be had: the Python package index has no interpreters.
"""

from __future__ import annotations

from dataclasses import dataclass

USERLAND = (
    *("bash", "busybox-static", "conntrack", "coreutils", "dash", "diffutils", "findutils", "grep", "iproute2", "kmod"),
    *("libc-bin", "mawk", "mount", "netbase", "nftables", "procps", "sed", "strace", "systemd", "tar", "util-linux"),
    *(
        "python3",
        "python3-hypothesis",
        "python3-nftables",
        "python3-pyroute2",
        "python3-pytest",
        "python3-pytest-xdist",
    ),
)


@dataclass(frozen=True)
class Interpreter:
    """`suite` has its packages; everything else is of the suite `among`. Where those differ, `libraries` are what the
    interpreter needs of its own suite, `modules` what pytest of the other one needs for so old a Python."""

    version: str
    suite: str
    among: str
    libraries: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[str, ...]:
        name = f"python{self.version}"
        return (name, f"{name}-minimal", f"lib{name}-minimal", f"lib{name}-stdlib", *self.libraries)


INTERPRETERS = (
    Interpreter(
        *("3.9", "bullseye", "bookworm"),
        libraries=("libffi7", "libmpdec3", "libssl1.1"),
        modules=("python3-exceptiongroup", "python3-tomli"),
    ),
    Interpreter("3.11", "bookworm", "bookworm"),
    Interpreter("3.13", "trixie", "trixie"),
    Interpreter("3.14", "sid", "sid"),
    Interpreter("3.15", "sid", "sid"),
)
NOT_TO_BE_HAD = ("3.10", "3.12")
