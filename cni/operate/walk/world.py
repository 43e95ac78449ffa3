"""The host as a walk sees it: our records, the kernel's answers, and from where packets are expected.

It changes nothing. `follow` follows a packet through it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from cni.fastpath import differences
from cni.host import Host
from cni.kernel.links import all_links
from cni.kernel.netns import open_netns
from cni.model.attachment import Attachment
from cni.model.config import LEAST_MTU
from cni.operate.moved_link import moved_link
from cni.operate.repair import table_differences
from cni.operate.walk.judge import Judge
from cni.operate.walk.kernel import Kernel
from cni.operate.walk.remedy import Traffic
from cni.operate.walk.step import Step, stop
from cni.protocol.errors import CniError
from cni.verbs.drift import Look, host_problems
from nft.addresses import Address, Prefix, parse_address

OVERLAYS = ("flannel", "cilium", "cali", "tunl", "vxlan", "kube-", "weave", "docker", "br-", "virbr", "podman", "cni")


SMALL = "IPv6 needs 1280: the kernel removes its addresses"
# Sysctls that the walk checks itself.
WALKED = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/")


@dataclass(frozen=True)
class Client:
    """Where a packet comes from; `link` is "lo" for the host itself."""

    link: str
    address: Address
    named: bool = False  # somebody asks about this client, so it needs an answer, or the reason

    @property
    def is_host(self) -> bool:
        return self.link == "lo"

    def __str__(self) -> str:
        if self.is_host:
            return f"the host itself ({self.address})"
        return f"{self.address} by {self.link}" if self.link else "anybody (no link out has such an address now)"


class World:
    """Make it inside a transaction of `host`; later only the kernel is asked."""

    def __init__(self, host: Host) -> None:
        self.kernel = Kernel()
        self.items = host.records()
        self.table_steps = [_repair("table", problem) for problem in table_differences(host, self.items)]
        self.beside_the_fast_path = differences(host.handles)
        look = Look(all_links(host.rtnl))
        self._problems = {item.ident: host_problems(host, item, look) for item in self.items}
        self._insides: dict[str, Kernel | str] = {}
        self.discovered: dict[tuple[str, int | Address], list[Step]] = {}

    def close(self) -> None:
        self.kernel.close()
        for inside in self._insides.values():
            if isinstance(inside, Kernel):
                inside.close()

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.kernel.rules, self.kernel)

    def drift(self, item: Attachment) -> list[Step]:
        """The differences from the record on the host's side; of kind `link` if nothing can get through."""
        problems = [one for one in self._problems[item.ident] if not one.startswith(WALKED)]
        if self.is_ended(item):
            return []
        if f"the link {item.link} is missing" in problems:
            return [self._lost_link(item)]
        if not problems:
            return []
        kind = "link" if any(one.startswith(("the bridge", "the link")) for one in problems) else "drift"
        what, bridge = f"{item.ident}: {'; '.join(problems)}", self.kernel.links.get(item.bridge)
        if bridge is not None and bridge.mtu < LEAST_MTU[6] and item.address_of(6) is not None:
            mtu = max([link.mtu for link in self.kernel.links.values() if link.master == bridge.index], default=0)
            wider = f"ip link set {item.bridge} mtu {mtu if mtu >= LEAST_MTU[6] else 1500}"
            return [stop(kind, what, f"the MTU of {item.bridge} is {bridge.mtu}, and {SMALL}", wider, "nftcni repair")]
        return [stop(kind, what, "", "nftcni repair")]

    def _lost_link(self, item: Attachment) -> Step:
        what = f"{item.ident}: the link {item.link} to it is missing"
        inside = self.inside(item)
        found = moved_link(item, inside.netns) if isinstance(inside, Kernel) else None
        if found is not None:
            return stop("link", what, found.where, *found.remedy)
        return stop("link", what, "somebody deleted it", f"nftcni repair {item.network}/{item.container}")

    def is_ended(self, item: Attachment) -> bool:
        """Whether its namespace is gone, and with it the link."""
        return isinstance(self.inside(item), str) and (not item.kind.own_link or item.link not in self.kernel.links)

    def has_drift(self, item: Attachment) -> bool:
        return bool(self.table_steps or self._problems[item.ident])

    # The networks

    @cached_property
    def bridges(self) -> tuple[str, ...]:
        return tuple(sorted({item.bridge for item in self.items if item.bridge and not item.uplink}))

    @cached_property
    def subnets(self) -> tuple[Prefix, ...]:
        found = {lease.address.network: None for item in self.items for lease in item.leases}
        return tuple(found)

    @cached_property
    def traffic(self) -> Traffic:
        """What remedies have to let through: all networks' bridges and subnets."""
        ports = {link.master for link in self.kernel.links.values() if link.kind not in ("veth", "tun")}
        others = [
            link.name
            for link in self.kernel.links.values()
            if link.kind == "bridge"
            and link.name not in self.bridges
            and link.index not in ports
            and link.name not in self.uplinks
        ]
        adopted = tuple(sorted({item.bridge for item in self.items if item.bridge and item.uplink}))
        guests = tuple(address for item in self.items if item.bridge in adopted for address in item.addresses)
        return Traffic(self.bridges, self.subnets, tuple(sorted(others)), self.uplinks, adopted, guests)

    @cached_property
    def uplinks(self) -> tuple[str, ...]:
        """The links of default routes; without any, those that have an address and lead to no containers."""
        found = [link for version in (4, 6) for link in self.kernel.default_links(version)]
        return tuple(dict.fromkeys(found)) or tuple(self._addressed)

    @cached_property
    def _addressed(self) -> list[str]:
        found = []
        for name, prefix in self.kernel.addresses:
            link = self.kernel.links.get(name)
            if link and link.up and name != "lo" and name not in self.bridges and not name.startswith(OVERLAYS):
                own = 4 if prefix.version == 4 else 6
                if prefix.length < (32 if own == 4 else 128) and not is_link_local(prefix.address):
                    found.append(name)
        return list(dict.fromkeys(found))

    # Where packets come from

    def clients(self, version: int) -> list[Client]:
        """One client for each uplink: a known neighbour, else the gateway, else any other address of its subnet."""
        found = []
        links = list(dict.fromkeys((*self.uplinks, *self._addressed)))
        # A second uplink without a cable keeps nobody from coming by the first one.
        alive = [name for name in links if name not in self.kernel.links or self.kernel.links[name].carrier]
        for link in alive or links:
            prefixes = [
                prefix
                for prefix in self.kernel.addresses_of(link)
                if prefix.version == version and not is_link_local(prefix.address)
            ]
            if not prefixes or self._is_inside(link, prefixes):
                continue
            near = [
                address
                for (name, address), (state, _mac) in self.kernel.neighbours.items()
                if name == link
                and state not in ("FAILED", "INCOMPLETE")
                and any(address in prefix.network for prefix in prefixes)
                and not self.kernel.has(address)
                and not any(address in item.addresses for item in self.items)
            ]
            for address in sorted(near)[:4] or [_other(prefixes[0])]:
                found.append(Client(link, address))
        # Without any uplink now, there are filters all the same.
        return found or [Client("", parse_address("192.0.2.1" if version == 4 else "2001:db8::1"))]

    def _is_inside(self, link: str, prefixes: list[Prefix]) -> bool:
        """Whether containers on another link have addresses there."""
        others = (address for item in self.items if item.bridge != link for address in item.addresses)
        return any(address in prefix.network for address in others for prefix in prefixes)

    def client_at(self, address: Address) -> Client:
        """The client with a named address: it comes by the link with its subnet, else by the default route."""
        if self.kernel.has(address) or address.is_loopback:
            return Client("lo", address)
        nearest = [(prefix.length, name) for name, prefix in self.kernel.addresses if address in prefix.network]
        if nearest:
            return Client(max(nearest)[1], address)
        defaults = self.kernel.default_links(address.version)
        way = self.kernel.route(address)
        return Client(defaults[0] if defaults else way.link if way.kind == "unicast" else "", address, named=True)

    def host_address(self, client: Client) -> Address | None:
        """The address that the client would ask."""
        if client.is_host:
            return client.address
        own = [
            prefix
            for name, prefix in self.kernel.addresses
            if prefix.version == client.address.version and name == (client.link or name) and name != "lo"
        ]
        wide = [prefix for prefix in own if not is_link_local(prefix.address)]
        near = [prefix for prefix in wide if client.address in prefix.network] or wide
        return near[0].address if near else None

    # Inside the containers

    def inside(self, item: Attachment) -> Kernel | str:
        """The container's own kernel, or why there is none."""
        if item.sandbox not in self._insides:
            self._insides[item.sandbox] = self._open(item)
        return self._insides[item.sandbox]

    def _open(self, item: Attachment) -> Kernel | str:
        try:
            netns = open_netns(item.sandbox)
        except CniError as error:
            return error.msg
        try:
            return Kernel(netns)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(netns)
            raise

    def of_container(self, words: str) -> Iterator[Attachment]:
        """Yields the attachments by identity, `network/container`, container ID, or the beginning of one."""
        for item in self.items:
            network, container, _ifname = item.ident.split("/")
            if words in (item.ident, f"{network}/{container}", container) or (
                len(words) >= 4 and (container.startswith(words) or item.container.startswith(words))
            ):
                yield item


def _repair(kind: str, problem: str) -> Step:
    return stop(kind, problem, "", "nftcni repair")


def is_link_local(address: Address) -> bool:
    if address.version == 4:
        return address.number >> 16 == 0xA9FE
    return address.number >> 118 == 0xFE80 >> 6


def _other(prefix: Prefix) -> Address:
    """Another address of the subnet."""
    first = prefix.first + 1
    return Address(prefix.version, first if first != prefix.address.number else first + 1)
