"""Who listens on a host port: publishing the port would silently take that program's clients.

sock_diag is asked once for each protocol and family; /proc is searched only if somebody listens. A runtime's socket
that only reserves the published port does not count. Claims tell which ports containers hold. Numbers are from
include/uapi/linux/{sock_diag,inet_diag}.h.
"""

from __future__ import annotations

import errno
import posix

from cni.kernel.routes import is_local
from cni.model.ports import PortMapping, collide
from cni.protocol.errors import PORT_TAKEN, CniError, kernel_refused
from cni.protocol.log import say
from nft.addresses import FAMILY, Address, from_packed
from nft.elements import PROTOCOLS
from nft.framing import attributes
from nft.netlink import Netlink
from nft.stdlib import Struct
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
TCPDIAG_GETSOCK = 18  # the older request, for TCP of both families at once
INET_DIAG_SKV6ONLY = 11
# A socket's states as bits: LISTEN, and CLOSE for a bound UDP socket without a peer.
STATES = {"tcp": 1 << 10, "udp": 1 << 7, "sctp": 1 << 10}
ABSENT = (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)  # sock_diag or its module is missing
_ID = Struct("=2s46x")  # port; zeros in the rest of inet_diag_sockid match anything
_OLD = Struct("=BBBB48sII")  # inet_diag_req: family, two lengths, extensions, socket, states, dbs
_NEW = Struct("=BBBBI48s")  # inet_diag_req_v2: family, protocol, extensions, padding, states, socket
_MESSAGE = Struct("=BBBB2s2s16s16sI8sIIIII")  # inet_diag_msg
RESERVERS = {"conmon": "podman's", "rootlessport": "podman's", "rootlesskit": "RootlessKit's"}
LOOK_UPS = 16  # host addresses that are checked: whoever lists more did not mistype one


class Listener(Value):
    """A socket of the host. `only_its_family` is false for a socket at `::` that takes IPv4 as well."""

    protocol: str
    address: Address
    port: int
    only_its_family: bool
    inode: int
    user: int

    def __str__(self) -> str:
        place = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{place}:{self.port}/{self.protocol}"

    def is_in_the_way_of(self, mapping: PortMapping) -> bool:
        """Whether the kernel would refuse the mapping's socket beside this one, by bind(2)'s rule."""
        if (self.protocol, self.port) != (mapping.protocol, mapping.host_port) or mapping.host_ip is None:
            return False
        everywhere = self.address.is_unspecified and not self.only_its_family
        return everywhere or collide(self.address, mapping.host_ip)


def refuse_bound_ports(rtnl: Netlink, mappings: tuple[PortMapping, ...], allowed: bool) -> None:
    """Raises CniError 100 for a port on which a process of the host listens. Says on stderr which host addresses the
    host does not have. `allowed` is the configuration's allowBoundPorts."""
    named = {mapping.host_ip for mapping in mappings if mapping.host_ip and not mapping.host_ip.is_unspecified}
    for address in sorted(named)[:LOOK_UPS]:
        if not is_local(rtnl, address):
            say(f"hostIP {address} is no address of this host: its ports answer once it is")
    if not mappings or allowed:
        return
    found = listeners(mappings)
    ways = [
        (mapping, one) for mapping in mappings for one in found.get(_key(mapping), ()) if one.is_in_the_way_of(mapping)
    ]
    if not ways:
        return
    holders = holders_of({one.inode for _mapping, one in ways})
    for mapping, one in ways:
        holder = holders.get(one.inode)
        if holder is None or not holder.reserves:
            raise CniError(
                PORT_TAKEN,
                f"host port {mapping} is taken: {holder or f'a process of user {one.user} that is not visible here'} "
                f"listens on {one}",
                "publish another port, stop that process, or let its clients reach the container: "
                '"allowBoundPorts": true',
            )


def _key(mapping: PortMapping) -> tuple[str, int]:
    return mapping.protocol, mapping.host_port


