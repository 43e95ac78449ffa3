"""The fast path for networks that ask for it: it comes with their first container and goes with their last one.

Elements say who uses it. This handles what they need beside the table's own rules: the flowtable, and the links on
which it listens. `nft.fastpath` makes the messages.
"""

from __future__ import annotations

from cni.handles import Handles
from cni.kernel import sysctl
from cni.kernel.links import get_link, link_name
from cni.kernel.routes import default_links
from cni.model.attachment import Attachment
from cni.model.projection import fast_link
from cni.protocol.errors import IO_FAILURE, UNSUPPORTED_FIELD, CniError, kernel_refused
from cni.protocol.log import say
from nft import fastpath
from nft.errors import LoadError
from nft.framing import text
from nft.libnftables import run_text
from nft.schema import FAST_PATH, TABLE

FLOWTABLE = f"flowtable {FAST_PATH} of table inet {TABLE}"
BRIDGED_FRAMES = tuple(f"bridge/bridge-nf-call-{family}tables" for family in ("ip", "ip6"))


def refuse_lacking(handles: Handles, code: int = UNSUPPORTED_FIELD) -> None:
    """Raises CniError with this code on a kernel without flowtables. If the flowtable exists, nothing more is
    checked."""
    try:
        if fastpath.links(handles.table.netlink) is not None:
            return
        missing = fastpath.lacking(handles.table.netlink)
    except OSError as error:
        raise kernel_refused("fastPath: asking the kernel for flowtables", error) from None
    if missing:
        raise CniError(
            code, f"fastPath: this kernel lacks {', '.join(missing)}", "load those modules, or take the key out"
        )


def ensure(handles: Handles, item: Attachment) -> None:
    """Makes the flowtable listen on the attachment's bridge and on the links that lead out, and loads it if it is
    missing. May be repeated. Raises CniError 5."""
    have = fastpath.links(handles.table.netlink)
    if have is None:
        load(handles)
    new = [name for name in _wanted([item.bridge], handles) if name not in (have or ())]
    if new:
        fastpath.add_links(handles.table, new)


def load(handles: Handles) -> None:
    """Loads the flowtable and its chain into a table without them. Raises CniError 5."""
    try:
        handles.change_rules(lambda: run_text(fastpath.fast_path_text()))
    except LoadError as problem:
        raise CniError(IO_FAILURE, f"fastPath: {problem}", problem.hint) from None


def restore(handles: Handles) -> None:
    """Restores the fast path in a new table. An error is only said on stderr: flows then go the usual way."""
    try:
        load(handles)
        fastpath.add_links(handles.table, _wanted(_asking(handles), handles))
    except (CniError, OSError) as error:
        say(f"the fast path is not restored: {error}")


def release(handles: Handles, item: Attachment) -> None:
    """After elements were deleted, takes out the bridge unless another attachment there asks for the fast path, and
    removes everything with the last one. Flows leave it when the tracker forgets them."""
    if handles.table.get(fast_link(item.bridge)) is not None:
        return
    have = fastpath.links(handles.table.netlink)
    if have is None:
        return
    if not _asking(handles):
        handles.change_rules(lambda: fastpath.remove(handles.table))
    elif item.bridge in have:
        fastpath.drop_links(handles.table, [item.bridge])


def problems(handles: Handles, item: Attachment) -> list[str]:
    """What keeps an attachment's flows off the fast path, as sentences."""
    have = fastpath.links(handles.table.netlink)
    if have is None:
        return [f"{FLOWTABLE} is missing"]
    lacking = item.bridge not in have and not _are_frames_seen()
    return [f"{FLOWTABLE} does not listen on {item.bridge}"] if lacking else []


def differences(handles: Handles) -> list[str]:
    """What is wrong with the fast path as a whole, as sentences: also a link that leads out of the host by now."""
    have, asking = fastpath.links(handles.table.netlink), _asking(handles)
    if have is None:
        return []  # `problems` of each attachment reports it
    if not asking:
        return [f"{FLOWTABLE} exists, but no network asks for it"]
    wanted = _wanted(asking, handles)
    if sorted(have) == sorted(wanted):
        return []
    return [f"{FLOWTABLE} listens on {' '.join(have) or 'no link'} instead of {' '.join(wanted) or 'none'}"]


def _asking(handles: Handles) -> list[str]:
    return [text(element.key) for element in handles.table.elements(("fast_links",))]


def _wanted(bridges: list[str], handles: Handles) -> list[str]:
    """The existing ones of these bridges, and the links of the default routes. No bridges if their frames pass the IP
    tables: the connection tracker has counted packets from there already, and the flowtable would count them again."""
    names = [] if _are_frames_seen() else bridges
    ways_out = (link_name(handles.rtnl, link) for version in (4, 6) for link in default_links(handles.rtnl, version))
    return [name for name in dict.fromkeys((*names, *ways_out)) if name and get_link(handles.rtnl, name)]


def _are_frames_seen() -> bool:
    return any(sysctl.read(key) == "1" for key in BRIDGED_FRAMES)
