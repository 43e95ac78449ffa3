"""Which room answers under a drop-in name, verb by verb. `bridge` is not here: it is the plugin itself."""

from __future__ import annotations

from .jsontext import dumps
from .request import Request
from .spec import Result, result_document


def answer_as(request: Request) -> str:
    """The document for stdout, "" for none. Raises CniError."""
    if request.role in ("portmap", "firewall"):
        from . import chained as room
    elif request.role == "tuning":
        from . import tuning as room  # type: ignore[no-redef]
    elif request.role == "host-local":
        from . import hostlocal as room  # type: ignore[no-redef]
    else:
        from . import loopback as room  # type: ignore[no-redef]
    if request.verb == "ADD":
        made = room.add(request)
        return dumps(result_document(made, request.version) if isinstance(made, Result) else made)
    if request.verb == "DEL":
        room.delete(request)
    elif request.verb == "CHECK":
        room.check(request)
    elif request.verb == "GC" and request.role in ("portmap", "firewall", "host-local"):
        from .collect import collect

        collect(request)
    elif request.verb == "STATUS" and request.role == "host-local":
        from .hostlocal import status

        status(request)
    elif request.verb == "STATUS" and request.role in ("portmap", "firewall"):
        from .status import chained_status

        chained_status(request)
    return ""
