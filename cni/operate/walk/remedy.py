"""Commands that let published and outgoing traffic of containers through somebody else's chain, and nothing else.

The commands differ by the chain's owner: a hand-written nftables.conf, Docker, ufw, firewalld, iptables. `Traffic` says
what to let through. Pure, except that it asks which programs there are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from shutil import which

from cni.operate.walk.packet import Packet
from cni.operate.walk.ruleset import Chain, Ruleset
from nft.addresses import Address, Prefix

DNATED = "-m conntrack --ctstate DNAT"
DSTNAT = -100  # NF_IP_PRI_NAT_DST of include/uapi/linux/netfilter_ipv4.h
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin"


@dataclass(frozen=True)
class Traffic:
    """The bridges and subnets of all networks of this host. `others` are bridges of other programs' containers, which
    ours need not reach; `uplinks` lead to the rest of the world. On `adopted` bridges, another machine is the router:
    the containers there (`guests`) go out by it. The host sees only their published ports, and frames that br_netfilter
    shows to its chains."""

    bridges: tuple[str, ...]
    subnets: tuple[Prefix, ...]
    others: tuple[str, ...] = ()
    uplinks: tuple[str, ...] = ()
    adopted: tuple[str, ...] = ()
    guests: tuple[Address, ...] = ()

    @property
    def all_bridges(self) -> tuple[str, ...]:
        return (*self.bridges, *self.adopted)


def has_program(name: str) -> bool:
    return which(name, path=PATH) is not None


def firewalld_runs() -> bool:
    """Whether firewalld runs on this host."""
    from cni.operate.screen import CannotLook
    from cni.operate.walk.ruleset import program

    if not has_program("firewall-cmd"):
        return False
    try:
        return program("firewall-cmd", "--state").strip() == "running"
    except CannotLook:
        return False


def owner_of(rules: Ruleset, chain: Chain) -> str:
    """firewalld, ufw, docker, iptables, iptables-legacy or nft: the program whose commands fit the chain."""
    if chain.table == "firewalld" and firewalld_runs():
        return "firewalld"
    names = {
        other.name for other in rules.chains.values() if (other.family, other.table) == (chain.family, chain.table)
    }
    if any(name.startswith("ufw") for name in names) and has_program("ufw"):
        return "ufw"
    if chain.tool.endswith("legacy"):
        return "iptables-legacy"
    if chain.tool != "nft" or _looks_like_iptables(chain):
        return "iptables"
    return "nft"


def _looks_like_iptables(chain: Chain) -> bool:
    tables = ("filter", "mangle", "nat", "raw", "security")
    return (
        chain.family in ("ip", "ip6")
        and chain.table in tables
        and chain.name.isupper()
        and (has_program("iptables-nft") or has_program("iptables"))
    )


def let_through(rules: Ruleset, chain: Chain, packet: Packet, traffic: Traffic) -> tuple[str, ...]:
    """The commands for the base chain that dropped the packet."""
    owner = owner_of(rules, chain)
    if chain.hook in ("forward", "postrouting") and chain.family != "bridge":
        if owner == "firewalld":
            return _firewalld(traffic)
        if owner == "ufw":
            return _ufw(traffic, chain.family)
    if owner in ("iptables", "iptables-legacy"):
        return _iptables(rules, chain, packet, traffic)
    if (chain.family, chain.table) in rules.owned:
        return (f"# table {chain.family} {chain.table} has an owner: its program has to accept this traffic",)
    return tuple(f"nft '{text}'" for text in nft_rules(chain, packet, traffic))


def nft_rules(chain: Chain, packet: Packet, traffic: Traffic) -> list[str]:
    where = f"insert rule {chain.family} {chain.table} {chain.name}"
    return [f"{where} {condition} accept" for condition in _conditions(chain, packet, traffic)]


def _conditions(chain: Chain, packet: Packet, traffic: Traffic) -> list[str]:
    """The matches in nft's language."""
    links = _names(traffic.bridges)
    if packet.kind:
        return _searches(chain, packet)
    if chain.family == "bridge":
        # Not by the bridge's name: that needs another module (nft_meta_bridge).
        side = "daddr" if chain.hook in ("output", "postrouting") else "saddr"
        search = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }" if packet.version == 6 else "ether type arp"
        return [search, f"{packet.family} {side} {_subnets(traffic, packet)}"]
    if packet.iif == packet.oif and packet.iif in traffic.adopted:
        stays = f'iifname "{packet.iif}" oifname "{packet.iif}" {packet.family}'
        guests = _set([str(one) for one in traffic.guests if one.version == packet.version])
        return [f"{stays} saddr {guests}", f"{stays} daddr {guests}"]
    if _is_untranslated(packet, traffic):
        return [f"iifname {links}", f"oifname {links}"]
    if chain.hook in ("forward", "postrouting"):
        outward = f"oifname != {_names(traffic.others)}" if traffic.others else ""
        ours = [
            f"iifname {links} {outward}".strip(),
            f"oifname {links} ct state established,related",
            f"oifname {links} ct status dnat",
        ]
        lan = _names(traffic.adopted)
        published = [f"oifname {lan} ct status dnat", f"iifname {lan} ct state established,related ct status dnat"]
        return [*(ours if traffic.bridges else ()), *(published if traffic.adopted else ())]
    port = f"{packet.proto} dport {packet.original[3]}"
    if chain.hook == "ingress":  # this is before the connection tracker, and not every kernel has fib here
        own = any(packet.saddr in prefix for prefix in traffic.subnets)
        return [f"{packet.family} saddr {packet.saddr}" if own or packet.direction == "reply" else port]
    if chain.hook == "prerouting":
        if packet.iif in traffic.bridges:
            return [f"iifname {links}"]
        if packet.direction == "reply" or not packet.original[3]:
            return ["ct state established,related"] if chain.prio > -200 else [f"{packet.family} saddr {packet.saddr}"]
        if chain.prio > DSTNAT:  # the packet has the container's address and port here
            return ["ct status dnat"]
        return [f"{port} fib daddr type local"]
    if chain.hook == "output":
        if chain.prio <= -200:
            return [port]
        return [f"ct status dnat {packet.family} daddr {_subnets(traffic, packet)}"]
    if chain.hook == "egress":
        return [f"{packet.family} daddr {packet.daddr}"]
    return [f"iifname {_names(traffic.all_bridges)} ct state established,related"]


