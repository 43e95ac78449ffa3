"""The table of the bridge family: which MAC address may come in by which port. Text for libnftables, and one listing.

Two sets and one rule for all ports, made with the first port that asks for it and gone with the last; a port that is
not in `checked` is none of its affair. What the inet table does is `ruleset`.
"""

from __future__ import annotations

import errno

from . import messages
from .netlink import Netlink
from .schema import TABLE

NFPROTO_BRIDGE = 7  # include/uapi/linux/netfilter.h
IFNAMSIZ = 16

_RULES = f"""add table bridge {TABLE}
add set bridge {TABLE} checked {{ type ifname; }}
add set bridge {TABLE} macs {{ type ifname . ether_addr; }}
add chain bridge {TABLE} prerouting {{ type filter hook prerouting priority -300; policy accept; }}
flush chain bridge {TABLE} prerouting
add rule bridge {TABLE} prerouting iifname @checked iifname . ether saddr != @macs drop
"""


def allow_text(link: str, mac: str) -> str:
    """The table, if need be, and the port with this one address. May be repeated."""
    return f'{_RULES}add element bridge {TABLE} checked {{ "{link}" }}\n{_element("add", link, mac)}'


def forget_text(link: str, macs: list[str]) -> str:
    """`macs` are those that are there."""
    return f'delete element bridge {TABLE} checked {{ "{link}" }}\n' + "".join(
        _element("delete", link, mac) for mac in macs
    )


def drop_text(link: str, macs: list[str]) -> str:
    """Addresses alone, while the port stays checked."""
    return "".join(_element("delete", link, mac) for mac in macs)


REMOVE = f"delete table bridge {TABLE}\n"


def _element(verb: str, link: str, mac: str) -> str:
    return f'{verb} element bridge {TABLE} macs {{ "{link}" . {mac} }}\n'


def allowed(netlink: Netlink, link: str) -> tuple[bool, list[str]]:
    """(whether the port is checked, its addresses), as the kernel has them. Raises OSError."""
    name = link.encode().ljust(IFNAMSIZ, b"\0")
    checked = any(key == name for key in _keys(netlink, "checked"))
    macs = [key[IFNAMSIZ : IFNAMSIZ + 6] for key in _keys(netlink, "macs") if key.startswith(name)]
    return checked, [mac.hex(":") for mac in macs]


def has_rule(netlink: Netlink) -> bool:
    try:
        return bool(netlink.dump(messages.GETRULE, messages.list_rules(TABLE, NFPROTO_BRIDGE)))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return False


def _keys(netlink: Netlink, name: str) -> list[bytes]:
    """[] without the table."""
    try:
        payloads = netlink.dump(messages.GETSETELEM, messages.list_elements(name, TABLE, NFPROTO_BRIDGE))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return []
    return [element.key for payload in payloads for element in messages.read_elements(payload)]
