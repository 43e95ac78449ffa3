"""The tables' text: sets, maps, chains and rules, written once per host and never changed by a container. Pure. The
rules of the bridge table are in `layer2`.

The callers know which elements the sets hold, `schema` says what each set means, `libnftables` loads the text. Why the
rules are as they are:

- `fib daddr type local` guards DNAT: without it the port would be taken from every packet that passes the host
  (GHSA-jv3w-x3r3-g6rm).
- raw_prerouting keeps 127/8 on the loopback device: DNAT comes before the kernel's martian check, and route_localnet on
  the bridge would let containers reach the host's own loopback services (moby#45610, CVE-2020-8558). A VRF is the
  loopback device of its own sockets (vrf.rst), and what comes from outside has passed its link's name before.
- A port of all addresses is published on 127.0.0.1 as well, but not on 127.0.0.53 and .54, where systemd-resolved
  listens.
- A link-local sender gets an immediate refusal, because no router may forward its packets (RFC 4291, 2.5.6).
- `ip6 daddr ::1 return`: the kernel cannot forward replies to ::1, and an immediate refusal beats a time-out.
- `sender`: on a bridge of ours, a known container must use one of its own addresses, on this or another of its
  networks; an unknown machine must use one that the host would route back to it (`source`). With br_netfilter, frames
  that stay on the bridge pass here too. The host has to judge those to a MAC address of the bridge or of a port, and
  any to one of its own addresses: once translated, they leave the bridge (br_nf_pre_routing_finish). Other multicasts
  and broadcasts go to siblings and host in one pass and stay on the link (ip_forward); `filter_input` keeps an internal
  network's from the host's programs. What comes from a VLAN bears the bridge's own name then, so a source behind any
  VLAN of ours will do. Link-local ones stay on the link.
- `turned` masquerades what our DNAT sends back by the link it came from, whoever asks whom: otherwise the answer would
  bypass this host. With br_netfilter the answer does pass, and `iifname` is empty there; then only a container that
  asks itself needs the masquerade, as it would drop packets from its own address.
- `masquerade to :32768-65535`: a container that leaves by a published port's number would take that port from its owner
  (CVE-2021-3773). Source ports in the range, where clients' ports are, stay the same, so UDP hole punching works.
  `random` and `fully-random` use another port for each destination, which ends hole punching, and allow 0.80 and 0.75
  of the connections per second; this range allows 0.97 of a bare `masquerade` (Linux 6.18, one client).
- filter_forward accepts established packets only if they are answers, or if their flow passed here when it began: it
  was translated, or a helper of the connection tracker expected it (FTP's data). It judges every other packet of the
  original direction: a flow that began while the table was missing ends with its next packet.
- `genuine` keeps out packets that come from outside with a container's address. For IPv4, the kernel itself refuses
  those with one of the host's addresses (fib_validate_source); for IPv6, to_container does.
- INVALID packets are not translated: they would show a container's address outside, and the peer's answer would reset a
  living connection (kubernetes#74839). Only those of containers are dropped.
- `filter_output`: an INVALID packet for a container's connection is not translated and so reaches the host, which would
  answer it with a reset. Resets of the host's own connections are never INVALID.
- `unrouted`: the host forwards for containers and does not become a router between its other links. Packets that
  another rule translated pass: its author could not know that forwarding is on for containers only.
- `priority -100` and not `dstnat` on output: nft 1.0.6 refuses the name there.
- No chain may be called `fwd`, and maps with concatenated data must come from text: nft 1.0.6 makes sets of JSON ones.
"""

from __future__ import annotations

from .digest import digest
from .layer2 import PORTS
from .schema import FAST_PATH, INTERVALS, LAYER2, SETS, TABLE, WHEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