def _is_untranslated(packet: Packet, traffic: Traffic) -> bool:
    """Whether the packet goes to a container's own address, as in mode `routed`. Our table judges it, so others may let
    all through."""
    return packet.oif in traffic.bridges and packet.direction == "original" and "dnat" not in packet.status


def searching(chain: Chain, packet: Packet) -> list[str]:
    """Commands that let ARP, or neighbour discovery, through the chain."""
    if chain.tool != "nft" or (chain.name.isupper() and chain.family == "ip6" and has_program("ip6tables")):
        where = f"{iptables_of(chain)} -t {chain.table} -I {chain.name} -p ipv6-icmp --icmpv6-type"
        return [f"{where} neighbour-{kind} -j ACCEPT" for kind in ("solicitation", "advertisement")]
    where = f"insert rule {chain.family} {chain.table} {chain.name}"
    return [f"nft '{where} {condition} accept'" for condition in _searches(chain, packet)]


def _searches(chain: Chain, packet: Packet) -> list[str]:
    if packet.proto == "icmpv6":
        return ["icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"]
    if chain.family == "arp":
        return [f'iifname "{packet.iif}"' if chain.hook == "input" else f'oifname "{packet.oif}"']
    return ["ether type arp"]


def _set(items: list[str]) -> str:
    return items[0] if len(items) == 1 else "{ " + ", ".join(items) + " }"


def _subnets(traffic: Traffic, packet: Packet) -> str:
    return _set([str(prefix.network) for prefix in traffic.subnets if prefix.version == packet.version])


def _names(links: tuple[str, ...]) -> str:
    return _set([f'"{link}"' for link in links])


