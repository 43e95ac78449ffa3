"""The drop-in name `bandwidth`: rates for an interface that another plugin of the chain has made.

The record of our own interface is amended; for somebody else's, a record holds only the rates. `cni.kernel.shaping`
sets them in the kernel.
"""

from __future__ import annotations

from cni.dropin.amendment import attached, base_record, holds_nothing, record_of
from cni.host import Host
from cni.hostside import with_devices
from cni.kernel.deletion import remove_links
from cni.kernel.links import Link, get_link, link_name
from cni.kernel.netns import Inside, open_netns
from cni.kernel.shaping import shape, shaping_problems, unshape
from cni.localnet import guard_port
from cni.model.attachment import Attachment
from cni.model.names import shaper_link
from cni.model.wire import RATES, Wire, parse_rates
from cni.protocol.errors import INVALID_CONFIG, CniError
from cni.protocol.fields import Fields
from cni.protocol.request import Request
from cni.protocol.results import merged, parse_previous
from cni.protocol.spec import Dns, Result, result_document
from cni.verbs.check import refuse_problems
from cni.verbs.delete import detach
from nft.netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.protocol.jsontext import Json

NONE = dict.fromkeys(("rate_in", "burst_in", "rate_out", "burst_out"), 0)


def add(request: Request) -> dict[str, Json]:
    """prevResult, with the device that limits what the container sends. Raises CniError."""
    previous = parse_previous(request)
    rates = _asked(request)
    if rates == NONE:
        return previous.document
    ident = record_of(request)
    with Host(request.data_dir).transaction(f"bandwidth: ADD for {ident}") as host:
        before = host.record(ident)
        port = _host_end(host, request, before)
        base = base_record(host, request, previous, before).replace(bridge=before.bridge if before else port.name)
        item = base.replace(wire=base.wire.replace(**rates))
        if before is None:
            host.store.begin(item.replace(done=False))
        try:
            shape(host.rtnl, item, port)
            guard_port(host.handles, item)
            host.store.update(item.replace(done=True))
        except Exception:
            host.try_roll_back()
            _take_back(host, before, item)
            raise
        own = with_devices(host, item, Result((), (), (), Dns())).interfaces
    document = result_document(Result(own, (), (), Dns()), "1.0.0")
    return merged(previous.document, {"interfaces": document.get("interfaces", [])})


def _asked(request: Request) -> dict[str, Any]:
    fields = Fields(request.document)
    return parse_rates(fields, fields.section("runtimeConfig"))


def _host_end(host: Host, request: Request, item: Attachment | None) -> Link:
    """The host end of the pair whose other end is the container's interface. Raises CniError 7 without such a pair."""
    if item is not None and item.kind.own_link:
        found = get_link(host.rtnl, item.link)
    else:
        with Inside(open_netns(request.netns)):
            inside = Netlink()
        link = get_link(inside, request.ifname)
        name = link_name(host.rtnl, link.peer) if link is not None and link.kind == "veth" and link.peer else ""
        found = get_link(host.rtnl, name) if name else None
    if found is None:
        raise CniError(
            INVALID_CONFIG,
            f"bandwidth: {request.ifname} in {request.netns} is not one end of a veth pair whose other end is here",
            f"{', '.join(RATES)} work with bridge and ptp only",
        )
    return found


def _take_back(host: Host, before: Attachment | None, item: Attachment) -> None:
    port = get_link(host.rtnl, item.link if item.kind.own_link else item.bridge)
    if port is not None:
        unshape(host.rtnl, port)
        guard_port(host.handles, item)
    if before is None:
        detach(host, item)
        return
    remove_links([shaper_link(item.ident)])
    host.store.update(before)


def delete(request: Request) -> None:
    """Removes the rates, from the record alone. Succeeds if there is nothing."""
    ident = record_of(request)
    with Host(request.data_dir).transaction(f"bandwidth: DEL of {ident}") as host:
        item = host.record(ident)
        if item is None or not item.wire.is_shaped:
            remove_links([shaper_link(ident)])  # the record may have been lost
            return
        bare = item.replace(wire=item.wire.replace(**NONE))
        nothing_left = not item.leased and holds_nothing(bare)
        _take_back(host, None if nothing_left else bare, item)


def check(request: Request) -> None:
    """Raises CniError 104 with every difference, 7 without prevResult."""
    parse_previous(request)
    rates = _asked(request)
    if rates == NONE:
        return
    ident = record_of(request)
    with Host(request.data_dir).transaction(f"bandwidth: CHECK of {ident}") as host:
        item = attached(host, ident)
        port = _host_end(host, request, item)
        asked = Wire(**rates)
        same = all(getattr(item.wire, name) == value for name, value in rates.items())
        problems = [] if same else ["the rates are not those of the configuration"]
        problems += shaping_problems(host.rtnl, item.replace(wire=asked), port)
    refuse_problems(ident, problems)
