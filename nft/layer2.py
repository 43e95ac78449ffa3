"""The rules of the table of family bridge: what a container's port may send to the bridge. The other table's rules, and
the text of both, are in `ruleset`. Why they are as they are:

- A container's port may not send with an address, a MAC address or a neighbour advertisement that belongs to a sibling
  or the gateway, and not as a router; a `checked` port may send only with its own MAC address. What belongs to nobody
  passes: keepalived's addresses, macvlan, bridges inside.
- VLAN 0 means no VLAN: a receiver strips all of its tags, but the kernel has stripped only the first one here, and nft
  does not look for ICMPv6 in a tagged frame.
- `tagged` says again what `sent` says: a bridge that filters VLANs takes the tag of the port's own VLAN off before a
  sibling gets the frame. `ip saddr` sees through a tag, `arp` and `icmpv6` compare the type before it
  (nft_payload_copy_vlan). `meta protocol arp` would see through it too, but nft lists the rule without these words, and
  its own listing would then load as another rule.
- `advertisement` is a separate chain: in a rule that matches the ICMPv6 type, nft 1.1 lists `@th,64,128` as
  `icmpv6 taddr`, whose type differs from the sets', and cannot load its own listing.
- Not every kernel has `meta ibrname`, so one set holds the addresses of all bridges.
"""

from __future__ import annotations

PORTS = """
	chain prerouting {
		type filter hook prerouting priority -300; policy accept;
		iifname . ether saddr @own_macs goto sent
		iifname @checked drop
		iifname != @guarded accept
		ether saddr @taken_macs drop
		goto sent
	}
	chain sent {
		iifname . ip saddr @holds4 accept
		iifname . arp saddr ip @holds4 accept
		vlan id 0 drop
		ether type 8021ad vlan id 0 drop
		ether type 8021q jump tagged
		icmpv6 type { nd-router-advert, nd-redirect } drop
		icmpv6 type nd-neighbor-advert jump advertisement
		iifname . ip6 saddr @holds6 accept
		ip saddr @taken4 drop
		arp saddr ip @taken4 drop
		ip6 saddr @taken6 drop
	}
	chain tagged {
		vlan type { 8021q, 8021ad } @nh,4,12 0 drop
		vlan type arp iifname . arp saddr ip @holds4 accept
		vlan type arp arp saddr ip @taken4 drop
		vlan type ip6 icmpv6 type { nd-router-advert, nd-redirect } drop
		vlan type ip6 icmpv6 type nd-neighbor-advert jump advertisement
	}
	chain advertisement {
		iifname . @th,64,128 @advertised accept
		@th,64,128 @taken_targets drop
	}
"""