def _iptables(rules: Ruleset, chain: Chain, packet: Packet, traffic: Traffic) -> tuple[str, ...]:
    if packet.kind:
        return tuple(searching(chain, packet))
    name = iptables_of(chain)
    user = rules.chain(chain, "DOCKER-USER")
    where = f"{name} -t {chain.table} -I " if chain.table != "filter" else f"{name} -I "
    where += "DOCKER-USER" if user is not None and chain.hook == "forward" else chain.name
    if packet.iif == packet.oif and packet.iif in traffic.adopted:
        guests = [one for one in traffic.guests if one.version == packet.version]
        stays = f"{where} -i {packet.iif} -o {packet.iif}"
        return tuple(f"{stays} {end} {one} -j ACCEPT" for one in guests for end in ("-s", "-d"))
    if _is_untranslated(packet, traffic):
        return tuple(f"{where} {end} {bridge} -j ACCEPT" for bridge in traffic.bridges for end in ("-i", "-o"))
    if chain.hook in ("forward", "postrouting"):
        ways = [f" -o {link}" for link in traffic.uplinks] if traffic.others and traffic.uplinks else [""]
        # In mangle's and nat's POSTROUTING, iptables does not know the incoming interface.
        came = [f"-i {{}}{way}" for way in ways] if chain.hook == "forward" else []
        lines = [*came, "-o {} -m conntrack --ctstate ESTABLISHED,RELATED", f"-o {{}} {DNATED}"]
        both = [f"{where} {line.format(bridge)} -j ACCEPT" for bridge in traffic.bridges for line in lines]
        ends = ("-o", "-i") if chain.hook == "forward" else ("-o",)
        lan = [f"{where} {end} {bridge} {DNATED} -j ACCEPT" for bridge in traffic.adopted for end in ends]
        return (*both, *lan)
    if chain.hook == "prerouting" and packet.iif in traffic.bridges:
        return tuple(f"{where} -i {bridge} -j ACCEPT" for bridge in traffic.bridges)
    if chain.hook == "prerouting" and packet.direction == "reply":
        return (f"{where} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",)
    if chain.hook == "input":
        lines = ["-i {} -m conntrack --ctstate ESTABLISHED,RELATED"]
        return tuple(f"{where} {line.format(bridge)} -j ACCEPT" for bridge in traffic.all_bridges for line in lines)
    if chain.hook == "output" and chain.table != "raw":
        return tuple(
            f"{where} -d {prefix.network} -m conntrack --ctstate DNAT -j ACCEPT"
            for prefix in traffic.subnets
            if prefix.version == packet.version
        )
    return (f"{where} -p {packet.proto} --dport {packet.original[3]} -m addrtype --dst-type LOCAL -j ACCEPT",)


def _firewalld(traffic: Traffic) -> tuple[str, ...]:
    """The commands for firewalld. It accepts published ports by itself (`ct status dnat` in filter_FORWARD). A separate
    zone with a policy outwards opens the rest; the zone `trusted` would open every port to the LAN."""
    command = "firewall-cmd --permanent"
    return (
        f"{command} --new-zone=nftcni",
        *(f"{command} --zone=nftcni --add-interface={bridge}" for bridge in traffic.bridges),
        f"{command} --new-policy=nftcni-out",
        f"{command} --policy=nftcni-out --add-ingress-zone=nftcni",
        f"{command} --policy=nftcni-out --add-egress-zone=ANY",
        f"{command} --policy=nftcni-out --set-target=ACCEPT",
        "firewall-cmd --reload",
    )


def _ufw(traffic: Traffic, family: str) -> tuple[str, ...]:
    """The commands for ufw. `ufw route allow out on BRIDGE` would open unpublished ports too, and ufw has no word for
    DNAT, so a line goes into its file, after the line that accepts answers."""
    six = "6" if family == "ip6" else ""
    chain, file = f"ufw{six}-before-forward", f"/etc/ufw/before{six}.rules"
    found = f"/^-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT/a"
    lines = [f"-A {chain} -o {bridge} {DNATED} -j ACCEPT" for bridge in traffic.all_bridges]
    return (
        *(f"ufw route allow in on {bridge}" for bridge in traffic.bridges),
        *(f"sed -i '{found} {line}' {file}" for line in lines),
        "ufw reload",
    )


def delete_rule(chain: Chain, handle: int, text: str) -> str:
    if chain.tool == "nft":
        return f"nft delete rule {chain.family} {chain.table} {chain.name} handle {handle}"
    return f"{iptables_of(chain)} -t {chain.table} -D {chain.name} {text}"


def iptables_of(chain: Chain) -> str:
    """The name of the iptables program, of two families and three variants, that knows the chain."""
    name = chain.tool if chain.tool != "nft" else "iptables" if chain.family == "ip" else "ip6tables"
    return f"{name}-nft" if not name.endswith("legacy") and has_program(f"{name}-nft") else name
