"""The names under which the one executable serves: its own, and the reference plugins' that conf/install links to
it."""

from __future__ import annotations

from nft.system import base_name

OWN_NAME = "nftcni"
MAIN_ROLES = ("bridge", "ptp")  # the plugin itself, with the reference's defaults
ROLES = (*MAIN_ROLES, "portmap", "firewall", "tuning", "bandwidth", "host-local", "static", "loopback")


def role_of(program: str) -> str:
    """The reference plugin that the executable replaces under this name, "" for our own name. conf/install --drop-in
    makes the links."""
    name = base_name(program)
    return name if name in ROLES else ""


def check_program(program: str) -> None:
    """Raises CniError 7 for an unknown name in the CNI bin folder that leads here. If we served as a plugin under it,
    we would call that name again and never end (`ipam.type: static`, where `static` is a link to us).

    Our own names begin with `nftcni`; a Python file cannot be a plugin type.
    """
    name = base_name(program)
    if name in ROLES or name.startswith(OWN_NAME) or name.endswith(".py"):
        return
    from cni.protocol.errors import INVALID_CONFIG, CniError

    raise CniError(
        INVALID_CONFIG,
        f'"{name[:80]}" is no plugin: {program[:200]} is nftcni, which does not answer for that name',
        f"it answers for {OWN_NAME}, {', '.join(ROLES)}; put the plugin of that name in its place",
    )
