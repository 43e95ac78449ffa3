"""Broken on the way: routes, policy rules, forwarding, bridge and ports, our table. Found, mended as printed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.broken import PATIENT, SHORT, Case, Scene, examine
from support.scratch import Host, network, port
from support.traffic import Server, ask

TUN = "ip link add tun9 type veth peer name tun9p; ip link set tun9p up; ip link set tun9 up; "

CASES = [
    # Forwarding
    Case("forwarding off", "sysctl -qw net.ipv4.ip_forward=0", ("net/ipv4/ip_forward is 0",), "sysctl -w"),
    Case("the uplink's", "sysctl -qw net.ipv4.conf.to-lan.forwarding=0", ("to-lan/forwarding",), "sysctl -w"),
    Case("the bridge's", "sysctl -qw net.ipv4.conf.br0.forwarding=0", ("br0/forwarding",), "sysctl -w"),
    Case(
        "of IPv6", "sysctl -qw net.ipv6.conf.all.forwarding=0", ("net/ipv6/conf/all/forwarding",), "sysctl -w", "lan6"
    ),
    Case(
        "route_localnet", "sysctl -qw net.ipv4.conf.br0.route_localnet=0", ("route_localnet is 0",), "sysctl -w", "host"
    ),
    # IPsec
    Case(
        "IPsec blocks what is forwarded",
        "ip xfrm policy add src 10.88.0.0/24 dst 0.0.0.0/0 dir fwd action block",
        ("IPsec", "10.88.0.0/24", "dir fwd"),
        "ip xfrm policy delete dir fwd",
    ),
    Case(
        "IPsec blocks what comes to the published port",
        "ip xfrm policy add src 0.0.0.0/0 dst 198.51.100.1 proto tcp dport 8080 dir fwd action block priority 9",
        ("IPsec", "198.51.100.1/32", "priority 9"),
        "ip xfrm policy delete dir fwd",
    ),
    Case(
        "IPsec blocks what leaves for the container",
        "ip xfrm policy add src ::/0 dst fd00:88::/64 dir out action block",
        ("IPsec", "fd00:88::/64", "dir out"),
        "ip xfrm policy delete dir out",
        "lan6",
    ),
    Case(
        "IPsec blocks what leaves masqueraded",
        "ip xfrm policy add src 198.51.100.1 dst 198.51.100.2 proto tcp dir out action block",
        ("IPsec", "198.51.100.1/32"),
        "ip xfrm policy delete dir out",
        "out",
        "doctor",
    ),
    Case(
        "IPsec blocks what the host asks",
        "ip xfrm policy add src 10.88.0.0/24 dst 0.0.0.0/0 dir in action block",
        ("IPsec", "dir in"),
        "ip xfrm policy delete dir in",
        "host",
    ),
    Case(
        "IPsec's default",
        "ip xfrm policy setdefault fwd block",
        ("IPsec", "default for dir fwd"),
        "ip xfrm policy setdefault fwd accept",
    ),
    # Routes
    Case(
        "a VPN takes the subnet",
        TUN + "ip route add 10.88.0.0/25 dev tun9; ip route add 10.88.0.128/25 dev tun9",
        ("10.88.0.2", "tun9", "br0"),
        "ip route del 10.88.0.0/25",
    ),
    Case(
        "a VPN's policy rule",
        TUN + "ip route add default dev tun9 table 51820; ip rule add not fwmark 51820 table 51820",
        ("10.88.0.2", "tun9", "table 51820"),
        "ip rule add to 10.88.0.0/24 lookup main",
    ),
    Case(
        "a VPN for what containers send",
        TUN + "ip route add default dev tun9 table 100; ip rule add from 10.88.0.0/24 lookup 100 priority 100",
        ("198.51.100.2", "tun9", "table 100"),
        "lookup main priority 99",
    ),
    Case(
        "a VPN for IPv6",
        TUN + "ip -6 route add fd00:88::2/128 dev tun9",
        ("fd00:88::2", "tun9"),
        "ip -6 route del fd00:88::2/128",
        "lan6",
    ),
    Case("a blackhole", "ip route add blackhole 10.88.0.0/25", ("blackhole 10.88.0.0/25",), "ip route del blackhole"),
    Case(
        "unreachable client",
        "ip route add unreachable 198.51.100.2",
        ("unreachable 198.51.100.2",),
        "ip route del unreachable",
    ),
    Case(
        "prohibited client", "ip route add prohibit 198.51.100.2", ("prohibit 198.51.100.2",), "ip route del prohibit"
    ),
    Case("a rule for a client", "ip rule add from 198.51.100.2 prohibit", ("prohibit",), "ip rule del priority"),
    Case("a rule for the subnet", "ip rule add to 10.88.0.0/24 blackhole", ("blackhole",), "ip rule del priority"),
    Case("a rule of IPv6", "ip -6 rule add to fd00:88::/64 unreachable", ("unreachable",), "ip -6 rule del", "lan6"),
    Case(
        "a table that drops",
        "ip route add blackhole default table 200; ip rule add iif br0 lookup 200 priority 50",
        ("blackhole default table 200",),
        "ip route del blackhole default table 200",
    ),
    Case(
        "a rule for the answer's port",
        TUN + "ip route add default dev tun9 table 100; ip rule add ipproto tcp sport 80 lookup 100 priority 50",
        ("tun9", "table 100"),
        "lookup main priority 49",
    ),
    Case(
        "a rule for the request's port",
        TUN + "ip route add default dev tun9 table 100; ip rule add ipproto tcp dport 80 lookup 100 priority 50",
        ("10.88.0.2", "tun9"),
        "ip rule add to 10.88.0.0/24 lookup main",
    ),
    Case("no rule for table main", "ip rule del lookup main", ("table main",), "ip rule add lookup main"),
    Case(
        "table main before table local",
        "ip rule add priority 100 lookup main; ip rule add priority 32765 lookup local; ip rule del priority 0",
        ("before table local",),
        "ip rule add lookup local priority 0",
    ),
    Case(
        "rp_filter, asymmetric",
        TUN + "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.to-lan.rp_filter=1;"
        "ip route add 198.51.100.2/32 dev tun9",
        ("rp_filter of to-lan is 1", "tun9"),
        "ip route del 198.51.100.2/32",
    ),
    Case(
        "the answer leaves by another link",
        TUN + "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.to-lan.rp_filter=0;"
        "ip route add 198.51.100.2/32 dev tun9",
        ("198.51.100.2", "tun9", "to-lan"),
        "ip route del",
    ),
    Case(
        "the client's route is gone",
        "ip route del 198.51.100.0/24 dev to-lan",
        ("no route to 198.51.100.2",),
        "ip route add 198.51.100.0/24 dev to-lan",
        see="explain 8080/tcp --from 198.51.100.2",
    ),
    Case(
        "the subnet's route is gone",  # systemd-networkd and NetworkManager take foreign ones away
        "ip route del 10.88.0.0/24 dev br0",
        ("no route to 10.88.0.2", "10.88.0.1/24", "deleted its route"),
        "ip route add 10.88.0.0/24 dev br0",
    ),
    Case(
        "the subnet's route of IPv6 is gone",
        "ip -6 route del fd00:88::/64 dev br0",
        ("no route to fd00:88::2", "deleted its route"),
        "ip -6 route add fd00:88::/64 dev br0",
        "lan6",
    ),
    Case(
        "the route of the host's own address is gone",
        "ip route del local 198.51.100.1 dev to-lan table local",
        ("198.51.100.1 of to-lan", "table local"),
        "ip route add local 198.51.100.1",
    ),
    Case(
        "the uplink became a port of a bridge",
        "ip route add default via 198.51.100.2;"
        "ip link add lan0 type bridge; ip link set lan0 up; ip link set to-lan master lan0",
        ("to-lan is a port of the bridge lan0", "198.51.100.1/24"),
        "ip addr add 198.51.100.1/24 dev lan0",
    ),
    Case(
        "the uplink became a port of the containers' bridge",
        # The neighbour does not learn the bridge's MAC address meanwhile, which it would know for a minute.
        "set -- $(ip -br link show to-lan); ip -n lan neigh replace 198.51.100.1 lladdr $3 dev eth0 nud permanent;"
        "ip link set to-lan master br0",
        ("to-lan is a port of br0",),
        "ip link set to-lan nomaster",
        closed=True,
    ),
    Case(
        "the host has the address", "ip addr add 10.88.0.2/32 dev lo", ("10.88.0.2", "lo"), "ip addr del 10.88.0.2/32"
    ),
    Case(
        "the uplink is down",
        "ip link set to-lan down",
        ("to-lan is down",),
        "ip link set to-lan up",
        see="explain 8080/tcp --from 198.51.100.2",
    ),
    # The bridge and its ports
    Case(
        "the bridge's MTU is too small for IPv6",
        "ip link set br0 mtu 1000",
        ("fd00:88::1/64", "MTU of br0 is 1000"),
        "ip link set br0 mtu 1500",
        "lan6",
    ),
    Case("bridge down", "ip link set br0 down", ("br0 is down",), "nftcni repair"),
    Case("bridge deleted", "ip link del br0", ("br0 is missing",), "nftcni repair"),
    Case("gateway address", "ip addr flush dev br0", ("10.88.0.1/24",), "nftcni repair"),
    Case("all of the bridge's IPv6", "ip -6 addr flush dev br0", ("fd00:88::1/64",), "nftcni repair", "lan6"),
    Case(
        "no link-local address",
        "ip addr del $(ip -6 -o addr show dev br0 scope link | awk '{print $4}') dev br0;"
        "ip -6 neigh flush all; ip -n web -6 neigh flush all",
        ("br0 has no link-local",),
        "addr_gen_mode=0",
        "lan6",
    ),
    Case("not a port", "ip link set $LINK nomaster", ("is not a port",), "nftcni repair"),
    Case(
        "another bridge's port",
        "ip link add br9 type bridge; ip link set $LINK master br9",
        ("is not a port",),
        "nftcni repair",
    ),
    Case("port down", "ip link set $LINK down", ("is down",), "nftcni repair"),
    Case("port deleted", "ip link del $LINK", ("is missing",), "nftcni repair net0/web"),
    Case(
        "port moved away",
        "ip netns add other; ip link set $LINK netns other",
        ("is missing", "/run/netns/other"),
        "ip link set",
    ),
    Case(
        "port moved away and renamed",
        "ip netns add other; ip link set $LINK netns other name stray0",
        ("is missing", "/run/netns/other", "stray0"),
        "nsenter --net=/run/netns/other",
    ),
    Case(
        "port moved into its container",
        "ip link set $LINK netns web",
        ("is missing", "/run/netns/web"),
        "nsenter --net=/run/netns/web",
    ),
    Case(
        "port renamed", "ip link set $LINK down; ip link set $LINK name stray0", ("is missing", "stray0"), "name veth"
    ),
    Case(
        "port locked",
        "bridge link set dev $LINK locked on; ip link set $LINK down; ip link set $LINK up; ip neigh flush all",
        ("is locked",),
        "locked off",
    ),
    Case("port blocked", "bridge link set dev $LINK state 0", ("does not forward",), "state 3"),
    Case(
        "port without learning",
        "bridge link set dev $LINK learning off flood off; ip link set $LINK down; ip link set $LINK up;"
        "ip neigh flush all; ip -n web neigh flush all",
        ("learning",),
        "learning on",
    ),
    Case(
        "port without broadcasts",
        "bridge link set dev $LINK bcast_flood off; ip -n peer neigh flush all; ip -n web neigh flush all",
        ("bcast_flood",),
        "bcast_flood on",
        "sibling",
        "doctor",
    ),
    Case("no ARP on the bridge", "ip link set br0 arp off; ip neigh flush all", ("br0", "ARP"), "arp on"),
    Case(
        "no ARP on the uplink",
        "ip link set to-lan arp off; ip neigh flush dev to-lan",
        ("to-lan", "ARP"),
        "arp on",
        see="explain 8080/tcp --from 198.51.100.2",
    ),
    Case(
        "ARP is not answered",
        "sysctl -qw net.ipv4.conf.br0.arp_ignore=8; ip -n web neigh flush all",
        ("arp_ignore",),
        "arp_ignore=0",
        "out",
        "doctor",
    ),
    Case(
        "a wrong neighbour entry",
        "ip neigh replace 10.88.0.2 lladdr 02:00:00:00:00:99 dev br0 nud permanent",
        ("02:00:00:00:00:99", "permanent"),
        "ip neigh del 10.88.0.2 dev br0",
    ),
    Case(
        "a wrong neighbour entry for IPv6",
        "ip neigh replace fd00:88::2 lladdr 02:00:00:00:00:99 dev br0 nud permanent",
        ("02:00:00:00:00:99",),
        "ip neigh del fd00:88::2 dev br0",
        "lan6",
    ),
    # Our own table
    Case("flushed ruleset", "nft flush ruleset", ("inet nftcni is missing",), "nftcni repair"),
    Case("deleted table", "nft delete table inet nftcni", ("inet nftcni is missing",), "nftcni repair"),
    Case("deleted table of frames", "nft delete table bridge nftcni", ("bridge nftcni is missing",), "repair", path=""),
    Case("our table sleeps", "nft add table inet nftcni '{ flags dormant; }'", ("inet nftcni is dormant",), "repair"),
    Case(
        "our table of frames sleeps",
        "nft add table bridge nftcni '{ flags dormant; }'",
        ("bridge nftcni is dormant",),
        "repair",
        path="",
    ),
    Case("flushed table", "nft flush table inet nftcni", ("rules",), "nftcni repair"),
    Case("flushed map", "nft flush map inet nftcni dnat4", ("dnat4",), "nftcni repair"),
    Case("deleted element", "nft delete element inet nftcni dnat4 '{ tcp . 8080 }'", ("8080",), "nftcni repair"),
    Case("a flushed chain", "nft flush chain inet nftcni portmap", ("rules",), "nftcni repair"),
]


@pytest.fixture
def scene(host: Host) -> Iterator[Scene]:
    made = Scene(host)
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_on_the_way(scene: Scene, case: Case) -> None:
    if "xfrm" in case.script and scene.host.call("ip", "xfrm", "policy", "list").returncode:
        pytest.skip("NOT RUN: this kernel has no IPsec (CONFIG_XFRM_USER)")
    if "setdefault" in case.script and scene.host.call("ip", "xfrm", "policy", "getdefault").returncode:
        pytest.skip("NOT RUN: IPsec's defaults need Linux 5.15 and iproute2 5.15")
    if (
        "locked" in case.script
        and scene.host.call("sh", "-c", f"bridge link set dev {scene.link} locked off").returncode
    ):
        pytest.skip("NOT RUN: locked ports need Linux 5.18 and iproute2 5.18")
    examine(scene, case)


@pytest.mark.parametrize(
    "allowed",
    [
        "ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir fwd action block priority 9;"
        "ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/1 dir fwd action allow priority 8;"
        "ip xfrm policy add src 0.0.0.0/0 dst 128.0.0.0/1 dir fwd action allow priority 8",
        "ip xfrm policy add src 10.88.0.0/24 dst 203.0.113.0/24 dir out action block",
        "ip xfrm policy add src 0.0.0.0/0 dst 10.88.0.2 proto tcp dport 81 dir out action block",
        "ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir out action block mark 7 mask 0xff",
        "sysctl -qw net.ipv4.conf.to-lan.disable_policy=1 net.ipv4.conf.br0.disable_policy=1;"
        "ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir fwd action block",
    ],
    ids=["a better one allows", "another destination", "another port", "another mark", "links that ask none"],
)
def test_policies_of_ipsec_that_block_nothing_of_ours(scene: Scene, allowed: str) -> None:
    if scene.host.call("ip", "xfrm", "policy", "list").returncode:
        pytest.skip("NOT RUN: this kernel has no IPsec (CONFIG_XFRM_USER)")
    scene.sh(allowed)
    for path in ("lan", "lan6", "host", "out"):
        assert scene.lives(path), path
    assert scene.findings("doctor") == [] and scene.findings("explain 8080") == []


def test_ipv6_is_off_on_the_uplink_of_published_ports(scene: Scene) -> None:
    """The kernel deletes the addresses there, so that doctor saw no link by which anybody comes, and was content."""
    own = "2001:db8:100::1/64"
    scene.sh("sysctl -qw net.ipv6.conf.to-lan.disable_ipv6=1")
    assert not scene.lives("lan6", SHORT)
    for words in ("doctor", "explain 8080/tcp"):
        (found,) = scene.findings(words)
        assert "IPv6 is off on to-lan" in found["because"] and "sysctl -w" in found["remedy"][0]
    scene.sh("\n".join(found["remedy"]))
    scene.sh(
        f"ip addr add {own} dev to-lan nodad; ip neigh replace 2001:db8:100::2 dev to-lan lladdr $(ip netns exec lan"
        " sh -c 'ip -br link show eth0' | awk '{print $3}')"
    )  # what manages it does
    assert scene.lives("lan6") or scene.lives("lan6", PATIENT)
    assert scene.findings("doctor") == []


def test_a_host_without_ipv6_is_healthy(scene: Scene) -> None:
    """Off everywhere but on our bridge, as an operator writes it into sysctl.conf before anything is attached."""
    scene.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1; nftcni repair")
    assert scene.lives("lan") and scene.findings("doctor") == []


def test_a_cable_that_is_out(scene: Scene) -> None:
    scene.sh("ip -n lan link set eth0 down")
    assert not scene.lives("lan", SHORT)
    for words in ("doctor", "explain 8080/tcp", "explain 8080/tcp --from 198.51.100.2"):
        found = scene.findings(words)
        assert found and all("to-lan is up, but has no carrier" in step["what"] for step in found)
    scene.sh("ip -n lan link set eth0 up")
    scene.sh("until ip -br link show to-lan | grep -q LOWER_UP; do sleep 0.1; done")
    assert (scene.lives("lan") or scene.lives("lan", PATIENT)) and scene.findings("doctor") == []


def test_a_wrong_neighbour_entry_point_to_point(scene: Scene) -> None:
    """Only on bridges were neighbours looked at."""
    scene.host.add(network("pp", "10.66.0.0/24", mode="ptp", bridge=None, ports=[port(8081, 80)]), "c9")
    scene.servers.append(Server(scene.host.place("c9"), 80))
    assert ask(scene.lan, "198.51.100.1", 8081).startswith("c9 ") and scene.findings("doctor") == []
    (link,) = (way["dev"] for way in scene.host.json("ip", "-j", "route", "get", "10.66.0.2"))
    scene.sh(f"ip neigh replace 10.66.0.2 lladdr 02:00:00:00:00:99 dev {link} nud permanent")
    assert ask(scene.lan, "198.51.100.1", 8081, timeout=SHORT) == "silence"
    (found,) = scene.findings("doctor")
    assert found["kind"] == "neighbour" and "02:00:00:00:00:99" in found["what"]
    scene.sh("\n".join(found["remedy"]))
    assert ask(scene.lan, "198.51.100.1", 8081).startswith("c9 ") and scene.findings("doctor") == []


def test_a_router_that_does_not_answer(scene: Scene) -> None:
    scene.sh("ip addr add 203.0.113.1/24 dev to-lan; ip route add default via 203.0.113.2")
    while "FAILED" not in scene.host.run("ip", "neigh", "show", "203.0.113.2"):
        ask(scene.host, "203.0.113.2", 80, timeout=SHORT)
    (found,) = scene.findings("doctor")
    assert "router 203.0.113.2 on to-lan does not answer" in found["what"]
    scene.lan.run("ip", "addr", "add", "203.0.113.2/24", "dev", "eth0")
    scene.sh("\n".join(found["remedy"]))
    assert scene.findings("doctor") == []


def test_an_address_that_another_machine_has(scene: Scene) -> None:
    """The kernel does not use it (dadfailed); the remedy used to add it once more."""
    scene.lan.run("ip", "addr", "add", "2001:db8:100::9/64", "dev", "eth0", "nodad")
    scene.sh(
        "ip addr del 2001:db8:100::1/64 dev to-lan; sysctl -qw net.ipv6.conf.to-lan.accept_dad=1;"
        "ip addr add 2001:db8:100::9/64 dev to-lan;"
        "until ip -6 addr show dev to-lan | grep -q dadfailed; do sleep 0.1; done"
    )
    found = [step for step in scene.findings("doctor") if step["kind"] == "duplicate"]
    assert len(found) == 1 and "another machine" in found[0]["what"]
    scene.lan.run("ip", "addr", "del", "2001:db8:100::9/64", "dev", "eth0")
    scene.sh("\n".join(found[0]["remedy"]))
    scene.sh("while ip -6 addr show dev to-lan | grep -q tentative; do sleep 0.1; done")
    assert ask(scene.lan, "2001:db8:100::9", 8080, timeout=PATIENT).startswith("web ")
    assert scene.findings("doctor") == []


def test_no_link_is_made_beside_one_that_was_moved_away(scene: Scene) -> None:
    """It was refused with words about an interface of another network."""
    scene.sh("ip netns add other; ip link set $LINK netns other")
    for words in (("repair",), ("repair", "net0/web")):
        done = scene.host.command(*words)
        assert done.returncode == 1 and f"ip link set {scene.link} netns $$" in done.stdout + done.stderr


def test_gc_frees_nothing_of_a_process_whose_link_was_moved_away(host: Host) -> None:
    """A namespace by the number of a process, as nerdctl has it, without the link: gc took it for another process."""
    config = network("net0", bridge="br0")
    host.container("c1")
    with host.popen("ip", "netns", "exec", "c1", "sleep", "infinity") as process:
        try:
            host.run("sh", "-c", f"until ip netns identify {process.pid} | grep -q c1; do sleep 0.1; done")
            host.add(config, "c1", netns=f"/proc/{process.pid}/ns/net")
            (link,) = (one["ifname"] for one in host.json("ip", "-j", "link", "show", "master", "br0"))
            host.container("other")
            host.run("ip", "link", "set", link, "netns", "other")
            assert host.command("gc").stdout == "0 of 1 attachments had ended without DEL\n"
            host.place("c1").run("ip", "link", "del", "eth0")
            assert host.command("gc").stdout.endswith("1 of 1 attachments had ended without DEL\n")
        finally:
            process.kill()