CHAINS = """
	chain portmap {
		dnat ip to ip daddr . meta l4proto . th dport map @dnat4_ip
		ip daddr 127.0.0.53-127.0.0.54 return
		dnat ip to meta l4proto . th dport map @dnat4
		ip6 saddr fe80::/10 return
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @dnat6_ip
		dnat ip6 to meta l4proto . th dport map @dnat6
	}
	chain gate {
		ip daddr . meta l4proto . th dport vmap @gated4_ip
		meta nfproto ipv4 meta l4proto . th dport vmap @gated4
		ip6 daddr . meta l4proto . th dport vmap @gated6_ip
		meta nfproto ipv6 meta l4proto . th dport vmap @gated6
	}
	chain raw_prerouting {
		type filter hook prerouting priority raw; policy accept;
		iifname "lo" return
		ip daddr 127.0.0.0/8 goto loopback
		ip saddr 127.0.0.0/8 goto loopback
		iifname @bridges goto sender
		iifname @vlan_bridges goto sender
	}
	chain loopback {
		meta iifkind "vrf" return
		drop
	}
	chain sender {
		iifname . ip saddr @containers4 return
		iifname . ip6 saddr @containers6 return
		iifname . ip saddr @cross4 return
		iifname . ip6 saddr @cross6 return
		meta pkttype host iifname . ether daddr @bridge_macs goto source
		fib daddr type { local, anycast } goto source
	}
	chain source {
		iifname @vlan_bridges fib saddr oifname @vlans return
		iifname != @vlan_bridges meta nfproto . iifname != @routed goto inside
		ip6 saddr :: ip6 daddr ff00::/8 return
		ip6 saddr fe80::/10 fib saddr . iif type != local return
		fib saddr . iif oif missing drop
	}
	chain inside {
		iifname . ether daddr @bridge_macs drop
	}
	chain filter_input {
		type filter hook input priority filter; policy accept;
		iifname @bridges meta nfproto . iifname != @routed drop
	}
	chain nat_prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump portmap
	}
	chain nat_output {
		type nat hook output priority -100; policy accept;
		ip6 daddr ::1 return
		fib daddr type local jump portmap
	}
	chain nat_postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ct status dnat ip daddr @shown4 return
		ct status dnat ip6 daddr @shown6 return
		ct status dnat ip daddr @hidden4 masquerade
		ct status dnat ip6 daddr @hidden6 masquerade
		ct status dnat jump turned
		oifname @bridges return
		oifname . ip saddr @containers4 return
		oifname . ip6 saddr @containers6 return
		oifname . ip daddr @containers4 return
		oifname . ip6 daddr @containers6 return
		iifname . ip daddr @direct4 return
		iifname . ip6 daddr @direct6 return
		ip saddr @masq4 goto leave
		ip6 saddr @masq6 goto leave
		iifname . ip saddr @containers4 return
		iifname . ip6 saddr @containers6 return
		meta nfproto . iifname @masquerading goto leave
	}
	chain turned {
		iifname . ip daddr @containers4 masquerade
		iifname . ip6 daddr @containers6 masquerade
		iifname . ip daddr @cross4 masquerade
		iifname . ip6 daddr @cross6 masquerade
		oifname . ip daddr @guests4 masquerade
		oifname . ip6 daddr @guests6 masquerade
		ip saddr . ip daddr @self4 masquerade
		ip6 saddr . ip6 daddr @self6 masquerade
		ip saddr 127.0.0.0/8 oifname . ip daddr @containers4 masquerade
	}
	chain leave {
		ip daddr 224.0.0.0/4 return
		ip6 daddr ff00::/8 return
		meta l4proto { tcp, udp, sctp } masquerade to :32768-65535
		masquerade
	}
	chain filter_forward {
		type filter hook forward priority filter; policy accept;
		ct state established,related ct status expected,snat,dnat accept
		ct direction reply ct state established,related accept
		ct state related accept
		iifname . oifname @apart jump apart
		iifname . oifname @same_net accept
		iifname @bridges jump from_bridge
		oifname @bridges goto to_bridge
		oifname . ip daddr @containers4 goto to_container
		oifname . ip6 daddr @containers6 goto to_container
		iifname @bridges accept
		iifname . ip saddr @containers4 goto from_container
		iifname . ip6 saddr @containers6 goto from_container
		meta nfproto . iifname @unrouted meta nfproto . oifname @unrouted goto transit
	}
	chain transit {
		meta nfproto . iifname @routing accept
		ct status dnat accept
		drop
	}
	chain filter_output {
		type filter hook output priority filter; policy accept;
		tcp flags rst ct state invalid drop
	}
	chain apart {
		ct status dnat return
		iifname @bridges drop
		iifname . ip saddr @containers4 oifname . ip daddr @containers4 drop
		iifname . ip6 saddr @containers6 oifname . ip6 daddr @containers6 drop
	}
	chain from_bridge {
		meta nfproto . iifname != @routed drop
		ct state invalid drop
	}
	chain from_container {
		ct state invalid drop
	}
	chain to_bridge {
		meta nfproto . oifname != @routed drop
		goto to_container
	}
	chain to_container {
		ct state invalid drop
		meta nfproto ipv6 ct state new fib saddr type local drop
		ip saddr @masq4 jump genuine
		ip6 saddr @masq6 jump genuine
		ct status dnat accept
		ip daddr . meta l4proto . th dport @opened4 accept
		ip6 daddr . meta l4proto . th dport @opened6 accept
		iifname @bridges goto sibling
		iifname . ip saddr @containers4 goto sibling
		iifname . ip6 saddr @containers6 goto sibling
		meta nfproto . oifname @closed drop
	}
	chain genuine {
		iifname . ip saddr @containers4 return
		iifname . ip6 saddr @containers6 return
		iifname . ip saddr @cross4 return
		iifname . ip6 saddr @cross6 return
		drop
	}
	chain sibling {
		oifname @isolated drop
	}
"""

