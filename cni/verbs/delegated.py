"""ADD with addresses from a foreign IPAM plugin: the record first, for a kill must leave something to undo; the pair,
which such a plugin may look for (`dhcp` asks through it); the plugin, then the rest. The lock is not held meanwhile: a
DHCP server may take its time.
"""

from __future__ import annotations

from cni.bridge import with_place
from cni.host import Host
from cni.model.attachment import Attachment
from cni.model.config import Network
from cni.model.plan import plan_attachment, with_delegated
from cni.model.static import NAME as STATIC
from cni.model.static import static_result
from cni.protocol.delegation import run_plugin
from cni.protocol.errors import INTERNAL, TRY_AGAIN_LATER, CniError
from cni.protocol.log import say
from cni.protocol.request import Request
from cni.protocol.spec import Result
from cni.verbs.attach import attach, link, refuse_held_ports, without_shared_ports
from cni.verbs.delete import detach


def add_delegated(host: Host, request: Request, network: Network, netns: int, before: Attachment | None) -> Result:
    """Raises CniError, the plugin's own included."""
    if before is not None:
        detach(host, before)
    mine = intent = plan_attachment(request, network, ())
    host.store.begin(intent)
    try:
        link(host, intent, netns)
        host.unlock()
        result = _ask(request, network.ipam.delegate, "ADD")
        host.lock()
        if host.record(intent.ident) != intent:
            raise CniError(TRY_AGAIN_LATER, f"{intent.ident} was deleted while {network.ipam.delegate} worked for it")
        if result is None or not result.ips:
            raise CniError(INTERNAL, f"ipam.type {network.ipam.delegate}: its answer to ADD has no address")
        item = without_shared_ports(host.store.claims, with_place(host, with_delegated(intent, network, result)))
        refuse_held_ports(host.store.claims, item)
        host.store.begin(item)
        mine = item
        return attach(host, item, netns, linked=True)
    except Exception:
        undo(host, request, mine)
        raise


def _ask(request: Request, kind: str, verb: str) -> Result | None:
    """`static` is answered here: it only reads the configuration back."""
    if kind != STATIC:
        return run_plugin(request, kind, verb)
    return static_result(request) if verb == "ADD" else None


def undo(host: Host, request: Request, mine: Attachment) -> None:
    """The specification's rollback: the plugin's DEL, without the lock, then the record. Neither, where the runtime has
    added another one meanwhile: the plugin knows it by the same name. A second failure is only said on stderr."""
    host.unlock()
    try:
        host.lock()
        found = host.record(mine.ident)
        if found is not None and found != mine and found.delegate == mine.delegate:
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
        if host.record(mine.ident) == mine:
            detach(host, mine)
    except (CniError, OSError) as error:
        say(f"rollback of {mine.ident}: {error}")
