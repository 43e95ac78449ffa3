"""Picks the file that answers for a drop-in name, verb by verb. `bridge` and `ptp` are the plugin itself."""

from __future__ import annotations

from cni.protocol.jsontext import dumps
from cni.protocol.request import Request
from cni.protocol.spec import Result, result_document


def answer_as(request: Request) -> str:
    """The document for stdout, "" for none. Raises CniError."""
    if request.role == "portmap":
        from cni.dropin import portmap as plugin
    elif request.role == "firewall":
        from cni.dropin import firewall as plugin  # type: ignore[no-redef]
    elif request.role == "tuning":
        from cni.dropin import tuning as plugin  # type: ignore[no-redef]
    elif request.role == "host-local":
        from cni.dropin import host_local as plugin  # type: ignore[no-redef]
    elif request.role == "static":
        from cni.dropin import static as plugin  # type: ignore[no-redef]
    elif request.role == "bandwidth":
        from cni.dropin import bandwidth as plugin  # type: ignore[no-redef]
    else:
        from cni.dropin import loopback as plugin  # type: ignore[no-redef]
    if request.verb == "ADD":
        made = plugin.add(request)
        return dumps(result_document(made, request.version, named=True) if isinstance(made, Result) else made)
    if request.verb == "DEL":
        plugin.delete(request)
    elif request.verb == "CHECK":
        plugin.check(request)
    elif request.verb == "GC" and request.role in ("portmap", "firewall", "host-local"):
        from cni.verbs.garbage import collect_garbage

        collect_garbage(request)
    elif request.verb == "STATUS" and request.role == "host-local":
        from cni.dropin.host_local import status

        status(request)
    elif request.verb == "STATUS" and request.role in ("portmap", "firewall"):
        from cni.verbs.status import chained_status

        chained_status(request)
    return ""