def listeners(mappings: tuple[PortMapping, ...]) -> dict[tuple[str, int], list[Listener]]:
    """The listeners on these host ports, by (protocol, port). Raises CniError 5."""
    wanted: dict[str, set[int]] = {}
    for mapping in mappings:
        wanted.setdefault(mapping.protocol, set()).add(mapping.host_port)
    found: dict[tuple[str, int], list[Listener]] = {}
    try:
        diag = Netlink(NETLINK_SOCK_DIAG)
        try:
            for protocol, ports in wanted.items():
                for one in _ask(diag, protocol, ports):
                    found.setdefault((protocol, one.port), []).append(one)
        finally:
            diag.close()
    except OSError as error:
        if error.errno not in ABSENT:
            raise kernel_refused("asking who listens on the host ports", error) from None
    return found


def of_ports(protocol: str, ports: set[int]) -> list[Listener]:
    """The listeners of one protocol on these ports, in this thread's network namespace. Raises OSError."""
    diag = Netlink(NETLINK_SOCK_DIAG)
    try:
        return list(_ask(diag, protocol, ports))
    finally:
        diag.close()


def _ask(diag: Netlink, protocol: str, ports: set[int]) -> Iterator[Listener]:
    """Yields the listeners. The kernel looks for a single port; for several, all sockets are listed."""
    socket = _ID.pack(min(ports).to_bytes(2, "big") if len(ports) == 1 else bytes(2))
    states = STATES[protocol]
    if protocol == "tcp":
        asked = [(TCPDIAG_GETSOCK, _OLD.pack(0, 0, 0, 0, socket, states, 0))]
    else:
        number = PROTOCOLS[protocol]
        asked = [(SOCK_DIAG_BY_FAMILY, _NEW.pack(family, number, 0, 0, states, socket)) for family in FAMILY.values()]
    for kind, payload in asked:
        for answer in diag.dump(kind, payload):
            one = _read(protocol, answer)
            if one.port in ports:
                yield one


def _read(protocol: str, answer: bytes) -> Listener:
    family, _state, _timer, _retrans, port, _dport, source, _target, _link, _cookie, *numbers = _MESSAGE.unpack_from(
        answer
    )
    _expires, _read_queue, _write_queue, user, inode = numbers
    address = from_packed(source[:4] if family == FAMILY[4] else source)
    if address.version == 6 and address.number >> 32 == 0xFFFF:
        address = Address(4, address.number & 0xFFFFFFFF)
    only = attributes(answer, _MESSAGE.size).get(INET_DIAG_SKV6ONLY, b"\1")
    return Listener(protocol, address, int.from_bytes(port, "big"), only != b"\0", inode, user)


# Who owns a socket


class Holder(Value):
    """A process with a socket. `reserves` marks a runtime's process that only holds the port."""

    process: int
    program: str
    reserves: bool

    def __str__(self) -> str:
        return f"{self.program} (PID {self.process})"


def holders_of(inodes: set[int]) -> dict[int, Holder]:
    """The processes that hold these sockets, by inode. A reserver wins over other holders, because its parent may still
    hold the socket as well; it was started last and is looked for first."""
    left, found = set(inodes), {}
    programs: dict[int, Holder] = {}

    def take(process: int) -> None:
        for inode in _sockets(process) & left:
            found[inode] = programs[process]
            left.discard(inode)

    for process in sorted((int(name) for name in posix.listdir("/proc") if name.isdigit()), reverse=True):
        programs[process] = _program(process)
        if programs[process].reserves:
            take(process)
        if not left:
            return found
    for process in reversed(programs):  # a server's first process wins over its workers
        take(process)
    return found


def _program(process: int) -> Holder:
    name = _text(f"/proc/{process}/comm").strip()
    words = _text(f"/proc/{process}/cmdline").split("\0") if name == "sleep" else []
    return Holder(process, name, bool(reserver(name, words)))


def reserver(name: str, words: list[str]) -> str:
    """The runtime for which a process of this name and command line only holds the port, "" for none."""
    if name == "sleep" and words[1:2] == ["infinity"]:
        return "nerdctl's"  # which passes the sockets to it (its pkg/portutil, 2.1.6 and newer)
    return RESERVERS.get(name, "")


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""  # the process has ended


def _sockets(process: int) -> set[int]:
    """The inodes of the sockets that the process holds."""
    folder = f"/proc/{process}/fd"
    found: set[int] = set()
    try:
        names = posix.listdir(folder)
    except OSError:
        return found  # the process has ended, or is another user's
    for name in names:
        try:
            target = posix.readlink(f"{folder}/{name}")
        except OSError:
            continue  # the descriptor was closed meanwhile
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found
