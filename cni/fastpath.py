"""The fast path of the networks that ask for it: made ready with their first container, gone with their last one.

Who is on it is elements, as everything is; here is what those need beside the table's own rules: the flowtable, and the
links that it listens on. The messages are `nft.fastpath`.
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
    """Raises CniError with the code on a kernel without flowtables. Where there is one, nothing more is asked."""
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
    """There, listening on the attachment's bridge and on the links that lead out. May be repeated. Raises CniError."""
    have = fastpath.links(handles.table.netlink)
    if have is None:
        load(handles)
    new = [name for name in _wanted([item.bridge], handles) if name not in (have or ())]
    if new:
        fastpath.add_links(handles.table, new)


def load(handles: Handles) -> None:
    """Into a table that has none of it."""
    try:
        handles.change_rules(lambda: run_text(fastpath.fast_path_text()))
    except LoadError as problem:
        raise CniError(IO_FAILURE, f"fastPath: {problem}", problem.hint) from None


def restore(handles: Handles) -> None:
    """After the table was made anew. The others are served all the same, and these are by the usual way."""
    try:
        load(handles)
        fastpath.add_links(handles.table, _wanted(_asking(handles), handles))
    except (CniError, OSError) as error:
        say(f"the fast path is not restored: {error}")


def release(handles: Handles, item: Attachment) -> None:
    """After elements have gone: nothing while anybody on the bridge asks for it, all of it with the last one. Flows end
    when the tracker forgets them."""
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
    """What keeps an attachment's flows off it."""
    have = fastpath.links(handles.table.netlink)
    if have is None:
        return [f"{FLOWTABLE} is missing"]
    lacking = item.bridge not in have and not _are_frames_seen()
    return [f"{FLOWTABLE} does not listen on {item.bridge}"] if lacking else []


def differences(handles: Handles) -> list[str]:
    """What is amiss with it as a whole: also that the way out of the host is another one by now."""
    have, asking = fastpath.links(handles.table.netlink), _asking(handles)
    if have is None:
        return []  # who misses it says so
    if not asking:
        return [f"{FLOWTABLE} is there, and no network asks for it"]
    wanted = _wanted(asking, handles)
    if sorted(have) == sorted(wanted):
        return []
    return [f"{FLOWTABLE} listens on {' '.join(have) or 'no link'} instead of {' '.join(wanted) or 'none'}"]


def _asking(handles: Handles) -> list[str]:
    return [text(element.key) for element in handles.table.elements(("fast_links",))]


def _wanted(bridges: list[str], handles: Handles) -> list[str]:
    """Of these bridges those that are there, and the links of the default routes. No bridge where frames on it pass the
    IP tables: the connection tracker has counted what comes up from there, and would once more."""
    names = [] if _are_frames_seen() else bridges
    ways_out = (link_name(handles.rtnl, link) for version in (4, 6) for link in default_links(handles.rtnl, version))
    return [name for name in dict.fromkeys((*names, *ways_out)) if name and get_link(handles.rtnl, name)]


def _are_frames_seen() -> bool:
    return any(sysctl.read(key) == "1" for key in BRIDGED_FRAMES)
