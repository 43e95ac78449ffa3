"""The drop-in name `tuning`: sets sysctls, MAC address, MTU, promiscuous mode and queue length of an existing
interface.

It works inside the container only. The interface's earlier settings are kept beside the records, for a DEL whose
namespace lives on (host-device gives the interface back to the host).
"""

from __future__ import annotations

import errno

from cni.host import Host
from cni.kernel import rtnetlink, sysctl
from cni.kernel.links import Link, get_link
from cni.kernel.netns import Inside, open_netns
from cni.model.names import host_link, identity
from cni.protocol.errors import INVALID_CONFIG, INVALID_NETNS, IO_FAILURE, CniError, kernel_refused
from cni.protocol.fields import Fields
from cni.protocol.jsontext import dumps, loads
from cni.protocol.log import say
from cni.protocol.request import Request
from cni.protocol.results import parse_previous
from cni.verbs.check import refuse_problems
from nft.addresses import format_mac, parse_mac
from nft.netlink import Netlink, is_missing
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import Json

ALLOWLIST = "/etc/cni/tuning/allowlist.conf"  # regular expressions, one a line, as the reference plugin reads it
# A driver's errors for a value that it refuses, now or always: DEL must succeed all the same.
REFUSED = (errno.EOPNOTSUPP, errno.EINVAL, errno.EBUSY, errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.ERANGE)
FLAGS = {"promisc": rtnetlink.IFF_PROMISC, "allmulti": rtnetlink.IFF_ALLMULTI}


class Tuning(Value):
    """What to set. `sysctls` holds (path below /proc/sys/net, value), `flags` (IFF_*, on). Missing flags, `mac` b"",
    `mtu` 0 and `queue` None leave a setting alone."""

    sysctls: tuple[tuple[str, str], ...]
    flags: tuple[tuple[int, bool], ...]
    mac: bytes
    mtu: int
    queue: int | None

    @property
    def touches_link(self) -> bool:
        return bool(self.flags or self.mac or self.mtu or self.queue is not None)


def parse_tuning(request: Request) -> Tuning:
    """What the configuration asks for. The MAC address is args.cni's, else runtimeConfig.mac, else CNI_ARGS', else the
    key's. Raises CniError 7."""
    fields = Fields(request.document)
    arguments = fields.section("args").section("cni")
    runtime = fields.section("runtimeConfig")

    def place(key: str) -> Fields:
        return arguments if arguments.has(key) else fields

    mac = arguments.parsed("mac", parse_mac) or runtime.parsed("mac", parse_mac)
    if mac is None and "MAC" in request.args:
        mac = Fields({"MAC": request.args["MAC"]}, "CNI_ARGS").parsed("MAC", parse_mac)
    has_queue = place("txQLen").has("txQLen")
    return Tuning(
        sysctls=_parse_sysctls(place("sysctl"), request.ifname),
        flags=tuple((flag, place(key).flag(key)) for key, flag in FLAGS.items() if place(key).has(key)),
        mac=mac or fields.parsed("mac", parse_mac) or b"",
        mtu=place("mtu").number("mtu", 0, 0, 65535),
        queue=place("txQLen").number("txQLen", 0, 0, 0x7FFFFFFF) if has_queue else None,
    )


def _parse_sysctls(fields: Fields, ifname: str) -> tuple[tuple[str, str], ...]:
    section = fields.section("sysctl")
    raw = fields.raw("sysctl")
    found: dict[str, str] = {}
    for key in raw if isinstance(raw, dict) else ():
        path = key.replace("IFNAME", "\0", 1)
        path = (path if "/" in path else path.replace(".", "/")).replace("\0", ifname)
        parts = [part for part in path.split("/") if part not in ("", ".")]
        below = "/".join(parts[1:])
        if not below or parts[0] != "net" or ".." in parts:
            raise section.fail(key, "only sysctls below net belong to a container")
        if found.get(below, section.text(key)) != section.text(key):
            raise section.fail(key, "is given twice, with another value")
        _refuse_unlisted(section, key)
        found[below] = section.text(key)
    return tuple(found.items())


def _refuse_unlisted(section: Fields, key: str) -> None:
    try:
        with open(ALLOWLIST, encoding="utf-8") as file:
            patterns = [line.strip() for line in file if line.strip()]
    except FileNotFoundError:
        return
    import re

    if not any(re.search(pattern, key) for pattern in patterns):
        raise section.fail(key, f"is not allowed by {ALLOWLIST}")


def add(request: Request) -> dict[str, Json]:
    """prevResult, with the interface's new MAC address and MTU."""
    previous = parse_previous(request)
    tuning = parse_tuning(request)
    if not tuning.sysctls and not tuning.touches_link:
        return previous.document
    try:
        with Inside(open_netns(request.netns)):
            rtnl = Netlink()
            _set_sysctls(tuning)
    except OSError as error:
        raise kernel_refused(f"tuning {request.ifname} in {request.netns}", error) from None
    if tuning.touches_link:
        _tune_link(request, tuning, rtnl)
        _amend_result(previous.document, request.ifname, tuning)
    return previous.document


