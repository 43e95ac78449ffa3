"""`macspoofchk`: frames of another MAC address than the container's do not pass its bridge port.

The elements are `nft.spoofing`'s; which ports have some is kept in the state folder (`macs/<host link>`), so that the
table goes with the last. Loaded only where a network asks for it.
"""

from __future__ import annotations

from cni.host import Host
from cni.model.attachment import Attachment
from cni.protocol.errors import IO_FAILURE, CniError
from nft import spoofing
from nft.addresses import format_mac
from nft.errors import LoadError
from nft.libnftables import run_text

FOLDER = "macs"


def guard(host: Host, item: Attachment) -> None:
    """The port lets the container's address pass and no other. May be repeated. Raises CniError 5."""
    mac = format_mac(item.mac)
    _checked, held = spoofing.allowed(host.table.netlink, item.link)
    host.store.folder.make(FOLDER)
    host.store.folder.touch(FOLDER, item.link)
    _run(spoofing.allow_text(item.link, mac) + spoofing.drop_text(item.link, [other for other in held if other != mac]))


def unguard(host: Host, item: Attachment) -> None:
    """After the port has gone: what is not checked passes."""
    others = [link for link in host.store.folder.names(FOLDER) if link != item.link]
    checked, held = spoofing.allowed(host.table.netlink, item.link)
    if not others and (checked or spoofing.has_rule(host.table.netlink)):
        _run(spoofing.REMOVE)
    elif checked:
        _run(spoofing.forget_text(item.link, held))
    host.store.folder.unlink(FOLDER, item.link)
    if not others:
        host.store.folder.rmdir(FOLDER)


def problems(host: Host, item: Attachment) -> list[str]:
    checked, held = spoofing.allowed(host.table.netlink, item.link)
    if not checked or not spoofing.has_rule(host.table.netlink):
        return [f"the MAC addresses that come by {item.link} are not checked"]
    mac = format_mac(item.mac)
    return [] if held == [mac] else [f"{item.link} lets {', '.join(held) or 'no address'} pass instead of {mac}"]


def _run(text: str) -> None:
    try:
        run_text(text)
    except LoadError as problem:
        raise CniError(IO_FAILURE, f"macspoofchk: {problem}", problem.hint) from None
