"""ADD with addresses from a foreign IPAM plugin.

The record comes first, because a kill must leave something to undo; then the pair, through which a plugin such as
`dhcp` asks; then the plugin; then the rest. The lock is not held while the plugin runs: a DHCP server may take its
time.
"""

from __future__ import annotations

from cni.adoption import placed_item, refuse_shared
from cni.bridge import with_place
from cni.host import Host
from cni.model.attachment import Attachment
from cni.model.config import Network
from cni.model.plan import plan_attachment, with_delegated, without_shared_ports
from cni.model.static_ipam import NAME as STATIC
from cni.model.static_ipam import static_result
from cni.protocol.delegation import run_plugin
from cni.protocol.errors import INTERNAL, TRY_AGAIN_LATER, CniError
from cni.protocol.log import say
from cni.protocol.request import Request
from cni.protocol.spec import Result
from cni.verbs.attach import attach, link, refuse_taken_ports
from cni.verbs.delete import detach


def add_delegated(host: Host, request: Request, network: Network, netns: int, before: Attachment | None) -> Result:
    """The result. Raises CniError, the plugin's own included."""
    if before is not None:
        detach(host, before)
    intent = plan_attachment(request, network, ())
    is_first = not host.store.folder.has("attachments", request.network)
    host.store.begin(intent)
    mine = intent
    try:
        link(host, intent, netns)
        mine = intent = host.record(intent.ident) or intent  # its bridge may have changed meanwhile
        host.unlock()
        result = _ask(request, network.ipam.delegate, "ADD")
        host.lock()
        found = host.record(intent.ident)
        if found is None or not _is_same(found, intent):
            raise CniError(TRY_AGAIN_LATER, f"{intent.ident} was deleted while {network.ipam.delegate} worked for it")
        if result is None or not result.ips:
            raise CniError(INTERNAL, f"ipam.type {network.ipam.delegate}: its answer to ADD has no address")
        planned = with_place(host, placed_item(host, network, with_delegated(found, network, result)))
        if is_first:
            refuse_shared(host, planned)
        ports = host.store.claims.holders(planned.mappings)
        item = without_shared_ports(ports, planned)
        refuse_taken_ports(host, item, ports, network.allow_bound_ports)
        host.store.begin(item)
        mine = item
        return attach(host, item, netns, linked=True)
    except Exception:
        undo(host, request, mine)
        raise


def _is_same(found: Attachment, written: Attachment) -> bool:
    """Whether the record is the one that was written, apart from whose the bridge is: our own `link` may have made it
    since."""
    return found.replace(made=written.made) == written


def _ask(request: Request, kind: str, verb: str) -> Result | None:
    """The plugin's result. `static` is answered here, because it only repeats the configuration."""
    if kind != STATIC:
        return run_plugin(request, kind, verb)
    return static_result(request) if verb == "ADD" else None


def undo(host: Host, request: Request, mine: Attachment) -> None:
    """Rolls back as the specification asks: calls the plugin's DEL, without the lock, then removes the record. Does
    neither if the runtime has added the container again meanwhile, as the plugin knows it by the same name. A second
    failure is only said on stderr."""
    host.unlock()
    try:
        host.lock()
        found = host.record(mine.ident)
        if found is not None and not _is_same(found, mine) and found.delegate == mine.delegate:
            return
    except (CniError, OSError) as error:
        say(f"rollback of {mine.ident}: {error}")
    host.unlock()
    try:
        _ask(request, mine.delegate, "DEL")
    except CniError as error:
        say(f"rollback of {mine.ident}: {error}")
    try:
        host.lock()
        found = host.record(mine.ident)
        if found is not None and _is_same(found, mine):
            detach(host, found)
    except (CniError, OSError) as error:
        say(f"rollback of {mine.ident}: {error}")
