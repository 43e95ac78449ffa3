"""What the kernel of one network namespace answers: links, addresses, neighbours, routes, rules, sockets, filters.

It asks pyroute2, /proc and the nft program, once each, because a walk is over in a moment. It changes nothing. The walk
knows what the answers mean for a packet.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from shutil import which
from typing import Any

from cni.kernel import rtnetlink
from cni.kernel.netns import Inside
from cni.operate.screen import CannotLook
from cni.operate.walk.ipsec import Policy, read_policies
from cni.operate.walk.iptables_save import add_iptables, legacy_tables
from cni.operate.walk.lookup import KINDS, PacketRoute, look_up
from cni.operate.walk.packet import Packet
from cni.operate.walk.policy import Rule, read_rule
from cni.operate.walk.ruleset import Ruleset, add_devices, lacks_devices, program, read_ruleset
from cni.operate.walk.sockets import Listener, listeners
from nft.addresses import FAMILY, Address, Prefix, parse_address
from nft.framing import attributes
from nft.messages import FAMILY_NAMES
from nft.netlink import Netlink
from nft.table import Table

NEIGHBOUR_STATES = {0x20: "FAILED", 0x80: "PERMANENT", 0x02: "REACHABLE", 0x04: "STALE", 0x01: "INCOMPLETE"}
INSTALL = "install the distribution's package python3-pyroute2 (py3-pyroute2 on Alpine)"


@dataclass(frozen=True)
class Link:
    index: int
    name: str
    kind: str
    up: bool
    carrier: bool
    mtu: int
    mac: str
    arp: bool
    master: int
    peer: int
    group: int
    data: Any
    port: Any
    counters: dict[str, int] = field(default_factory=dict, compare=False)

    def of_port(self, key: str, default: Any = None) -> Any:
        return _attr(self.port, f"IFLA_BRPORT_{key}", default)


def pyroute2() -> Any:
    """The library. Raises CannotLook if it is missing."""
    if "site" not in sys.modules or not any(path.endswith("-packages") for path in sys.path):
        import site

        site.main()  # the plugin runs with -S
    try:
        import pyroute2 as library  # type: ignore[import-not-found]

        library.IPRoute  # noqa: B018  # an empty folder of that name is a module too
    except (ImportError, AttributeError):
        raise CannotLook(f"pyroute2 is missing: {INSTALL}") from None
    return library


class Kernel:
    """The kernel's answers for the network namespace of a descriptor, or for the process's own (-1)."""

    def __init__(self, netns: int = -1) -> None:
        self.netns = netns
        self._policies: dict[int, list[Rule]] = {}
        library = pyroute2()
        with self.entered():
            try:
                self._route = library.IPRoute()
                self._rtnl = Netlink()
            except OSError as error:
                raise CannotLook(f"rtnetlink: {error}") from None

    def close(self) -> None:
        self._route.close()
        self._rtnl.close()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        if self.netns < 0:
            yield
        else:
            with Inside(self.netns):
                yield

    # Links and addresses

    @cached_property
    def links(self) -> dict[str, Link]:
        found = {}
        for item in self._route.get_links():
            info = item.get_attr("IFLA_LINKINFO")
            name = item.get_attr("IFLA_IFNAME")
            found[name] = Link(
                item["index"],
                name,
                _attr(info, "IFLA_INFO_KIND", ""),
                bool(item["flags"] & 1),
                bool(item["flags"] & 0x10000),  # IFF_LOWER_UP; IFF_RUNNING comes a second later (linkwatch)
                item.get_attr("IFLA_MTU") or 0,
                item.get_attr("IFLA_ADDRESS") or "",
                not item["flags"] & 0x80,  # IFF_NOARP
                item.get_attr("IFLA_MASTER") or 0,
                item.get_attr("IFLA_LINK") or 0,
                item.get_attr("IFLA_GROUP") or 0,
                _attr(info, "IFLA_INFO_DATA"),
                _attr(info, "IFLA_INFO_SLAVE_DATA"),
                dict(item.get_attr("IFLA_STATS64") or {}),
            )
        return found

    def port_attribute(self, link: Link, number: int) -> bytes:
        """An attribute of a bridge port for which pyroute2 may have no name; b"" if the kernel lacks it."""
        answer = self._rtnl.ask(rtnetlink.RTM_GETLINK, rtnetlink.get_link_at(link.index))
        info = attributes(attributes(answer, rtnetlink.IFINFO.size).get(rtnetlink.IFLA_LINKINFO, b""))
        return attributes(info.get(rtnetlink.IFLA_INFO_SLAVE_DATA, b"")).get(number, b"")

    @cached_property
    def names(self) -> dict[int, str]:
        return {link.index: name for name, link in self.links.items()}

    @cached_property
    def _held(self) -> list[tuple[str, Prefix, int]]:
        found = []
        vrfs = {link.index for link in self.links.values() if link.kind == "vrf"}  # with tables of their own (vrf.rst)
        elsewhere = vrfs | {link.index for link in self.links.values() if link.master in vrfs}
        for item in (one for one in self._route.get_addr() if one["index"] not in elsewhere):
            text, flags = item.get_attr("IFA_LOCAL") or item.get_attr("IFA_ADDRESS"), item.get_attr("IFA_FLAGS")
            prefix = Prefix(parse_address(text), item["prefixlen"])
            found.append((self.names.get(item["index"], ""), prefix, item["flags"] if flags is None else flags))
        return found

    @cached_property
    def addresses(self) -> list[tuple[str, Prefix]]:
        """(link, address with its length) of all families; without those in a VRF."""
        return [(name, prefix) for name, prefix, _flags in self._held]

    @cached_property
    def address_flags(self) -> dict[tuple[str, Address], int]:
        """IFA_F_* by (link, address)."""
        return {(name, prefix.address): flags for name, prefix, flags in self._held}

    def addresses_of(self, link: str) -> list[Prefix]:
        return [prefix for name, prefix in self.addresses if name == link]

    def has(self, address: Address) -> bool:
        return any(prefix.address == address for _name, prefix in self.addresses)

    @cached_property
    def neighbours(self) -> dict[tuple[str, Address], tuple[str, str]]:
        """(state, MAC address) by (link, address)."""
        found = {}
        for family in FAMILY.values():
            for item in self._route.get_neighbours(family=family):
                text = item.get_attr("NDA_DST")
                if text:
                    key = (self.names.get(item["ifindex"], ""), parse_address(text))
                    found[key] = (NEIGHBOUR_STATES.get(item["state"], ""), item.get_attr("NDA_LLADDR") or "")
        return found

    # Routes

    def route(
        self, dst: Address, src: Address | None = None, iif: str = "", mark: int = 0, packet: Packet | None = None
    ) -> PacketRoute:
        """How the kernel would route a packet that came in by `iif`, or one of the host's own. The look-up also tells
        whether it would accept one from there, as it checks rp_filter and forwarding. `packet` has the ports."""
        index = self.links[iif].index if iif else 0
        return look_up(self._rtnl, self.names, dst, src, index, mark, packet)

    @cached_property
    def routes(self) -> list[tuple[Prefix, int, str, str, Address | None]]:
        """(destination, table, link, kind, gateway) of all routes."""
        found = []
        for version, family in FAMILY.items():
            for item in self._route.get_routes(family=family):
                dst = item.get_attr("RTA_DST")
                base = parse_address(dst) if dst else Address(version, 0)
                via, table = item.get_attr("RTA_GATEWAY"), item.get_attr("RTA_TABLE") or item["table"]
                name = self.names.get(item.get_attr("RTA_OIF") or 0, "")
                kind = KINDS.get(item["type"], "")
                if base.version == version:
                    gateway = parse_address(via) if via else None
                    found.append((Prefix(base, item["dst_len"]), table, name, kind, gateway))
        return found

    def default_links(self, version: int) -> list[str]:
        """Links of default routes in the main table."""
        wanted = (0, version, rtnetlink.RT_TABLE_MAIN, "unicast")
        all_of_them = ((dst.length, dst.version, table, kind, link) for dst, table, link, kind, _via in self.routes)
        return list(dict.fromkeys(link for *route, link in all_of_them if tuple(route) == wanted and link))

    def policy_rules(self, version: int) -> list[Rule]:
        """The rules of `ip rule` in the kernel's order."""
        if version not in self._policies:
            found = [read_rule(item) for item in self._route.get_rules(family=FAMILY[version])]
            self._policies[version] = sorted(found, key=lambda rule: rule.priority)
        return self._policies[version]

    # What rules of a firewall ask for (matching.HostQueries)

    def address_type(self, address: Address) -> str:
        if address.is_multicast:
            return "multicast"
        way = self.route(address)
        return way.kind or ("local" if self.has(address) else "unicast")

    def reverse_path(self, packet: Packet, same_link: bool) -> str:
        if packet.saddr.is_link_local:
            return packet.iif
        way = self.route(packet.saddr, mark=packet.mark or 0)
        return way.link if way.kind == "unicast" and (not same_link or way.link == packet.iif) else ""

    def link_kind(self, name: str) -> str:
        return self.links[name].kind if name in self.links else ""

    def link_group(self, name: str) -> int:
        return self.links[name].group if name in self.links else 0

    def bridge_of(self, port: str) -> str:
        return self.names.get(self.links[port].master, "") if port in self.links else ""

    # Everything else

    def sysctl(self, key: str) -> str:
        """The value of a key below /proc/sys/net, "" if the kernel lacks it."""
        with self.entered(), contextlib.suppress(OSError), open(f"/proc/sys/net/{key}", encoding="ascii") as file:
            return file.read().strip()
        return ""

    @cached_property
    def rules(self) -> Ruleset:
        with self.entered():
            sleeping = _dormant()
            if sleeping is None:
                return Ruleset()  # as in most containers: no program need be started
            found = read_ruleset(nft_says("-j", "list", "ruleset"))
            if lacks_devices(found):
                add_devices(found, nft_says("list", "chains"))
            for family, name in sleeping:
                found.without_table(FAMILY_NAMES.get(family, ""), name)
            add_iptables(found)
            return found

    @cached_property
    def ipsec(self) -> list[Policy]:
        with self.entered():
            return read_policies()

    @cached_property
    def listeners(self) -> list[Listener]:
        return self.listeners_now()

    def listeners_now(self) -> list[Listener]:
        with self.entered():
            return listeners()


def _dormant() -> list[tuple[int, str]] | None:
    """The dormant tables, whose chains the kernel skips; None if there are no rules at all."""
    table = Table()
    try:
        return table.dormant() if table.tables() or legacy_tables("ip") or legacy_tables("ip6") else None
    finally:
        table.netlink.close()


def nft_says(*words: str) -> str:
    """The output of nft, or if only the library is installed, of a process that calls it: the library may crash."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin"
    found = which("nft", path=path)
    if found:
        return program(found, *words)
    code = "import nftables, sys; n = nftables.Nftables(); n.set_json_output('-j' in sys.argv); "
    code += "print(n.cmd(' '.join(w for w in sys.argv[1:] if w != '-j'))[1])"
    return program("/usr/bin/python3", "-c", code, *words)


def _attr(message: Any, key: str, default: Any = None) -> Any:
    if message is None or not hasattr(message, "get_attr"):
        return default
    value = message.get_attr(key)
    return default if value is None else value
