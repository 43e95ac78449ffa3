"""Removes rules and chains of the reference plugins that nobody needs any more: those of containers that are gone or
ours by now, and those that they shared. It uses nf_tables, where iptables-nft keeps its rules as well.

It says what it keeps: chains that a container still needs, chains with somebody's own rules, and chains that alone let
packets through a policy of drop.
"""

from __future__ import annotations

import os
import re

from cni.host import Host
from cni.model.ipam import LEASE_FILES
from cni.model.reference import ADMIN, FORWARD, HOSTPORTS, ISOLATION, MASQUERADE, PORTS, SHARED, TABLES, Traces
from cni.predecessor import forward_drops, listed
from cni.state.lease_files import LeaseFiles
from nft import rules
from nft.netlink import Netlink
from nft.rules import Chain, Rule

OWNER = re.compile(rb'name: "([^"]+)" id: "([^"]+)"')  # in the comments of the plugins' iptables rules
CONTAINERS = re.compile(r"CNI-(DN-)?[0-9a-f]+")


def remove_leftovers(host: Host, living: list[Traces], dead: list[Traces], dry_run: bool) -> list[str]:
    """Returns what was done, line by line. `living` are containers that still need their rules, `dead` those that do
    not; for others it finds out."""
    netlink = host.table.netlink
    done_with: set[tuple[str, ...]] = {(item.network, item.container) for item in dead}
    done_with |= {tuple(ident.split("/")[:2]) for ident in host.store.identities()}
    there = rules.tables(netlink)
    doomed: list[Rule] = []
    chains: list[Chain] = []
    said: list[str] = []
    emptied: list[tuple[str, str]] = []
    needed = False
    for table in (table for table in TABLES if table in there):
        found = rules.rules(netlink, *table)
        if table[1] == "nat":
            kept, gone = _containers(found, living, done_with)
            doomed += gone
            names = {chain for chain in rules.chains(netlink, *table) if CONTAINERS.fullmatch(chain.name)}
            chains += sorted(names - kept, key=str)
            needed |= bool(kept)
        elif table[1] in (HOSTPORTS, MASQUERADE):
            if not any(item.has_rule(rule) for item in living for rule in found):
                emptied.append(table)
            doomed += [rule for rule in found if rule.comment and not any(item.has_rule(rule) for item in living)]
    for table in (table for table in TABLES if table in there):
        found = [rule for rule in rules.rules(netlink, *table) if rule not in doomed]
        if table[1] == "nat" and not any(rule.chain.name == PORTS for rule in found):
            _drop(netlink, table, SHARED, found, doomed, chains)
        elif table[1] == "filter":
            said += _forwarding(host, table, found, living, needed, doomed, chains)
    if not dry_run:
        rules.delete(netlink, doomed, chains, emptied)
    would = "would remove" if dry_run else "removed"
    said += [f"{would} the table {' '.join(table)}" for table in emptied]
    said += [f"{would} the chain {chain}" for chain in chains]
    return said + [f"{would} {len(doomed)} rules of the reference plugins"] * bool(doomed)


def _containers(
    found: list[Rule], living: list[Traces], done_with: set[tuple[str, ...]]
) -> tuple[set[Chain], list[Rule]]:
    """(chains of containers that need theirs, rules in and to all other containers' chains)."""
    owned: dict[Chain, tuple[str, str]] = {}
    for rule in found:
        owner = OWNER.search(rule.code)
        for name in (rule.chain.name, rule.target):
            if owner and CONTAINERS.fullmatch(name):
                owned[rule.chain.replace(name=name)] = (owner[1].decode(), owner[2].decode())
    kept = {chain for chain, owner in owned.items() if owner not in done_with and _lives(*owner)}
    kept |= {rule.chain for rule in found if any(item.has_chain(rule.chain) for item in living)}
    gone = [
        rule
        for rule in found
        for chain in (rule.chain, rule.chain.replace(name=rule.target))
        if CONTAINERS.fullmatch(chain.name) and chain not in kept
    ]
    return kept, list(dict.fromkeys(gone))


def _lives(network: str, container: str) -> bool:
    """Whether a container that the cache does not know has a lease of this boot."""
    folder = f"{LEASE_FILES}/{network}"
    if not os.path.isdir(folder):
        return False
    files = LeaseFiles(folder)
    return any(f"container {container} " in files.holder(address) for address in listed(folder))


def _forwarding(
    host: Host,
    table: tuple[str, str],
    found: list[Rule],
    living: list[Traces],
    needed: bool,
    doomed: list[Rule],
    chains: list[Chain],
) -> list[str]:
    """Handles the shared chains that let containers through and keep networks apart."""
    netlink = host.table.netlink
    if not any(rule.chain.name.startswith("CNI-") for rule in found):
        return []
    mine = [rule for rule in found if rule.chain.name == FORWARD and rule.target != ADMIN]
    unneeded = [rule for rule in mine if not any(item.has_rule(rule) for item in living)]
    if forward_drops(netlink, table):
        own = [address.packed for item in host.records() for address in item.addresses]
        doomed += [rule for rule in unneeded if not any(map(rule.compares, own))]
        return [f"kept {' '.join(table)} {FORWARD}: the policy of FORWARD is drop there; nftcni doctor says what to do"]
    doomed += unneeded
    if any(rule.chain.name == ADMIN for rule in found):
        return [f"kept {' '.join(table)} {FORWARD}: {ADMIN} has somebody's own rules"]
    if all(rule in doomed for rule in mine):
        _drop(netlink, table, (FORWARD, ADMIN), found, doomed, chains)
    if not needed and not living:
        _drop(netlink, table, ISOLATION, found, doomed, chains)
    return []


def _drop(
    netlink: Netlink,
    table: tuple[str, str],
    names: tuple[str, ...],
    found: list[Rule],
    doomed: list[Rule],
    chains: list[Chain],
) -> None:
    """Adds the chains of these names, with the rules in them and the rules that lead to them."""
    doomed += [rule for rule in found if (rule.chain.name in names or rule.target in names) and rule not in doomed]
    chains += [chain for chain in rules.chains(netlink, *table) if chain.name in names]
