"""What `doctor` finds of other plugins' rules: those that an ended container left and that lead to an address of ours.

Rules of containers that live beside ours, on the same bridge and from the same pool, do not count: lease files or the
bridge's neighbours show that they live. `leftovers` removes leftovers, for `migrate`.
"""

from __future__ import annotations

import os
import re

from cni.model.ipam import LEASE_FILES
from cni.operate.walk.ruleset import Chain, Rule
from cni.operate.walk.step import Step, warn
from cni.operate.walk.world import World
from cni.state.lease_files import LeaseFiles
from nft.addresses import Address, parse_address


def leftovers(world: World) -> list[Step]:
    """Finds rules of the reference plugins (CNI-*) and netavark for addresses or ports that are ours now."""
    found = []
    for chain in world.kernel.rules.chains.values():
        if not re.match(r"(CNI-|KUBE-MARK-|NETAVARK|nv_)", chain.name) and not chain.table.startswith(
            ("cni_", "netavark")
        ):
            continue
        if chain.table.startswith("KUBE") or chain.name.startswith("KUBE"):
            continue
        for rule in chain.rules:
            said = _concerns(world, rule)
            if said:
                found.append(
                    warn(
                        "leftover",
                        f"{chain} is left over from another plugin and leads {said}",
                        "its container is gone, and it can take the packets of the address's new owner",
                        _flush(chain),
                    )
                )
                break
    return found


def _flush(chain: Chain) -> str:
    if chain.tool == "nft":
        return f"nft flush chain {chain.family} {chain.table} {chain.name}"
    return f"{chain.tool} -t {chain.table} -F {chain.name}"


def _concerns(world: World, rule: Rule) -> str:
    for expr in rule.exprs:
        body = expr.get("dnat") if isinstance(expr, dict) else None
        address = body.get("addr") if isinstance(body, dict) else None
        if isinstance(address, str):
            try:
                target = parse_address(address)
            except ValueError:
                continue
            if any(target in subnet.network for subnet in world.subnets) and not _is_of_others(world, target):
                return f"to {target}, an address of ours"
    return ""


def _is_of_others(world: World, address: Address) -> bool:
    """Whether a living container that another plugin attached to a network of ours has the address."""
    if any(address in item.addresses for item in world.items):
        return False
    if any(world.kernel.neighbours.get((item.bridge, address), ("", ""))[0] == "REACHABLE" for item in world.items):
        return True
    folders = os.listdir(LEASE_FILES) if os.path.isdir(LEASE_FILES) else []
    return any(LeaseFiles(f"{LEASE_FILES}/{name}").holder(address) for name in folders)
