"""What `doctor` checks about the host's links: MTUs, MAC addresses, and who is at their other end."""

from __future__ import annotations

import itertools

from cni.kernel.rtnetlink import RT_TABLE_MAIN
from cni.model.attachment import Attachment
from cni.operate.walk.kernel import Kernel
from cni.operate.walk.step import Step, warn
from cni.operate.walk.world import World
from nft.addresses import parse_address


def duplicate_macs(world: World) -> list[Step]:
    """Finds two links with one MAC address on a bridge."""
    found = []
    seen: dict[tuple[str, bytes], str] = {}
    for item in world.items:
        if item.bridge and item.mac and item.kind.own_link:
            other = seen.setdefault((item.bridge, item.mac), item.ident)
            if other != item.ident:
                mac = item.mac.hex(":")
                found.append(
                    warn(
                        "duplicate-mac",
                        f"{other} and {item.ident} both have the MAC address {mac} on {item.bridge}",
                        "the bridge sends to whichever sent last; give them different ones (mac, runtimeConfig.mac)",
                    )
                )
    return found


def mtus(world: World) -> list[Step]:
    """Finds links of different MTUs: a frame longer than the pair's other end accepts is silently dropped
    (is_skb_forwardable)."""
    found = []
    for name in world.bridges:
        bridge = world.kernel.links.get(name)
        items = [item for item in world.items if item.bridge == name]
        sizes = {item: _sizes(world, item) for item in items}
        if bridge is None or not items:
            continue
        mtu = next((item.mtu for item in items if item.mtu), 0) or _usual(
            [bridge.mtu, *itertools.chain(*sizes.values())]
        )
        for item, found_here in sizes.items():
            if not found_here or set(found_here) == {bridge.mtu}:
                continue
            port, within = found_here
            where = f"of {item.ifname} in {item.ident} is {within}, of its port {port}, of {name} {bridge.mtu}"
            commands = {
                f"ip link set {name} mtu {mtu}": bridge.mtu,
                f"ip link set {item.link} mtu {mtu}": port,
                f"nsenter --net={item.sandbox} ip link set {item.ifname} mtu {mtu}": within,
            }
            found.append(
                warn(
                    "mtu",
                    f"the MTU {where}",
                    "frames longer than the smallest are silently dropped",
                    *(command for command, has in commands.items() if has != mtu),
                )
            )
    return found


def _sizes(world: World, item: Attachment) -> tuple[int, ...]:
    """The MTUs of its port and of its interface, () if either is missing."""
    inside, port = world.inside(item), world.kernel.links.get(item.link)
    if not isinstance(inside, Kernel) or port is None or item.ifname not in inside.links:
        return ()
    return port.mtu, inside.links[item.ifname].mtu


def _usual(sizes: list[int]) -> int:
    """The MTU of most links, else the smallest one, which every link accepts."""
    return max(sorted(set(sizes)), key=lambda size: (sizes.count(size), size <= 1500))


def gateways(world: World) -> list[Step]:
    """Checks that the host's own router answers."""
    found = []
    for dst, table, link, kind, via in world.kernel.routes:
        if dst.length or table != RT_TABLE_MAIN or kind != "unicast" or via is None:
            continue
        used = world.kernel.route(FAR[dst.version])
        if (used.link, used.via) == (link, via) and world.kernel.neighbours.get((link, via), ("", ""))[0] == "FAILED":
            what = f"the host's router {via} on {link} does not answer"
            because = "nothing from the host or from containers gets out by it"
            found.append(warn("router", what, because, f"ip neigh flush to {via} dev {link}"))
    return found


FAR = {4: parse_address("198.18.0.1"), 6: parse_address("2001:2::1")}  # for benchmarks: RFC 2544, RFC 5180
CHECKS = (duplicate_macs, mtus, gateways)
