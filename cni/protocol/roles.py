"""The names that the one executable answers for: its own, and the reference plugins' that conf/install links to it."""

from __future__ import annotations

import os

OWN_NAME = "nftcni"
MAIN_ROLES = ("bridge", "ptp")  # the plugin itself, with the reference's defaults
ROLES = (*MAIN_ROLES, "portmap", "firewall", "tuning", "bandwidth", "host-local", "static", "loopback")


def role_of(program: str) -> str:
    """Which reference plugin's place the executable takes: conf/install --drop-in links it under their names."""
    name = os.path.basename(program)
    return name if name in ROLES else ""


def check_program(program: str) -> None:
    """Raises CniError code 7 for a name in the CNI bin folder that leads here and is none that we answer for: acting as
    the plugin under it would call that very name again (`ipam.type: static`, where `static` is a link to us).

    A name of ours begins with `nftcni`; a file that says it is Python's is nobody's plugin type.
    """
    name = os.path.basename(program)
    if name in ROLES or name.startswith(OWN_NAME) or name.endswith(".py"):
        return
    from cni.protocol.errors import INVALID_CONFIG, CniError

    raise CniError(
        INVALID_CONFIG,
        f'"{name[:80]}" is no plugin: {program[:200]} is nftcni, which does not answer for that name',
        f"it answers for {OWN_NAME}, {', '.join(ROLES)}; put the plugin of that name in its place",
    )
