"""`nftcni doctor`: what keeps this host from serving containers, each finding with its remedy.

Slow and thorough where STATUS is quick: it uses pyroute2 for the host's links and addresses. It changes nothing.
"""

from __future__ import annotations

from cni.host import Host
from cni.kernel import sysctl
from cni.operate.repair import problems_of
from nft.foreign import forward_drops

REMEDIES = {
    "ip filter FORWARD": "if Docker owns it: nft insert rule ip filter DOCKER-USER iifname BRIDGE accept, and the same "
    "with oifname; if ufw does: ufw route allow in on BRIDGE, ufw route allow out on BRIDGE",
    "inet firewalld filter_FORWARD": "firewall-cmd --permanent --zone=trusted --add-interface=BRIDGE, then --reload",
}


def examine(host: Host) -> int:
    """Prints every finding; 1 if there is one that needs doing."""
    findings = _libraries() + _table(host) + _forwarding(host) + _foreign_drops(host) + _addresses(host)
    for finding in findings:
        print(f"- {finding}")
    records = host.records()
    print(
        f"{len(records)} attachments, {len(findings)} findings" if findings else f"{len(records)} attachments, all well"
    )
    return 1 if findings else 0


def _libraries() -> list[str]:
    from nft.errors import LoadError
    from nft.libnftables import run_text
    from nft.version import refuse_old

    try:
        refuse_old()
        run_text("")
    except LoadError as problem:
        return [f"{problem}; {problem.hint}"]
    return []


def _table(host: Host) -> list[str]:
    problems = problems_of(host)
    return [*problems, "run nftcni repair"] if problems else []


def _forwarding(host: Host) -> list[str]:
    versions = {address.version for item in host.records() for address in item.addresses if item.is_gateway}
    keys = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
    return [
        f"net/{keys[version]} is 0: sysctl -w net.{keys[version].replace('/', '.')}=1"
        for version in sorted(versions)
        if sysctl.read(keys[version]) == "0"
    ]


def _foreign_drops(host: Host) -> list[str]:
    bridges = sorted({item.bridge for item in host.records()}) or ["nftcni0"]
    found = []
    for chain in forward_drops(host.table.netlink, bridges):
        remedy = REMEDIES.get(chain, "its owner has to accept packets from and to BRIDGE there")
        found.append(f"chain {chain} drops what is forwarded: {remedy.replace('BRIDGE', ' and '.join(bridges))}")
    return found


def _addresses(host: Host) -> list[str]:
    """Addresses of the host inside a network of containers, other than the gateway: both cannot be reached."""
    items = host.records()
    if not items:
        return []
    import site

    site.main()
    try:
        from pyroute2 import IPRoute  # type: ignore[import-not-found]
    except ImportError:
        return ["pyroute2 is missing: install the distribution's package python3-pyroute2 (py3-pyroute2 on Alpine)"]
    from nft.addresses import parse_address

    found = []
    with IPRoute() as route:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in route.get_links()}
        for entry in route.get_addr():
            address = parse_address(entry.get_attr("IFA_ADDRESS"))
            name = names.get(entry["index"], str(entry["index"]))
            for item in items:
                if name != item.bridge and any(address in lease.address.network for lease in item.leases):
                    found.append(f"the host's {name} has {address}, inside the network {item.network} of containers")
                    break
    return found
