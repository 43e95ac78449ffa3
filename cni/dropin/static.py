"""The drop-in name `static`: answers other main plugins with the configuration's own addresses. Nothing is kept."""

from __future__ import annotations

from cni.model.static_ipam import static_result
from cni.protocol.errors import CHECK_FAILED, CniError
from cni.protocol.request import Request
from cni.protocol.results import parse_previous
from cni.protocol.spec import Result


def add(request: Request) -> Result:
    return static_result(request)


def delete(request: Request) -> None:
    """Does nothing, because ADD keeps nothing."""


def check(request: Request) -> None:
    """Raises CniError 104 if prevResult lacks an address."""
    previous = parse_previous(request)
    for item in static_result(request).ips:
        if item.address not in previous.addresses:
            raise CniError(CHECK_FAILED, f"prevResult lacks the address {item.address} of {request.ifname}")