def _set_sysctls(tuning: Tuning) -> None:
    for key, value in tuning.sysctls:
        try:
            if not sysctl.exists(key):
                raise CniError(INVALID_CONFIG, f"sysctl: net/{key} does not exist in this kernel")
            sysctl.write(key, value)
        except OSError as error:
            raise kernel_refused(f"setting net/{key} to {value}", error) from None


def _tune_link(request: Request, tuning: Tuning, rtnl: Netlink) -> None:
    link = get_link(rtnl, request.ifname)
    if link is None:
        raise CniError(IO_FAILURE, f"the interface {request.ifname} is missing in {request.netns}")
    ident = identity(request.network, request.container, request.ifname)
    with Host(request.data_dir).transaction(f"tuning {request.ifname} in {request.netns}", "cni.withdrawal") as host:
        host.store.notes.keep_settings(host_link(ident), dumps(_settings(link)))
        _apply(rtnl, link, tuning)
        item = host.record(ident)
        if item is not None:
            host.change(item, item.replace(mac=tuning.mac or item.mac, mtu=tuning.mtu or item.mtu))


def _settings(link: Link) -> dict[str, Json]:
    flags: dict[str, Json] = {key: bool(link.flags & flag) for key, flag in FLAGS.items()}
    return {**flags, "mac": format_mac(link.mac), "mtu": link.mtu, "queue": link.queue}


def _apply(rtnl: Netlink, link: Link, tuning: Tuning) -> None:
    payload = rtnetlink.tune(link.index, dict(tuning.flags), tuning.mac, tuning.mtu, tuning.queue)
    rtnl.ask(rtnetlink.RTM_NEWLINK, payload)


def _amend_result(document: dict[str, Json], ifname: str, tuning: Tuning) -> None:
    interfaces = document.get("interfaces")
    for entry in interfaces if isinstance(interfaces, list) else ():
        if isinstance(entry, dict) and entry.get("name") == ifname and entry.get("sandbox"):
            entry.update({"mac": format_mac(tuning.mac)} if tuning.mac else {})
            entry.update({"mtu": tuning.mtu} if tuning.mtu and "mtu" in entry else {})


def delete(request: Request) -> None:
    """Restores the interface's earlier settings if it still exists. Succeeds if there is nothing.

    The kept settings are dropped last, so that a DEL that was killed is repeated whole.
    """
    ident = identity(request.network, request.container, request.ifname)
    with Host(request.data_dir).transaction(f"tuning: DEL of {ident}") as host:
        kept = host.store.notes.kept_settings(host_link(ident))
        if kept and request.netns:
            _give_back(request, kept)
        host.store.notes.drop_settings(host_link(ident))


def _give_back(request: Request, kept: str) -> None:
    """Restores the settings. Raises OSError and CniError if another DEL may succeed; the settings are kept until
    then."""
    try:
        netns = open_netns(request.netns)
    except CniError as error:
        if error.code == INVALID_NETNS:
            return  # the namespace, and with it the interface, is gone: the common case
        raise
    with Inside(netns):
        rtnl = Netlink()
    link = get_link(rtnl, request.ifname)
    before = _before(kept)
    if link is None or before is None:
        return
    try:
        _apply(rtnl, link, before.replace(mac=before.mac if before.mac != link.mac else b""))
    except OSError as error:
        if error.errno not in REFUSED and not is_missing(error):
            raise
        say(f"{request.ifname} in {request.netns} does not take back its earlier settings: {error.strerror}")


def _before(kept: str) -> Tuning | None:
    """The kept settings, None for a damaged note."""
    try:
        fields = Fields(loads(kept))
        flags = tuple((flag, fields.flag(key)) for key, flag in FLAGS.items())
        mtu, queue = (fields.number(key, 0, 0, 0x7FFFFFFF) for key in ("mtu", "queue"))
        return Tuning((), flags, fields.parsed("mac", parse_mac) or b"", mtu, queue)
    except (CniError, ValueError):
        return None


def check(request: Request) -> None:
    """Raises CniError 104 that names every setting that differs from the configuration."""
    parse_previous(request)
    tuning = parse_tuning(request)
    with Inside(open_netns(request.netns)):
        rtnl = Netlink()
        problems = [
            f"net/{key} is {have}, not {value}"
            for key, value in tuning.sysctls
            for have in [sysctl.read(key)]
            if have.split() != value.split()
        ]
    link = get_link(rtnl, request.ifname)
    if link is None:
        problems.append(f"the interface {request.ifname} is missing")
    else:
        wrong = [flag for flag, on in tuning.flags if bool(link.flags & flag) != on]
        problems += [f"{key} is not as asked" for key, flag in FLAGS.items() if flag in wrong]
        if tuning.mac and link.mac != tuning.mac:
            problems.append(f"the MAC address is {format_mac(link.mac)}, not {format_mac(tuning.mac)}")
        if tuning.mtu and link.mtu != tuning.mtu:
            problems.append(f"the MTU is {link.mtu}, not {tuning.mtu}")
        if tuning.queue is not None and link.queue != tuning.queue:
            problems.append(f"the queue length is {link.queue}, not {tuning.queue}")
    refuse_problems(identity(request.network, request.container, request.ifname), problems)
