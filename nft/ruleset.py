"""The table's text: sets, maps, chains and rules, written once per host and never changed by a container. Pure.

What goes into the sets is the caller's affair; loading the text is `libnftables`. Why each rule stands as it does:

- `fib daddr type local` gates DNAT: without it a port of every passing packet is hijacked (GHSA-jv3w-x3r3-g6rm).
- raw_prerouting keeps 127/8 on the loopback device: DNAT comes before the kernel's martian check, and route_localnet on
  the bridge would let containers reach the host's own loopback services (moby#45610, CVE-2020-8558).
- `ip6 daddr ::1 return`: the kernel cannot forward replies to ::1, an immediate refusal beats a time-out.
- Masquerade on `ct status dnat` only for sources on the same bridge (hairpin) and from 127/8: everybody else's address
  reaches the container. It matches `ip saddr . oifname`: `iifname` is empty there when br_netfilter is active.
- What stays on its own bridge is not masqueraded (br_netfilter brings it here); an uplink is no container's bridge, so
  what others send out by it is.
- `priority -100` and not `dstnat` on output: nft 1.0.6 refuses the name there.
- No chain may be called `fwd`, and maps with concatenated data must come from text, not JSON (nft 1.0.6 makes a set).
"""

from __future__ import annotations

from .digest import digest
from .schema import SETS, TABLE

CHAINS = """
	chain portmap {
		dnat ip to ip daddr . meta l4proto . th dport map @dnat4_ip
		dnat ip to meta l4proto . th dport map @dnat4
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @dnat6_ip
		dnat ip6 to meta l4proto . th dport map @dnat6
	}
	chain raw_prerouting {
		type filter hook prerouting priority raw; policy accept;
		iifname != "lo" ip daddr 127.0.0.0/8 drop
		iifname != "lo" ip saddr 127.0.0.0/8 drop
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
		ct status dnat ip saddr . oifname @own4 masquerade
		ct status dnat ip6 saddr . oifname @own6 masquerade
		ct status dnat ip saddr 127.0.0.0/8 ip daddr . oifname @own4 masquerade
		ip saddr . oifname @own4 return
		ip6 saddr . oifname @own6 return
		ip saddr @masq4 oifname != @bridges ip daddr != 224.0.0.0/4 masquerade
		ip6 saddr @masq6 oifname != @bridges ip6 daddr != ff00::/8 masquerade
	}
	chain filter_forward {
		type filter hook forward priority filter; policy accept;
		ct state established,related accept
		ct status dnat oifname @bridges accept
		iifname . oifname @same_net accept
		iifname @bridges oifname @isolated drop
		iifname @isolated oifname @bridges drop
	}
"""


def _declaration(name: str) -> str:
    key, data = SETS[name]
    kind = "map" if data else "set"
    types = " . ".join(key) + (" : " + " . ".join(data) if data else "")
    return f"\t{kind} {name} {{ type {types}; }}\n"


def table_text(comment: str) -> str:
    """The empty table as `nft -f` takes it. Fails to load where the table exists with other contents."""
    return f'table inet {TABLE} {{\n\tcomment "{comment}"\n' + "".join(map(_declaration, SETS)) + CHAINS + "}\n"


RULES = digest(table_text(""), size=4).hex()  # stands for this very text: a table with another one is made anew


def replacing_text(comment: str, elements: str) -> str:
    """The whole table with `elements` (text), in place of whatever is there, in one transaction."""
    return f"add table inet {TABLE}\ndelete table inet {TABLE}\n{table_text(comment)}{elements}"


def is_whole(rules: list[tuple[str, bytes]]) -> bool:
    """Whether each chain has as many rules as its text. What they say depends on the nft that loaded them."""
    wanted: list[str] = []
    chain = ""
    for words in map(str.split, CHAINS.splitlines()):
        if words[:1] == ["chain"]:
            chain = words[1]
        elif words and words[0] not in ("type", "}"):
            wanted.append(chain)
    return sorted(wanted) == sorted(chain for chain, _code in rules)
