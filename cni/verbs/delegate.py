"""A verb passed on to the network's foreign IPAM plugin. Its ADD, which must leave something to undo, is `delegated`.

What is loaded here is next to nothing: most networks have no such plugin.
"""

from __future__ import annotations

from cni.protocol.request import Request, foreign_ipam


def pass_on(request: Request, verb: str, kind: str = "") -> None:
    """To the plugin `kind`, or the one that the configuration names; nothing where there is none."""
    kind = kind or foreign_ipam(request)
    if kind and kind != "static":  # which is answered by `delegated`, and keeps nothing
        from cni.protocol.delegation import run_plugin

        run_plugin(request, kind, verb)
