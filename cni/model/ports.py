"""Published ports: parses `runtimeConfig.portMappings`, and decides which two of them exclude each other on one host.

`projection` turns a mapping into an element; `state` knows which ports are held on this host.
"""

from __future__ import annotations

from cni.model.names import is_first
from cni.protocol.errors import INVALID_CONFIG, CniError
from nft.addresses import Address, parse_address
from nft.elements import PROTOCOLS
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.protocol.fields import Fields
    from nft.addresses import Prefix

    Holders = dict[str, list[tuple[Address, str]]]  # host address and identity, by the port's claim

ANY = {4: Address(4, 0), 6: Address(6, 0)}
BROADCAST = Address(4, 0xFFFFFFFF)


class PortMapping(Value):
    """One published port. `host_ip` None, from a mapping without hostIP, means every family that the container has."""

    protocol: str
    host_ip: Address | None
    host_port: int
    container_port: int

    def __str__(self) -> str:
        host = "*" if self.host_ip is None else f"[{self.host_ip}]" if self.host_ip.version == 6 else str(self.host_ip)
        return f"{host}:{self.host_port}/{self.protocol}"

    @property
    def claim(self) -> str:
        """The name under which this port is claimed on the host, whatever its address."""
        return f"{self.protocol}-{self.host_port}"


def collide(one: Address, other: Address) -> bool:
    """Whether one port on both addresses would be refused, by bind(2)'s rule for sockets."""
    return one.version == other.version and (one == other or one.is_unspecified or other.is_unspecified)


class Occupied:
    """The holders of one port by address. It finds who excludes another address without looking at all of them."""

    def __init__(self, holders: Iterable[tuple[Address, object]] = ()) -> None:
        self._by_address: dict[Address, object] = {}
        self._by_version: dict[int, Address] = {}
        for address, who in holders:
            self.add(address, who)

    def add(self, address: Address, who: object) -> None:
        self._by_address.setdefault(address, who)
        self._by_version.setdefault(address.version, address)

    def find(self, address: Address) -> tuple[Address, object] | None:
        """(address, holder) of one that `collide` finds in conflict with this address, None without one."""
        if address.is_unspecified:
            met = self._by_version.get(address.version)
        else:
            met = next((one for one in (address, ANY[address.version]) if one in self._by_address), None)
        return None if met is None else (met, self._by_address[met])


def by_claim(mappings: Iterable[PortMapping]) -> dict[str, list[PortMapping]]:
    """The mappings grouped by their port's claim."""
    found: dict[str, list[PortMapping]] = {}
    for mapping in mappings:
        found.setdefault(mapping.claim, []).append(mapping)
    return found


def parse_port_mappings(runtime: Fields) -> tuple[PortMapping, ...]:
    """The mappings in the given order, without exact duplicates. Raises CniError 7."""
    return tuple({_parse_one(fields): None for fields in runtime.sections("portMappings")})


def _parse_one(fields: Fields) -> PortMapping:
    protocol = fields.text("protocol")
    if protocol not in PROTOCOLS:
        raise fields.fail("protocol", "must be one of tcp, udp, sctp, in lower case")
    ports = []
    for key in ("hostPort", "containerPort"):
        port = fields.number(key, 0, 1, 65535)
        if not port:
            raise fields.fail(key, "is required")
        ports.append(port)
    host_ip = fields.parsed("hostIP", parse_address)
    if host_ip == Address(6, 1):
        raise fields.fail(
            "hostIP",
            "the kernel has no way to forward a port of ::1 (it takes replies from ::1 only on the loopback device)",
        )
    if host_ip is not None and host_ip.is_multicast:
        raise fields.fail("hostIP", "a multicast address cannot be published")
    if host_ip is not None and (host_ip == BROADCAST or host_ip.version == 6 and host_ip.is_link_local):
        raise fields.fail("hostIP", "an address of one link alone cannot be published: which link is not said")
    return PortMapping(protocol, host_ip, ports[0], ports[1])


def versions_of(prefixes: Iterable[Prefix]) -> tuple[int, ...]:
    """The IP versions of the prefixes, each once."""
    return tuple(sorted({prefix.version for prefix in prefixes}))


def for_families(
    mappings: tuple[PortMapping, ...], versions: tuple[int, ...], ifname: str = ""
) -> tuple[PortMapping, ...]:
    """The mappings of a container with addresses of these IP versions, each with a host address.

    A host address of a family that the container lacks is ignored, as by the reference portmap, except on the
    container's first interface (`ifname`), where it is refused: the port would be dead. Runtimes ask every network for
    all ports (nerdctl fills in 0.0.0.0), so on further networks it means nothing. Raises CniError 7 for a refused one,
    and for two mappings that collide.
    """
    found: list[PortMapping] = []
    first: dict[tuple[str, int, int], PortMapping] = {}
    several: dict[tuple[str, int, int], Occupied] = {}
    for mapping in mappings:
        wanted = [ANY[version] for version in versions] if mapping.host_ip is None else [mapping.host_ip]
        for host_ip in wanted:
            if host_ip.version not in versions:
                if not is_first(ifname):
                    continue
                raise CniError(
                    INVALID_CONFIG,
                    f"portMappings: {mapping}: hostIP {host_ip} is IPv{host_ip.version}, "
                    f"but the container has no IPv{host_ip.version} address on {ifname}",
                    "if it has several networks, put the one with such an address first",
                )
            concrete = PortMapping(mapping.protocol, host_ip, mapping.host_port, mapping.container_port)
            key = mapping.protocol, mapping.host_port, host_ip.version
            other = first.setdefault(key, concrete)
            if other is not concrete:
                assert other.host_ip is not None
                holders = several.setdefault(key, Occupied([(other.host_ip, other)]))
                met = holders.find(host_ip)
                if met is not None and met[1] == concrete:
                    continue  # no other mapping of this port could collide with it
                if met is not None:
                    raise CniError(INVALID_CONFIG, f"portMappings: {concrete} is asked for twice, also as {met[1]}")
                holders.add(host_ip, concrete)
            found.append(concrete)
    return tuple(found)