# While no port has a condition, no rule jumps to `gate` and no chain has this prefix (`conditions`).
GATE = "gate"

# nft has no name for these types.
TYPEOF = {"advertised": "iifname . @th,64,128", "taken_targets": "@th,64,128", "vlans": "fib saddr oifname"}


def _declaration(name: str) -> str:
    if name in TYPEOF:
        return f"\tset {name} {{ typeof {TYPEOF[name]}; }}\n"
    key, data = SETS[name]
    kind = "map" if data else "set"
    types = " . ".join(key) + (" : " + " . ".join(data) if data else "")
    flags = " flags interval;" if name in INTERVALS else ""
    return f"\t{kind} {name} {{ type {types};{flags} }}\n"


def table_text(comment: str) -> str:
    """The empty tables for `nft -f`. The text does not load over a table with other contents."""
    return _table("inet", SETS.keys() - LAYER2.keys(), CHAINS, comment) + _table(
        "bridge", LAYER2.keys(), PORTS, comment
    )


def _table(family: str, names: Collection[str], chains: str, comment: str) -> str:
    sets = "".join(_declaration(name) for name in SETS if name in names)
    return f'table {family} {TABLE} {{\n\tcomment "{comment}"\n{sets}{chains}}}\n'


RULES = digest(table_text(""), size=4).hex()  # identifies this text: a table made from another one is replaced


def replacing_text(comment: str, more: str) -> str:
    """One transaction that replaces the tables, if any, by new ones with `more`: their elements, and the chains those
    lead to."""
    gone = "".join(f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in ("inet", "bridge"))
    return f"{gone}{table_text(comment)}{more}"


def is_whole(rules: list[tuple[str, bytes]]) -> bool:
    """Whether each chain has as many rules as its text. The rules' bytes depend on the nft that loaded them."""
    fast = ""
    if any(chain == FAST_PATH for chain, _code in rules):
        from .fastpath import FAST_CHAIN as fast
    gated = any(chain.startswith(WHEN) for chain, _code in rules)
    wanted = ["nat_prerouting", "nat_output"] if gated else []
    chain = ""
    for words in map(str.split, (CHAINS + fast + PORTS).splitlines()):
        if words[:1] == ["chain"]:
            chain = words[1]
        elif words and words[0] not in ("type", "}"):
            wanted.append(chain)
    return sorted(wanted) == sorted(chain for chain, _code in rules if not chain.startswith(WHEN))
